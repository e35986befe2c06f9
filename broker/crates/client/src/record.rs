//! Records as values of their own.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use takhin_protocol::record::{
    Attributes, Batch, BatchBuilder, BatchHeader, BuildError, Compression, HEADER_LEN, NewRecord, Records,
    decompress,
};
use takhin_runtime::Tasks;

use crate::error::Damage;

/// Bytes from which on a batch is compressed on another thread: less takes no longer than to wake one and be woken.
const ELSEWHERE: usize = 64 << 10;

/// Most bytes that a fetched batch may have when decompressed.
const MAX_DECOMPRESSED: usize = 128 << 20;

/// A record, to be produced or as consumed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Milliseconds since 1970; `None` when producing is the time of sending.
    pub timestamp: Option<i64>,
    /// The key; `None` is null.
    pub key: Option<Bytes>,
    /// The value; `None` is null, a tombstone.
    pub value: Option<Bytes>,
    /// Keys and values of the headers. A key that is not UTF-8 was changed to be.
    pub headers: Vec<(Cow<'static, str>, Option<Bytes>)>,
}

impl Record {
    /// A record with nothing but a value.
    pub fn of(value: impl Into<Bytes>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }
}

/// A consumed record and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// The topic.
    pub topic: String,
    /// Index of the partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The leader epoch in which it was appended.
    pub leader_epoch: i32,
    /// The record.
    pub record: Record,
}

/// Records as a batch has them, one behind the other: they need no memory of their own until they are sent.
#[derive(Debug, Clone)]
pub struct Packed {
    builder: BatchBuilder,
    /// Where their memory goes to.
    spare: Option<Spare>,
}

/// Batches whose memory is kept, and how much of one at most.
const SPARE: (usize, usize) = (8, 2 << 20);

/// Memory of batches that were compressed, for those that are to come: the system clears each page that it gives. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// Records of a batch, in memory of one before where there is some.
    pub fn packed(&self) -> Packed {
        let memory = self.0.lock().pop().unwrap_or_default();
        Packed {
            builder: BatchBuilder::new(Compression::None).memory(memory),
            spare: Some(self.clone()),
        }
    }

    fn keep(&self, memory: Vec<u8>) {
        let mut kept = self.0.lock();
        if (1..=SPARE.1).contains(&memory.capacity()) && kept.len() < SPARE.0 {
            kept.push(memory);
        }
    }
}

impl Default for Packed {
    fn default() -> Self {
        Self {
            builder: BatchBuilder::new(Compression::None),
            spare: None,
        }
    }
}

impl Packed {
    /// These records; `now_ms` is the time of those that have none.
    pub fn of(records: &[Record], now_ms: i64) -> Self {
        let mut packed = Self::default();
        let mut headers = Vec::new();
        for record in records {
            headers.clear();
            let of_record = record.headers.iter();
            headers.extend(of_record.map(|(key, value)| (&**key, value.as_deref())));
            packed.push(NewRecord {
                timestamp: record.timestamp.unwrap_or(now_ms),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            });
        }
        packed
    }

    /// Appends a record.
    pub fn push(&mut self, record: NewRecord<'_>) {
        self.builder.push(record);
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.builder.len()
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// The batch, without a producer id. A large one is made on another thread, so that the caller's goes on meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Safe; what is made then is dropped.
    pub(crate) async fn build(self, codec: Compression, tasks: &Tasks) -> Result<Batch, BuildError> {
        let (builder, spare) = (self.builder.codec(codec), self.spare);
        let is_small = builder.uncompressed_len() < ELSEWHERE;
        let make = move || {
            let (batch, memory) = builder.build_with_memory()?;
            if let Some(spare) = spare {
                spare.keep(memory);
            }
            Ok(batch)
        };
        match is_small {
            true => make(),
            false => tasks.blocking(make).await,
        }
    }
}

/// Reads the records of a batch whose CRC was checked: offset and record, from `from` on. Control batches have none.
pub(crate) fn of_batch(header: &BatchHeader, batch: &Bytes, from: i64) -> Result<Vec<(i64, Record)>, Damage> {
    if header.attributes.has(Attributes::CONTROL) {
        return Ok(Vec::new());
    }
    let body = batch.slice(HEADER_LEN..);
    let id = header.attributes.compression();
    let body = match Compression::from_id(id).ok_or(Damage::Codec(id))? {
        Compression::None => body,
        codec => Bytes::from(decompress(codec, &body, MAX_DECOMPRESSED)?),
    };
    let mut records = Vec::new();
    for record in Records::new(&body, header.records_count) {
        let record = record?;
        let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
        if offset < from {
            continue;
        }
        let timestamp = if header.attributes.has(Attributes::LOG_APPEND_TIME) {
            header.max_timestamp
        } else {
            header.base_timestamp.wrapping_add(record.timestamp_delta)
        };
        let own = |bytes: Option<&[u8]>| bytes.map(|bytes| body.slice_ref(bytes));
        let headers = record
            .headers
            .map(|h| (String::from_utf8_lossy(h.key).into_owned().into(), own(h.value)));
        records.push((
            offset,
            Record {
                timestamp: Some(timestamp),
                key: own(record.key),
                value: own(record.value),
                headers: headers.collect(),
            },
        ));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_of_a_batch_is_that_of_the_next_one() {
        let spare = Spare::default();
        for round in 0..3 {
            let value = vec![round; 100_000];
            let mut packed = spare.packed();
            packed.push(NewRecord {
                value: Some(&value),
                ..NewRecord::default()
            });
            assert!(spare.0.lock().is_empty());
            let batch = packed.build(Compression::Lz4, &Tasks::real()).await.unwrap();
            let read = of_batch(&batch.header, &batch.to_bytes(), 0).unwrap();
            assert_eq!(read[0].1.value.as_deref(), Some(&*value));
            assert_eq!(spare.0.lock().len(), 1);
        }
        spare.keep(Vec::with_capacity(SPARE.1 + 1));
        spare.keep(Vec::new());
        assert_eq!(spare.0.lock().len(), 1);
        (0..20).for_each(|_| spare.keep(Vec::with_capacity(1000)));
        assert_eq!(spare.0.lock().len(), SPARE.0);
    }

    #[tokio::test]
    async fn records_survive_every_codec() {
        let sent = [
            Record {
                timestamp: Some(7),
                key: Some(Bytes::from_static(b"k")),
                value: None,
                headers: vec![("h".into(), Some(Bytes::from_static(b"x"))), ("n".into(), None)],
            },
            Record::of(vec![7; ELSEWHERE]),
        ];
        for id in 0..5 {
            let codec = Compression::from_id(id).unwrap();
            let packed = Packed::of(&sent, 9);
            let batch = packed.build(codec, &Tasks::real()).await.unwrap();
            let header = BatchHeader {
                base_offset: 40,
                ..batch.header
            };
            let read = of_batch(&header, &batch.to_bytes(), 40).unwrap();
            assert_eq!(read[0], (40, sent[0].clone()));
            assert_eq!(
                read[1],
                (
                    41,
                    Record {
                        timestamp: Some(9),
                        ..sent[1].clone()
                    }
                )
            );
            // A fetch from the middle of a batch brings all of it.
            assert_eq!(of_batch(&header, &batch.to_bytes(), 41).unwrap().len(), 1);
        }
    }
}
