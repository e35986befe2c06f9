//! Settings of topics and brokers, as far as the suites ask for and change them.

use anyhow::{Result, ensure};

use super::{Connection, Reader, Writer, api};

/// What has a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of<'a> {
    /// A topic.
    Topic(&'a str),
    /// The broker with this id.
    Broker(&'a str),
}

impl<'a> Of<'a> {
    /// Type and name of the resource, as the protocol has them.
    fn resource(self) -> (i8, &'a str) {
        match self {
            Self::Topic(name) => (2, name),
            Self::Broker(id) => (4, id),
        }
    }
}

impl Connection {
    /// The value that a setting has now (DescribeConfigs v1).
    ///
    /// # Errors
    /// The broker says no, or does not tell it.
    pub fn config(&mut self, of: Of<'_>, name: &str) -> Result<Option<String>> {
        let (kind, resource) = of.resource();
        let mut body = Writer::default();
        body.i32(1).i8(kind).string(resource)?.i32(1).string(name)?.i8(0);
        let answer = self.call(api::DESCRIBE_CONFIGS, 1, &body.0)?;
        let mut reader = Reader(&answer);
        reader.i32()?;
        ensure!(reader.i32()? == 1, "one answer for one resource");
        let code = reader.i16()?;
        let said = reader.nullable()?;
        ensure!(code == 0, "{of:?}: error {code}: {said:?}");
        reader.i8()?;
        reader.string()?;
        ensure!(
            reader.i32()? == 1 && reader.string()? == name,
            "{of:?} has no {name}"
        );
        Ok(reader.nullable()?.map(str::to_owned))
    }

    /// Sets a setting (IncrementalAlterConfigs v0).
    ///
    /// # Errors
    /// The broker says no.
    pub fn set_config(&mut self, of: Of<'_>, name: &str, value: &str) -> Result<()> {
        const SET: i8 = 0;
        let (kind, resource) = of.resource();
        let mut body = Writer::default();
        body.i32(1).i8(kind).string(resource)?;
        body.i32(1).string(name)?.i8(SET).nullable(Some(value))?.i8(0);
        let answer = self.call(api::INCREMENTAL_ALTER_CONFIGS, 0, &body.0)?;
        let mut reader = Reader(&answer);
        reader.i32()?;
        ensure!(reader.i32()? == 1, "one answer for one resource");
        let code = reader.i16()?;
        ensure!(code == 0, "{of:?}: error {code}: {:?}", reader.nullable()?);
        Ok(())
    }
}
