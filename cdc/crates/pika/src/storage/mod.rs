//! Keys and values in the RocksDB databases of a dump. All integers are little endian unless said otherwise.
//!
//! In every layout a collection has a *meta* value, and *data* entries that bear the key and the version of their meta. Data
//! outlives its meta: whoever reads starts from meta values and asks for the data of exactly that version.

pub mod blackwidow;
pub mod floyd;
pub mod nemo;
mod stream;

pub use stream::{StreamId, stream_fields};

use crate::command::DataType;

/// Why a key or value makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is shorter than what it must hold.
    #[error("{what} has {len} bytes, fewer than {least}")]
    Short {
        /// What it is.
        what: &'static str,
        /// Bytes that it has.
        len: usize,
        /// Bytes that it must have.
        least: usize,
    },
    /// The type of a value is unknown.
    #[error("a value has the unknown type {0}")]
    Type(u8),
    /// The key was written wrongly: Pika 4.0 cuts keys that have a zero byte before other bytes.
    #[error("a key was cut by Pika's encoding of zero bytes")]
    CutKey,
    /// A key is longer than its layout allows.
    #[error("a key has {0} bytes, more than its layout allows")]
    LongKey(usize),
    /// The elements of a list do not lead to one another.
    #[error("a list of {len} elements ends after {found}")]
    List {
        /// How many it must have.
        len: u64,
        /// How many were found.
        found: u64,
    },
    /// A number that cannot be negative is.
    #[error("{0} is negative")]
    Negative(&'static str),
}

/// What is known of a collection before its data is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Type of the collection.
    pub data_type: DataType,
    /// Version that its data bears.
    pub version: u64,
    /// Number of its elements.
    pub len: u64,
    /// When it is gone, in milliseconds since 1970.
    pub expire_at_ms: Option<i64>,
    /// Of a list: the index before its first element and the one after its last.
    pub indexes: Option<(u64, u64)>,
}

impl Meta {
    /// Whether it is there at `now_ms`: has elements and has not expired.
    pub fn is_alive(&self, now_ms: i64) -> bool {
        self.len > 0 && is_alive(self.expire_at_ms, now_ms)
    }
}

/// Whether something that is gone at `expire_at_ms` is there at `now_ms`.
pub fn is_alive(expire_at_ms: Option<i64>, now_ms: i64) -> bool {
    expire_at_ms.is_none_or(|at| at > now_ms)
}

/// Reads little-endian numbers one after the other from a value of known size.
struct Fields<'a> {
    what: &'static str,
    whole: usize,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            what,
            whole: bytes.len(),
            rest: bytes,
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let short = Damage::Short {
            what: self.what,
            len: self.whole,
            least: self.whole - self.rest.len() + N,
        };
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn i32(&mut self) -> Result<i32, Damage> {
        Ok(i32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn skip<const N: usize>(&mut self) -> Result<(), Damage> {
        self.take::<N>().map(drop)
    }

    /// A number of elements, which is kept as a signed number.
    fn count(&mut self) -> Result<u64, Damage> {
        u64::try_from(self.i32()?).map_err(|_| Damage::Negative("a number of elements"))
    }
}

/// The last `N` bytes and what is before them.
fn split_end<'a, const N: usize>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<(&'a [u8], &'a [u8; N]), Damage> {
    bytes.split_last_chunk::<N>().ok_or(Damage::Short {
        what,
        len: bytes.len(),
        least: N,
    })
}

/// Seconds of an expiry as 32 bits keep them; 0 is none.
fn seconds(seconds: i32) -> Option<i64> {
    (seconds != 0).then(|| i64::from(seconds) * 1000)
}

/// A score as text that reads back to the same number, as short as that allows.
pub fn score_text(score: f64) -> String {
    let text = format!("{score:?}");
    text.strip_suffix(".0")
        .map_or_else(|| text.clone(), str::to_owned)
}

/// A score of 8 bytes.
///
/// # Errors
///
/// [`Damage::Short`].
pub fn score(bytes: &[u8]) -> Result<f64, Damage> {
    Fields::new("a score", bytes).take().map(f64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scores_are_short() {
        let texts = [
            0.1,
            3.0,
            -0.0,
            1e-300,
            f64::INFINITY,
            f64::NEG_INFINITY,
            9_007_199_254_740_992.0,
        ]
        .map(score_text);
        assert_eq!(
            texts,
            ["0.1", "3", "-0", "1e-300", "inf", "-inf", "9007199254740992"]
        );
    }

    proptest! {
        #[test]
        fn scores_read_back(bits: u64) {
            let score = f64::from_bits(bits);
            prop_assume!(!score.is_nan());
            prop_assert_eq!(score_text(score).parse::<f64>().unwrap().to_bits(), bits);
        }
    }
}
