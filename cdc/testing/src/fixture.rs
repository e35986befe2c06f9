//! Files of a fixture.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::recording::{self, Connection};

/// Servers that were recorded.
pub const VERSIONS: [&str; 4] = ["2.3.6", "3.0.16", "3.5.5", "4.0.1"];

/// The Redis port of the recorded masters.
pub const MASTER_PORT: u16 = 9221;

/// The Redis port of the recorded slaves.
pub const SLAVE_PORT: u16 = 9231;

/// A byte string of a fixture; one that is too long to be kept is known by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytestring {
    /// The bytes.
    Bytes(Vec<u8>),
    /// Length and SHA-256 in hexadecimal digits.
    Hashed(u64, String),
}

/// The files of one server.
#[derive(Debug, Clone)]
pub struct Fixture(PathBuf);

impl Fixture {
    /// The files of a server of this version.
    pub fn of(version: &str) -> Self {
        Self(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../tests/fixtures")
                .join(version),
        )
    }

    /// The bytes of a file, unpacked if it is packed.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.0.join(name);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        if !name.ends_with(".gz") {
            return Ok(bytes);
        }
        let mut unpacked = Vec::new();
        GzDecoder::new(&bytes[..])
            .read_to_end(&mut unpacked)
            .with_context(|| path.display().to_string())?;
        Ok(unpacked)
    }

    /// The captured session that begins with this number.
    ///
    /// # Errors
    ///
    /// When there is none, or it makes no sense.
    pub fn session(&self, number: &str) -> Result<Vec<Connection>> {
        for entry in std::fs::read_dir(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(number) && name.ends_with(".pcap.gz") {
                return recording::connections(&self.read(&name)?).with_context(|| name.clone());
            }
        }
        anyhow::bail!("no session {number} in {}", self.0.display())
    }

    /// Lines of a `.jsonl` file.
    ///
    /// # Errors
    ///
    /// When there is none, or it makes no sense.
    pub fn lines(&self, name: &str) -> Result<Vec<Value>> {
        let text = String::from_utf8(self.read(name)?)?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Unpacks the dump below `into`; returns the directory with one folder per database.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written.
    pub fn dump(&self, into: &Path) -> Result<PathBuf> {
        tar::Archive::new(&self.read("dump.tar.gz")?[..]).unpack(into)?;
        let dumps = into.join("dump");
        let dated = std::fs::read_dir(&dumps)?.next().context("an empty dump")??;
        Ok(dated.path())
    }
}

/// A byte string as the fixtures write it.
///
/// # Errors
///
/// When it is written in another way.
pub fn bytestring(value: &Value) -> Result<Bytestring> {
    if let Some(text) = value.as_str() {
        return Ok(Bytestring::Bytes(text.as_bytes().to_vec()));
    }
    if let Some(encoded) = value["b64"].as_str() {
        return Ok(Bytestring::Bytes(STANDARD.decode(encoded)?));
    }
    let len = value["len"]
        .as_u64()
        .with_context(|| format!("no byte string: {value}"))?;
    let hash = value["sha256"]
        .as_str()
        .with_context(|| format!("no byte string: {value}"))?;
    Ok(Bytestring::Hashed(len, hash.to_owned()))
}
