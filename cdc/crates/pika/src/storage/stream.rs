//! Entries of streams, alike in all layouts that have them.

use std::fmt;

use super::{Damage, Fields};

/// Id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// Milliseconds since 1970, or what somebody chose.
    pub millis: u64,
    /// Number within that millisecond.
    pub sequence: u64,
}

impl StreamId {
    /// Reads the 16 bytes of an id, both numbers big endian.
    ///
    /// # Errors
    ///
    /// [`Damage::Short`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields::new("a stream id", bytes);
        Ok(Self {
            millis: u64::from_be_bytes(fields.take()?),
            sequence: u64::from_be_bytes(fields.take()?),
        })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// Fields and values of an entry, in turns.
///
/// # Errors
///
/// [`Damage::Short`].
pub fn stream_fields(value: &[u8]) -> Result<Vec<&[u8]>, Damage> {
    let mut words = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let mut fields = Fields::new("an entry of a stream", rest);
        let claimed = fields.u32()?;
        let word = usize::try_from(claimed)
            .ok()
            .and_then(|len| fields.rest.split_at_checked(len));
        let (word, after) = word.ok_or_else(|| Damage::Short {
            what: "an entry of a stream",
            len: fields.rest.len(),
            least: usize::try_from(claimed).unwrap_or(usize::MAX),
        })?;
        words.push(word);
        rest = after;
    }
    Ok(words)
}
