//! The layout of Pika 3.0 to 3.5: one database per type.

use std::cmp::Ordering;

use super::{Damage, Fields, Meta, seconds, split_end};
use crate::command::DataType;

/// Directories of a dump with their types. `streams` exists from 3.5.3 on.
pub const DIRECTORIES: [(&str, DataType); 6] = [
    ("strings", DataType::String),
    ("hashes", DataType::Hash),
    ("lists", DataType::List),
    ("sets", DataType::Set),
    ("zsets", DataType::Zset),
    ("streams", DataType::Stream),
];

/// Name of the order in which list elements are kept; the database asks for it when it is opened.
pub const LIST_COMPARATOR: &str = "blackwidow.ListsDataKeyComparator";

/// The column family with the data of a type; metas, and strings, are in the default one.
pub fn data_family(data_type: DataType) -> Option<&'static str> {
    match data_type {
        DataType::String => None,
        DataType::Set => Some("member_cf"),
        DataType::Hash | DataType::List | DataType::Zset | DataType::Stream => Some("data_cf"),
    }
}

/// Value of a string, and when it is gone.
///
/// # Errors
///
/// [`Damage::Short`].
pub fn string(value: &[u8]) -> Result<(&[u8], Option<i64>), Damage> {
    let (value, expiry) = split_end::<4>("a string", value)?;
    Ok((value, seconds(i32::from_le_bytes(*expiry))))
}

/// Reads a meta value.
///
/// # Errors
///
/// [`Damage`].
pub fn meta(data_type: DataType, value: &[u8]) -> Result<Meta, Damage> {
    let mut fields = Fields::new("a meta value", value);
    let meta = Meta {
        data_type,
        version: 0,
        len: 0,
        expire_at_ms: None,
        indexes: None,
    };
    let version = |version: i32| u64::from(version.cast_unsigned());
    match data_type {
        DataType::List => {
            let len = fields.u64()?;
            Ok(Meta {
                len,
                version: version(fields.i32()?),
                expire_at_ms: seconds(fields.i32()?),
                indexes: Some((fields.u64()?, fields.u64()?)),
                ..meta
            })
        }
        DataType::Stream => {
            // Groups, entries ever added, first, last and largest deleted id.
            fields.skip::<60>()?;
            Ok(Meta {
                len: fields.count()?,
                version: version(fields.i32()?),
                ..meta
            })
        }
        DataType::String | DataType::Hash | DataType::Set | DataType::Zset => Ok(Meta {
            len: fields.count()?,
            version: version(fields.i32()?),
            expire_at_ms: seconds(fields.i32()?),
            ..meta
        }),
    }
}

/// What the keys of a collection's data begin with.
pub fn data_prefix(key: &[u8], version: u64) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(key.len() + 16);
    prefix.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    prefix.extend_from_slice(key);
    // Versions have 32 bits here.
    prefix.extend_from_slice(&version.to_le_bytes()[..4]);
    prefix
}

/// The order of list elements: key (its length does not count), version as a signed number, index. Keys that lack the latter
/// come first.
pub fn compare_list_keys(a: &[u8], b: &[u8]) -> Ordering {
    let ((a, a_rest), (b, b_rest)) = (split_key(a), split_key(b));
    a.cmp(b).then_with(|| {
        let version = |rest: &[u8]| rest.first_chunk().map(|bytes| i32::from_le_bytes(*bytes));
        let index = |rest: &[u8]| {
            rest.get(4..)?
                .first_chunk()
                .map(|bytes| u64::from_le_bytes(*bytes))
        };
        let by_version = version(a_rest).cmp(&version(b_rest));
        by_version.then_with(|| index(a_rest).cmp(&index(b_rest)))
    })
}

/// The key without its length, and what follows.
fn split_key(bytes: &[u8]) -> (&[u8], &[u8]) {
    let len = bytes.first_chunk().map_or(0, |len| u32::from_le_bytes(*len));
    let end = usize::try_from(len).unwrap_or(usize::MAX).saturating_add(4);
    let (key, rest) = bytes.split_at(end.min(bytes.len()));
    (key.get(4..).unwrap_or_default(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of the reference, byte for byte.
    #[test]
    fn known_keys_and_values() {
        let mut key = data_prefix(b"list1", 1_700_000_001);
        key.extend_from_slice(&(i64::MAX.cast_unsigned()).to_le_bytes());
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "050000006c6973743101f15365ffffffffffffff7f");
        let hash = [2, 0, 0, 0, 0x01, 0xf1, 0x53, 0x65, 0, 0, 0, 0];
        let meta = meta(DataType::Hash, &hash).unwrap();
        assert_eq!(
            (meta.len, meta.version, meta.expire_at_ms),
            (2, 1_700_000_001, None)
        );
        assert_eq!(
            super::meta(DataType::Hash, &hash[..11]),
            Err(Damage::Short {
                what: "a meta value",
                len: 11,
                least: 12
            })
        );
    }

    #[test]
    fn list_elements_are_in_order_of_their_index() {
        let key = |name: &[u8], version: u64, index: u64| {
            let mut key = data_prefix(name, version);
            key.extend_from_slice(&index.to_le_bytes());
            key
        };
        let sorted = [
            data_prefix(b"a", 7),
            key(b"a", 7, 2),
            key(b"a", 7, 256),
            key(b"a", 8, 1),
            // As in the recorded dumps, where a longer key is before a shorter one.
            key(b"ab", 1, 1),
            key(b"b", 1, 1),
        ];
        for pair in sorted.windows(2) {
            assert_eq!(compare_list_keys(&pair[0], &pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare_list_keys(&pair[1], &pair[0]), Ordering::Greater);
        }
        assert_eq!(compare_list_keys(&sorted[0], &sorted[0]), Ordering::Equal);
    }
}
