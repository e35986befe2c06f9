//! The layout of Pika 4.0: all types in one database, of which there are several.

use std::cmp::Ordering;

use super::{Damage, Fields, Meta, split_end};
use crate::command::{DataType, to_millis};

/// Name of the order in which list elements are kept; the database asks for it when it is opened.
pub const LIST_COMPARATOR: &str = "floyd.ListsDataKeyComparator";

/// Bytes before a key, kept free.
const RESERVE_BEFORE: usize = 8;

/// Bytes after a key, kept free.
const RESERVE_AFTER: usize = 16;

/// Marks times in milliseconds; without it they are in seconds.
const MILLIS: u64 = 1 << 63;

/// What a value of the default column family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A string.
    String {
        /// Its value.
        value: &'a [u8],
        /// When it is gone, in milliseconds since 1970.
        expire_at_ms: Option<i64>,
    },
    /// The meta value of a collection.
    Meta(Meta),
}

/// The column family with the data of a type; metas, and strings, are in the default one.
pub fn data_family(data_type: DataType) -> Option<&'static str> {
    match data_type {
        DataType::String => None,
        DataType::Hash => Some("hash_data_cf"),
        DataType::Set => Some("set_data_cf"),
        DataType::List => Some("list_data_cf"),
        DataType::Zset => Some("zset_data_cf"),
        DataType::Stream => Some("stream_data_cf"),
    }
}

/// The key that a key of the default column family stands for.
///
/// # Errors
///
/// [`Damage::CutKey`] for one that does not tell its key, [`Damage::Short`].
pub fn user_key(encoded: &[u8]) -> Result<Vec<u8>, Damage> {
    let end = end_of_key(encoded)?;
    if encoded[end..] != [0; RESERVE_AFTER] {
        return Err(Damage::CutKey);
    }
    let mut key = Vec::with_capacity(end - RESERVE_BEFORE);
    let mut bytes = encoded[RESERVE_BEFORE..end - 2].iter();
    while let Some(byte) = bytes.next() {
        key.push(*byte);
        if *byte == 0 {
            // The byte after a zero only tells it from the end.
            bytes.next();
        }
    }
    Ok(key)
}

/// A key of the default column family.
pub fn encode_key(key: &[u8]) -> Vec<u8> {
    let mut encoded = vec![0; RESERVE_BEFORE];
    for byte in key {
        encoded.push(*byte);
        if *byte == 0 {
            encoded.push(1);
        }
    }
    encoded.extend_from_slice(&[0; 2 + RESERVE_AFTER]);
    encoded
}

/// What the keys of a collection's data begin with, from its key in the default column family.
///
/// # Errors
///
/// [`Damage::Short`].
pub fn data_prefix(encoded: &[u8], version: u64) -> Result<Vec<u8>, Damage> {
    let end = end_of_key(encoded)?;
    let mut prefix = encoded[..end].to_vec();
    prefix.extend_from_slice(&version.to_le_bytes());
    Ok(prefix)
}

/// What follows the prefix in the key of an entry: field, member, index or stream id.
///
/// # Errors
///
/// [`Damage::Short`].
pub fn tail<'a>(prefix: &[u8], key: &'a [u8]) -> Result<&'a [u8], Damage> {
    let rest = key.get(prefix.len()..).unwrap_or_default();
    split_end::<RESERVE_AFTER>("the key of an entry", rest).map(|(tail, _)| tail)
}

/// The value of an entry without what is kept beside it.
///
/// # Errors
///
/// [`Damage::Short`].
pub fn payload(data_type: DataType, value: &[u8]) -> Result<&[u8], Damage> {
    match data_type {
        DataType::Stream => Ok(value),
        // Reserve, and time of creation.
        _ => split_end::<24>("an entry", value).map(|(payload, _)| payload),
    }
}

/// Reads a value of the default column family.
///
/// # Errors
///
/// [`Damage`].
pub fn entry(value: &[u8]) -> Result<Entry<'_>, Damage> {
    let mut fields = Fields::new("a value", value);
    let [kind] = fields.take()?;
    let data_type = match kind {
        0 => {
            let (rest, times) = split_end::<{ RESERVE_AFTER + 16 }>("a string", fields.rest)?;
            let mut times = Fields::new("a string", &times[RESERVE_AFTER + 8..]);
            return Ok(Entry::String {
                value: rest,
                expire_at_ms: time(times.u64()?),
            });
        }
        1 => DataType::Hash,
        2 => DataType::Set,
        3 => DataType::List,
        4 => DataType::Zset,
        5 => DataType::Stream,
        other => return Err(Damage::Type(other)),
    };
    meta(data_type, &mut fields).map(Entry::Meta)
}

