//! What is known of idempotent and transactional producers at the log's end (KIP-98).

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut};
use takhin_protocol::record::{Attributes, BatchHeader, NO_PRODUCER};

use crate::format::len_u32;

/// Batches remembered for each producer; a client has at most five in flight.
pub const BATCHES_PER_PRODUCER: usize = 5;

/// One batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Sequence number of the first record.
    pub first_sequence: i32,
    /// Sequence number of the last record; wraps from `i32::MAX` to 0.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record, inclusive.
    pub last_offset: i64,
    /// Largest timestamp, milliseconds.
    pub timestamp: i64,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Its newest epoch.
    pub epoch: i16,
    /// The last batches of that epoch, oldest first, at most [`BATCHES_PER_PRODUCER`].
    pub batches: VecDeque<ProducerBatch>,
    /// Largest timestamp of its newest batch or marker, milliseconds.
    pub last_timestamp: i64,
    /// First offset of its open transaction.
    pub transaction_start: Option<i64>,
}

/// All producers of a log by producer id, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerTable {
    producers: BTreeMap<i64, Producer>,
}

impl ProducerTable {
    /// The producer with this id.
    pub fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.producers.get(&producer_id)
    }

    /// All producers, ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter().map(|(id, p)| (*id, p))
    }

    /// Number of producers.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// First offset of the earliest open transaction; bounds the last stable offset.
    pub fn first_open_transaction(&self) -> Option<i64> {
        self.producers.values().filter_map(|p| p.transaction_start).min()
    }

    /// Takes note of an appended batch, as validated by the proposer.
    pub fn note(&mut self, header: &BatchHeader, max_producers: usize) {
        if header.is_hidden() || header.producer_id == NO_PRODUCER {
            return;
        }
        if !self.producers.contains_key(&header.producer_id) && self.producers.len() >= max_producers.max(1) {
            self.evict(max_producers);
        }
        let producer = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(|| Producer {
                epoch: header.producer_epoch,
                batches: VecDeque::new(),
                last_timestamp: header.max_timestamp,
                transaction_start: None,
            });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        producer.last_timestamp = header.max_timestamp;
        if header.attributes.has(Attributes::CONTROL) {
            producer.transaction_start = None;
            return;
        }
        if header.attributes.has(Attributes::TRANSACTIONAL) {
            producer.transaction_start.get_or_insert(header.base_offset);
        }
        if producer.batches.len() == BATCHES_PER_PRODUCER {
            producer.batches.pop_front();
        }
        producer.batches.push_back(ProducerBatch {
            first_sequence: header.base_sequence,
            last_sequence: last_sequence(header.base_sequence, header.last_offset_delta),
            base_offset: header.base_offset,
            last_offset: header.next_offset() - 1,
            timestamp: header.max_timestamp,
        });
    }

    /// Removes producers without an open transaction that were silent since before `oldest_ms`.
    pub fn expire(&mut self, oldest_ms: i64) {
        self.producers
            .retain(|_, p| p.transaction_start.is_some() || p.last_timestamp >= oldest_ms);
    }

    /// Makes room by forgetting the longest silent sixteenth, so that the cost is spread over many inserts.
    fn evict(&mut self, max_producers: usize) {
        let mut silent: Vec<(i64, i64)> = self
            .producers
            .iter()
            .filter(|(_, p)| p.transaction_start.is_none())
            .map(|(id, p)| (p.last_timestamp, *id))
            .collect();
        silent.sort_unstable();
        for (_, id) in silent.iter().take((max_producers / 16).max(1)) {
            self.producers.remove(id);
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(len_u32(self.producers.len()));
        for (id, p) in &self.producers {
            out.put_i64(*id);
            out.put_i16(p.epoch);
            out.put_i64(p.last_timestamp);
            out.put_i64(p.transaction_start.unwrap_or(-1));
            out.put_u8(u8::try_from(p.batches.len()).unwrap_or(u8::MAX));
            for b in &p.batches {
                out.put_i32(b.first_sequence);
                out.put_i32(b.last_sequence);
                out.put_i64(b.base_offset);
                out.put_i64(b.last_offset);
                out.put_i64(b.timestamp);
            }
        }
    }

    pub(crate) fn decode(b: &mut &[u8]) -> Option<Self> {
        let n = b.try_get_u32().ok()?;
        let mut producers = BTreeMap::new();
        for _ in 0..n {
            let id = b.try_get_i64().ok()?;
            let epoch = b.try_get_i16().ok()?;
            let last_timestamp = b.try_get_i64().ok()?;
            let transaction_start = Some(b.try_get_i64().ok()?).filter(|&o| o >= 0);
            let count = usize::from(b.try_get_u8().ok()?);
            if count > BATCHES_PER_PRODUCER {
                return None;
            }
            let mut batches = VecDeque::with_capacity(count);
            for _ in 0..count {
                batches.push_back(ProducerBatch {
                    first_sequence: b.try_get_i32().ok()?,
                    last_sequence: b.try_get_i32().ok()?,
                    base_offset: b.try_get_i64().ok()?,
                    last_offset: b.try_get_i64().ok()?,
                    timestamp: b.try_get_i64().ok()?,
                });
            }
            producers.insert(
                id,
                Producer {
                    epoch,
                    batches,
                    last_timestamp,
                    transaction_start,
                },
            );
        }
        Some(Self { producers })
    }
}

