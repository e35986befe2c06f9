//! Metadata, as far as the suites ask for it.

use anyhow::Result;

use super::{Connection, Reader, Writer, api};

impl Connection {
    /// The number of partitions of a topic; 0 if there is no such topic. None is made by asking (Metadata v4).
    pub fn partitions(&mut self, topic: &str) -> Result<i32> {
        let mut body = Writer::default();
        body.i32(1).string(topic)?.i8(0);
        let answer = self.call(api::METADATA, 4, &body.0)?;
        let mut reader = Reader(&answer);
        reader.i32()?;
        for _ in 0..reader.i32()? {
            reader.i32()?;
            reader.string()?;
            reader.i32()?;
            reader.nullable()?;
        }
        reader.nullable()?;
        reader.i32()?;
        // One topic: its error, its name, whether it is internal.
        reader.i32()?;
        reader.i16()?;
        reader.string()?;
        reader.i8()?;
        reader.i32()
    }
}