fn meta(data_type: DataType, fields: &mut Fields<'_>) -> Result<Meta, Damage> {
    let mut meta = Meta {
        data_type,
        version: 0,
        len: 0,
        expire_at_ms: None,
        indexes: None,
    };
    match data_type {
        DataType::Stream => {
            // Groups, entries ever added, first, last and largest deleted id.
            fields.skip::<60>()?;
            meta.len = fields.count()?;
            meta.version = fields.u64()?;
            return Ok(meta);
        }
        DataType::List => {
            meta.len = fields.u64()?;
            meta.version = fields.u64()?;
            // Each index has room for 16 bytes, of which 8 are written.
            let left = fields.u64()?;
            fields.skip::<8>()?;
            let right = fields.u64()?;
            fields.skip::<8>()?;
            meta.indexes = Some((left, right));
        }
        DataType::String | DataType::Hash | DataType::Set | DataType::Zset => {
            meta.len = u64::from(fields.u32()?);
            meta.version = fields.u64()?;
        }
    }
    // Reserve, and time of creation.
    fields.skip::<{ RESERVE_AFTER + 8 }>()?;
    meta.expire_at_ms = time(fields.u64()?);
    Ok(meta)
}

/// A time of 4.0.0 (seconds) or 4.0.1 (milliseconds, marked; not marked for HyperLogLogs, where its size tells).
fn time(raw: u64) -> Option<i64> {
    let number = i64::try_from(raw & !MILLIS).ok()?;
    if raw & MILLIS == 0 {
        to_millis(number)
    } else {
        (number > 0).then_some(number)
    }
}

/// Where the encoded key ends, its two zero bytes included.
fn end_of_key(encoded: &[u8]) -> Result<usize, Damage> {
    let mut at = RESERVE_BEFORE;
    while let Some(pair) = encoded.get(at..at + 2) {
        match pair {
            [0, 0] => return Ok(at + 2),
            [0, _] => at += 2,
            _ => at += 1,
        }
    }
    Err(Damage::Short {
        what: "a key",
        len: encoded.len(),
        least: RESERVE_BEFORE + 2 + RESERVE_AFTER,
    })
}

/// The order of list elements: key, version, index. Keys that lack the latter come first.
pub fn compare_list_keys(a: &[u8], b: &[u8]) -> Ordering {
    let split = |bytes: &[u8]| end_of_key(bytes).unwrap_or(bytes.len());
    let ((a, a_rest), (b, b_rest)) = (a.split_at(split(a)), b.split_at(split(b)));
    let number = |rest: &[u8], at: usize| {
        rest.get(at..)?
            .first_chunk()
            .map(|bytes| u64::from_le_bytes(*bytes))
    };
    a.cmp(b)
        .then_with(|| number(a_rest, 0).cmp(&number(b_rest, 0)))
        .then_with(|| number(a_rest, 8).cmp(&number(b_rest, 8)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The samples of the reference, byte for byte.
    #[test]
    fn known_keys_and_values() {
        let mut key = vec![0; 8];
        key.extend_from_slice(b"k\0\0");
        key.extend_from_slice(&[0; 16]);
        assert_eq!(encode_key(b"k"), key);
        let mut value = b"\0v".to_vec();
        value.extend_from_slice(&[0; 16]);
        value.extend_from_slice(&[0x7b, 0x68, 0xe5, 0xcf, 0x8b, 0x01, 0x00, 0x80]);
        value.extend_from_slice(&[0; 8]);
        let string = Entry::String {
            value: b"v",
            expire_at_ms: None,
        };
        assert_eq!(entry(&value), Ok(string));
        assert_eq!(time(0x8000_018b_cfe5_687b), Some(1_700_000_000_123));
        assert_eq!(time(1_700_000_000), Some(1_700_000_000_000));
    }

    /// What the encoder of 4.0 makes of a key with a zero byte before others.
    #[test]
    fn a_cut_key_is_not_guessed() {
        let mut key = vec![0; 8];
        key.extend_from_slice(&[0x61, 0, 1, 0, 0]);
        key.extend_from_slice(&[0; 16]);
        key.extend_from_slice(&[0xee; 3]);
        assert_eq!(user_key(&key), Err(Damage::CutKey));
    }

    proptest! {
        #[test]
        fn keys_read_back_and_keep_their_data_apart(key: Vec<u8>, other: Vec<u8>, version: u64) {
            let encoded = encode_key(&key);
            prop_assert_eq!(user_key(&encoded).unwrap(), key.clone());
            let prefix = data_prefix(&encoded, version).unwrap();
            let mut entry = prefix.clone();
            entry.extend_from_slice(b"field");
            entry.extend_from_slice(&[0; 16]);
            prop_assert_eq!(tail(&prefix, &entry).unwrap(), b"field");
            if key != other {
                prop_assert!(!entry.starts_with(&data_prefix(&encode_key(&other), version).unwrap()));
            }
        }
    }
}
