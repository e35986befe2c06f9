//! The partitions of a fetch, in the order in which they are served.

use std::collections::BTreeMap;
use std::sync::Weak;

use takhin_cluster::Partition;
use takhin_protocol::messages::TopicName;
use uuid::Uuid;

/// A topic as the client names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TopicRef {
    /// Versions up to 12.
    Name(TopicName),
    /// Version 13 and later.
    Id(Uuid),
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) topic: TopicRef,
    pub(crate) partition: i32,
}

/// What the client wants of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// First offset, inclusive.
    pub(crate) fetch_offset: i64,
    pub(crate) max_bytes: i32,
    /// -1: not to be checked.
    pub(crate) current_leader_epoch: i32,
    /// -1: not to be checked.
    pub(crate) last_fetched_epoch: i32,
}

/// What the client was told of a partition; an incremental answer repeats none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
}

/// One partition of a fetch.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) wanted: Wanted,
    pub(crate) told: Option<Told>,
    /// The replica found last, and the image it was found by: look-ups repeat only when the image changed. Weak, so
    /// that an idle session does not keep a deleted partition.
    pub(crate) replica: Option<(i64, Weak<Partition>)>,
}

/// Partitions by order, findable by key.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    order: BTreeMap<u64, Entry>,
    places: BTreeMap<Key, u64>,
    next_place: u64,
}

impl Entries {
    /// The partitions of a full fetch. A partition named twice is asked for as the last mention says.
    pub(super) fn from_request(topics: Vec<(Key, Wanted)>) -> Self {
        let mut entries = Self::default();
        entries.update(topics, &[]);
        entries
    }

    /// Applies an incremental request: changed ones keep their place, new ones come last.
    pub(super) fn update(&mut self, topics: Vec<(Key, Wanted)>, forgotten: &[Key]) {
        for (key, wanted) in topics {
            match self.places.get(&key).and_then(|place| self.order.get_mut(place)) {
                Some(entry) => entry.wanted = wanted,
                None => {
                    let place = self.take_place();
                    self.places.insert(key.clone(), place);
                    self.order.insert(
                        place,
                        Entry {
                            key,
                            wanted,
                            told: None,
                            replica: None,
                        },
                    );
                }
            }
        }
        for key in forgotten {
            if let Some(place) = self.places.remove(key) {
                self.order.remove(&place);
            }
        }
    }

    /// Moves a partition behind all others: it was served, and now it is the others' turn.
    pub(crate) fn move_to_end(&mut self, key: &Key) {
        let Some(place) = self.places.get(key).copied() else {
            return;
        };
        let Some(entry) = self.order.remove(&place) else {
            return;
        };
        let place = self.take_place();
        self.order.insert(place, entry);
        self.places.insert(key.clone(), place);
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.order.values_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn take_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }
}
