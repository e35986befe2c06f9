//! What becomes of one batch (Kafka's `Cleaner.shouldRetainRecord` and `MemoryRecords.filterTo`).

use std::collections::BTreeSet;

use takhin_protocol::record::{
    Attributes, Batch, BatchHeader, Compression, CompressionError, HEADER_LEN, Record, Records, RewriteError,
    decompress,
};

use crate::offset_map::OffsetMap;
use crate::producers::ProducerTable;

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Stays byte for byte.
    Copy,
    /// Goes.
    Drop,
    /// Another takes its place.
    Replace(Batch),
}

/// Why a batch could not be judged.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("unknown codec")]
    Codec,
    #[error(transparent)]
    Compression(#[from] CompressionError),
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    #[error(transparent)]
    Records(#[from] takhin_protocol::record::RecordError),
}

/// A batch's records as they can be read.
enum Body<'a> {
    Plain(&'a [u8]),
    Inflated(Vec<u8>),
    /// They take more than the limit.
    TooLarge,
}

/// The keys of the dirty part, and what else decides.
pub(super) struct Filter {
    pub(super) map: OffsetMap,
    /// Offset up to which the map knows all keys, exclusive.
    pub(super) mapped_to: i64,
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
    pub(super) max_inflated: usize,
    /// Producer and last offset of the batches that hold the last sequence of a live producer.
    pub(super) last_batches: BTreeSet<(i64, i64)>,
    /// Whether a batch was passed that could not be looked into: it may hold older values of any key, which a removed
    /// tombstone would bring back.
    pub(super) passed_unread: bool,
    pub(super) records: u64,
    pub(super) records_kept: u64,
    pub(super) batches_unread: u64,
}

/// The batches whose headers must stay, so that the last sequence of each live producer is not lost (KIP-98): the last
/// one, and the last one below `end`, which is the last if a truncation removes what is above.
pub(super) fn last_batches(producers: &ProducerTable, end: i64) -> BTreeSet<(i64, i64)> {
    let mut last = BTreeSet::new();
    for (id, producer) in producers.iter() {
        let below = producer.batches.iter().rev().find(|b| b.last_offset < end);
        let both = producer.batches.back().into_iter().chain(below);
        last.extend(both.map(|batch| (id, batch.last_offset)));
    }
    last
}

impl Filter {
    /// Adds the keys of a batch from `first_dirty` on to the map; `false` once it is full.
    pub(super) fn map_batch(
        &mut self,
        header: &BatchHeader,
        bytes: &[u8],
        first_dirty: i64,
    ) -> Result<bool, FilterError> {
        if header.is_hidden() || header.attributes.has(Attributes::CONTROL) {
            return Ok(true);
        }
        let body = self.body(header, bytes)?;
        let Some(records) = body.bytes() else {
            return Ok(true);
        };
        for record in Records::new(records, header.records_count) {
            let record = record?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            let Some(key) = record.key.filter(|_| offset >= first_dirty) else {
                continue;
            };
            if !self.map.put(key, offset) {
                self.mapped_to = offset;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What becomes of a batch. To be asked in the order of the log.
    pub(super) fn judge(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<Verdict, FilterError> {
        if header.is_hidden() {
            // Purged entries are the state machine's, which needs those of the replication layer no more.
            return Ok(Verdict::Drop);
        }
        if header.attributes.has(Attributes::CONTROL) || header.base_offset >= self.mapped_to {
            // A marker of a transaction may go only when nothing of that transaction is left.
            return Ok(self.copy(header));
        }
        if header.records_count == 0 {
            return Ok(match self.is_last_of_producer(header) {
                true => Verdict::Copy,
                false => Verdict::Drop,
            });
        }
        let body = self.body(header, bytes)?;
        let Some(records) = body.bytes() else {
            return Ok(self.pass_unread(header));
        };
        let (mut all, mut some, mut tombstones) = (true, false, false);
        for record in Records::new(records, header.records_count) {
            let record = record?;
            self.records += 1;
            if self.retains(header, &record) {
                self.records_kept += 1;
                some = true;
                tombstones |= record.value.is_none();
            } else {
                all = false;
            }
        }
        let has_horizon = header.attributes.has(Attributes::DELETE_HORIZON);
        // Only a pass that knew all later records of the batch's keys has made its tombstones removable.
        let sets_horizon = tombstones && !has_horizon && header.next_offset() <= self.mapped_to;
        if all && !sets_horizon {
            return Ok(Verdict::Copy);
        }
        if !some {
            return Ok(match self.is_last_of_producer(header) {
                true => Verdict::Replace(Batch::emptied(header)),
                false => Verdict::Drop,
            });
        }
        let horizon = match (has_horizon, sets_horizon) {
            (true, _) => Some(header.base_timestamp),
            (false, true) => Some(self.now_ms.saturating_add(self.delete_retention_ms)),
            (false, false) => None,
        };
        let codec = Compression::from_id(header.attributes.compression()).ok_or(FilterError::Codec)?;
        let keep = |record: &Record<'_>| self.retains(header, record);
        let replaced = Batch::retain_records(header, records, codec, horizon, keep)?;
        Ok(replaced.map_or(Verdict::Drop, Verdict::Replace))
    }

    /// A batch that is too large to be looked into stays.
    pub(super) fn pass_unread(&mut self, header: &BatchHeader) -> Verdict {
        self.passed_unread = true;
        self.batches_unread += 1;
        self.copy(header)
    }

    fn copy(&mut self, header: &BatchHeader) -> Verdict {
        let count = u64::from(header.records_count.max(0).unsigned_abs());
        self.records += count;
        self.records_kept += count;
        Verdict::Copy
    }

    fn retains(&self, header: &BatchHeader, record: &Record<'_>) -> bool {
        let offset = header.base_offset + i64::from(record.offset_delta);
        if offset >= self.mapped_to {
            return true;
        }
        // From before the topic was compacted; Kafka removes such records too.
        let Some(key) = record.key else { return false };
        let is_last = self.map.get(key).is_none_or(|newest| offset >= newest);
        is_last && (record.value.is_some() || self.passed_unread || !self.is_past_horizon(header))
    }

    fn is_past_horizon(&self, header: &BatchHeader) -> bool {
        header.attributes.has(Attributes::DELETE_HORIZON) && self.now_ms >= header.base_timestamp
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        self.last_batches
            .contains(&(header.producer_id, header.next_offset() - 1))
    }

    fn body<'a>(&self, header: &BatchHeader, bytes: &'a [u8]) -> Result<Body<'a>, FilterError> {
        let body = bytes.get(HEADER_LEN..).unwrap_or_default();
        let codec = Compression::from_id(header.attributes.compression()).ok_or(FilterError::Codec)?;
        match codec {
            Compression::None => Ok(Body::Plain(body)),
            codec => match decompress(codec, body, self.max_inflated) {
                Ok(records) => Ok(Body::Inflated(records)),
                Err(CompressionError::Budget { .. }) => Ok(Body::TooLarge),
                Err(error) => Err(error.into()),
            },
        }
    }
}

impl Body<'_> {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Body::Plain(bytes) => Some(bytes),
            Body::Inflated(bytes) => Some(bytes),
            Body::TooLarge => None,
        }
    }
}
