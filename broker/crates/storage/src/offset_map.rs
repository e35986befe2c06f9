//! The newest offset of each key, in a fixed number of bytes.
//!
//! Keys are represented by a 128-bit hash under a seed that changes with every map: two keys that collide, by chance or
//! by somebody's design, would make compaction remove a record that is the last of its key.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

/// Words of a slot: two of hash, and the offset plus one, where 0 is an empty slot.
const WORDS: usize = 3;

/// Bytes of a slot.
const SLOT: usize = WORDS * 8;

/// A key's hash.
type Hash = (u64, u64);

/// Offsets by key; open addressing, at most nine tenths full.
pub(crate) struct OffsetMap {
    seed: u128,
    words: Vec<u64>,
    slots: usize,
    len: usize,
}

impl std::fmt::Debug for OffsetMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OffsetMap")
            .field("slots", &self.slots)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl OffsetMap {
    /// A map in at most `bytes` bytes, but with room for one key. Zeroed memory costs nothing until it is touched.
    pub(crate) fn new(bytes: usize, seed: u128) -> Self {
        let slots = (bytes / SLOT).max(2);
        Self {
            seed,
            words: vec![0; slots * WORDS],
            slots,
            len: 0,
        }
    }

    /// Takes note of a record; `false`, and nothing, if its key is new and the map is full.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        if self.words[at + 2] == 0 {
            if self.len >= (self.slots * 9 / 10).max(1) {
                return false;
            }
            self.len += 1;
            (self.words[at], self.words[at + 1]) = hash;
        }
        self.words[at + 2] = offset.cast_unsigned().wrapping_add(1).max(self.words[at + 2]);
        true
    }

    /// The newest offset of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let at = self.find(self.hash(key));
        let found = self.words[at + 2];
        (found != 0).then(|| found.wrapping_sub(1).cast_signed())
    }

    /// Where the slot begins that holds `hash`, or the empty one where it belongs. There always is one.
    fn find(&self, hash: Hash) -> usize {
        let mut slot = usize::try_from(hash.0 % self.slots as u64).unwrap_or(0);
        loop {
            let at = slot * WORDS;
            let empty = self.words[at + 2] == 0;
            if empty || (self.words[at], self.words[at + 1]) == hash {
                return at;
            }
            slot = (slot + 1) % self.slots;
        }
    }

    fn hash(&self, key: &[u8]) -> Hash {
        let half = |prefix: u128| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u128(prefix);
            hasher.write(key);
            hasher.finish()
        };
        (half(self.seed), half(!self.seed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_a_map_until_it_is_full() {
        let mut map = OffsetMap::new(100 * SLOT, 42);
        let mut model = BTreeMap::new();
        for offset in 0..1000_i64 {
            let key = (offset * 7919 % 89).to_be_bytes();
            assert!(map.put(&key, offset));
            model.insert(key, offset);
        }
        for (key, offset) in &model {
            assert_eq!(map.get(key), Some(*offset));
        }
        assert_eq!((map.len, map.get(b"unknown")), (model.len(), None));
        assert!(map.put(b"the ninetieth", 1));
        assert!(!map.put(b"one more", 2), "nine tenths are used");
        assert!(map.put(b"the ninetieth", 3), "a known key always fits");
        assert_eq!((map.get(b"the ninetieth"), map.get(b"one more")), (Some(3), None));
    }

    #[test]
    fn the_smallest_map_holds_one_key() {
        let mut map = OffsetMap::new(0, 1);
        assert!(map.put(b"a", 0));
        assert!(!map.put(b"b", 1));
        assert_eq!((map.get(b"a"), map.get(b"b")), (Some(0), None));
    }
}
