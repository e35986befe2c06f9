//! The layout of Pika 2.2 and 2.3: one database per type, metas and data in one key space.

use super::{Damage, Fields, Meta, seconds, split_end};
use crate::command::DataType;

/// Directories of a dump with their types.
pub const DIRECTORIES: [(&str, DataType); 5] = [
    ("kv", DataType::String),
    ("hash", DataType::Hash),
    ("list", DataType::List),
    ("set", DataType::Set),
    ("zset", DataType::Zset),
];

/// A value and what is kept behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The value.
    pub value: &'a [u8],
    /// Which life of its key it belongs to.
    pub version: u32,
    /// When it is gone, in milliseconds since 1970.
    pub expire_at_ms: Option<i64>,
}

/// Takes a value apart.
///
/// # Errors
///
/// [`Damage::Short`].
pub fn stored(bytes: &[u8]) -> Result<Stored<'_>, Damage> {
    let (value, end) = split_end::<8>("a value", bytes)?;
    let mut fields = Fields::new("a value", end);
    Ok(Stored {
        value,
        version: fields.u32()?,
        expire_at_ms: seconds(fields.i32()?),
    })
}

/// The letter that metas of a type begin with; strings have none.
pub fn meta_letter(data_type: DataType) -> Option<u8> {
    match data_type {
        DataType::Hash => Some(b'H'),
        DataType::List => Some(b'L'),
        DataType::Set => Some(b'S'),
        DataType::Zset => Some(b'Z'),
        DataType::String | DataType::Stream => None,
    }
}

/// Reads a meta value, suffix included. Of a list, `indexes` are the first and the last node.
///
/// # Errors
///
/// [`Damage`].
pub fn meta(data_type: DataType, bytes: &[u8]) -> Result<Meta, Damage> {
    let stored = stored(bytes)?;
    let mut fields = Fields::new("a meta value", stored.value);
    let len =
        u64::try_from(fields.u64()?.cast_signed()).map_err(|_| Damage::Negative("a number of elements"))?;
    let indexes = match data_type {
        DataType::List => Some((fields.u64()?, fields.u64()?)),
        _ => None,
    };
    Ok(Meta {
        data_type,
        version: u64::from(stored.version),
        len,
        expire_at_ms: stored.expire_at_ms,
        indexes,
    })
}

/// What the keys of a collection's data begin with; `None` for a key that is too long for it.
pub fn data_prefix(data_type: DataType, key: &[u8]) -> Option<Vec<u8>> {
    let mut prefix = vec![
        meta_letter(data_type)?.to_ascii_lowercase(),
        u8::try_from(key.len()).ok()?,
    ];
    prefix.extend_from_slice(key);
    if data_type == DataType::Hash {
        prefix.push(b'=');
    }
    Some(prefix)
}

/// A node of a list: the one before, the one after, and its value. 0 is none.
///
/// # Errors
///
/// [`Damage::Short`].
pub fn list_node(value: &[u8]) -> Result<(u64, u64, &[u8]), Damage> {
    let mut fields = Fields::new("a node of a list", value);
    Ok((fields.u64()?, fields.u64()?, fields.rest))
}