/// Sequence numbers wrap from `i32::MAX` to 0 (KIP-98).
fn last_sequence(first: i32, delta: i32) -> i32 {
    let last = i64::from(first) + i64::from(delta);
    let wrapped = if last > i64::from(i32::MAX) {
        last - i64::from(i32::MAX) - 1
    } else {
        last
    };
    i32::try_from(wrapped).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::data_batch;

    fn header(producer_id: i64, epoch: i16, sequence: i32, offset: i64) -> BatchHeader {
        let mut h = data_batch(offset, 1, 10, 1000 + offset).header;
        (h.producer_id, h.producer_epoch, h.base_sequence) = (producer_id, epoch, sequence);
        h
    }

    #[test]
    fn the_last_five_batches_of_the_newest_epoch_are_remembered() {
        let mut table = ProducerTable::default();
        for i in 0..7 {
            table.note(&header(7, 0, i * 10, i64::from(i) * 10), 100);
        }
        let batches: Vec<_> = table
            .get(7)
            .unwrap()
            .batches
            .iter()
            .map(|b| b.first_sequence)
            .collect();
        assert_eq!(batches, [20, 30, 40, 50, 60]);
        table.note(&header(7, 1, 0, 70), 100);
        assert_eq!(table.get(7).unwrap().batches.len(), 1, "a new epoch starts over");
        assert_eq!(last_sequence(i32::MAX - 1, 3), 1);
    }

    #[test]
    fn a_marker_ends_the_transaction() {
        let mut table = ProducerTable::default();
        let mut data = header(7, 0, 0, 50);
        data.attributes.0 |= Attributes::TRANSACTIONAL;
        table.note(&data, 100);
        table.note(
            &BatchHeader {
                base_offset: 60,
                base_sequence: 10,
                ..data
            },
            100,
        );
        assert_eq!(table.first_open_transaction(), Some(50));
        let mut marker = header(7, 0, -1, 70);
        marker.attributes.0 |= Attributes::TRANSACTIONAL | Attributes::CONTROL;
        table.note(&marker, 100);
        assert_eq!(table.first_open_transaction(), None);
        assert_eq!(table.get(7).unwrap().batches.len(), 2, "markers have no sequence");
    }

    #[test]
    fn the_table_is_bounded_and_expires() {
        let mut table = ProducerTable::default();
        for id in 0..100 {
            table.note(&header(id, 0, 0, id), 32);
        }
        assert!(table.len() <= 32);
        assert!(table.get(99).is_some());
        table.expire(1099);
        assert_eq!(table.iter().map(|(id, _)| id).collect::<Vec<_>>(), [99]);
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        assert_eq!(ProducerTable::decode(&mut &bytes[..]), Some(table));
        assert_eq!(ProducerTable::decode(&mut &bytes[..bytes.len() - 1]), None);
    }
}
