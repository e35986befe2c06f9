//! Records as values of their own.

use std::borrow::Cow;

use bytes::Bytes;
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
pub struct Packed(BatchBuilder);

impl Default for Packed {
    fn default() -> Self {
        Self(BatchBuilder::new(Compression::None))
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
        self.0.push(record);
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The batch, without a producer id. A large one is made on another thread, so that the caller's goes on meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Safe; what is made then is dropped.
    pub(crate) async fn build(self, codec: Compression, tasks: &Tasks) -> Result<Batch, BuildError> {
        let builder = self.0.codec(codec);
        match builder.uncompressed_len() {
            ..ELSEWHERE => builder.build(),
            _ => tasks.blocking(move || builder.build()).await,
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
