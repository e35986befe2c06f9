//! Keys of records, and the partition that a key belongs to.

use takhin_config::cdc::PartitionBy;

use super::Event;

/// Appends the record's key: `db:key`, or `db:type:key`; the database alone where there is no key.
pub fn put_record_key(event: &Event, by: PartitionBy, out: &mut Vec<u8>) {
    out.extend_from_slice(event.db.as_bytes());
    if let Some(key) = &event.key {
        if by == PartitionBy::TypeAndKey {
            out.push(b':');
            let data_type = event.data_type.map_or("none", |data_type| data_type.name());
            out.extend_from_slice(data_type.as_bytes());
        }
        out.push(b':');
        out.extend_from_slice(key);
    }
}

/// The partition that Kafka's own producers choose for a key, so that consumers may rely on it.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let hash = murmur2(key) & 0x7fff_ffff;
    (hash % partitions.max(1).unsigned_abs()).cast_signed()
}

/// MurmurHash2, 32 bits, with the seed of Kafka's producers.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Kafka's lengths have 32 bits.
    #[allow(clippy::cast_possible_truncation, reason = "keys are shorter than 4 GiB")]
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own test of its hash (`UtilsTest.testMurmur2`).
    #[test]
    fn keys_hash_as_kafkas_producers_do() {
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
        }
        assert!((0..7).contains(&partition_of(b"21", 7)));
    }
}
