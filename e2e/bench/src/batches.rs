//! The batches that a run sends: one body, and a header for each number of records up to a maximum.
//!
//! Batches of one record size differ only in how far into the same records they reach, so the bytes are shared and
//! only the 61 bytes of the header, CRC included, are kept per length.

use anyhow::{Result, ensure};
use bytes::Bytes;
use takhin_protocol::record::{Batch, BatchBuilder, BatchHeader, Compression, HEADER_LEN, NewRecord};

use crate::wire::{self, Outgoing};

/// Kafka's limit on a batch, `max.message.bytes`.
const MAX_BATCH: usize = 1_048_588;

/// Batches of 1 to `max()` records of one size.
#[derive(Debug)]
pub(crate) struct Batches {
    value_len: usize,
    headers: Vec<[u8; HEADER_LEN]>,
    ends: Vec<usize>,
    body: Bytes,
}

impl Batches {
    /// Batches whose values have `value_len` bytes, with as many records as fit both `max_records` and a batch.
    /// All carry the timestamp `now_ms`.
    pub(crate) fn new(value_len: usize, max_records: usize, now_ms: i64) -> Result<Self> {
        // A record's own fields and its length take at most 20 bytes.
        let count = max_records
            .min((MAX_BATCH - HEADER_LEN) / (value_len + 20))
            .max(1);
        let mut builder = BatchBuilder::new(Compression::None);
        let mut value = vec![0; value_len];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut ends = Vec::with_capacity(count);
        for _ in 0..count {
            fill(&mut value, &mut state);
            builder.push(NewRecord {
                timestamp: now_ms,
                value: Some(&value),
                ..NewRecord::default()
            });
            ends.push(builder.uncompressed_len());
        }
        let whole = builder.build()?;
        ensure!(
            whole.header.total_len() <= MAX_BATCH,
            "records of {value_len} bytes are too large"
        );
        let headers = (1..)
            .zip(&ends)
            .map(|(count, end)| Ok(prefix(&whole, count, *end)?.encode()));
        Ok(Self {
            value_len,
            headers: headers.collect::<Result<_>>()?,
            ends,
            body: whole.body,
        })
    }

    /// Most records in a batch.
    pub(crate) fn max(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of a record's value, which is what throughput counts.
    pub(crate) fn value_len(&self) -> usize {
        self.value_len
    }

    /// A Produce request for a batch of `records` records, 1 to `max()`.
    pub(crate) fn request(&self, topic: &str, partition: i32, records: usize) -> Result<Outgoing> {
        let end = self.ends[records - 1];
        let mut head = wire::produce_head(topic, partition, HEADER_LEN + end)?;
        head.extend_from_slice(&self.headers[records - 1]);
        Ok(Outgoing {
            head,
            body: self.body.slice(..end),
        })
    }
}

/// The header of a batch that holds the first `count` records of `whole`, which end at `end`.
fn prefix(whole: &Batch, count: i32, end: usize) -> Result<BatchHeader> {
    let header = BatchHeader {
        batch_length: i32::try_from(HEADER_LEN + end - 12)?,
        last_offset_delta: count - 1,
        records_count: count,
        ..whole.header
    };
    let part = Batch {
        header,
        body: whole.body.slice(..end),
    };
    Ok(BatchHeader {
        crc: part.compute_crc(),
        ..part.header
    })
}

/// Bytes that do not compress (xorshift64*), so that no layer below gets an easy time.
fn fill(value: &mut [u8], state: &mut u64) {
    for chunk in value.chunks_mut(8) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use takhin_protocol::record::{Limits, validate_produced};

    use super::*;

    #[test]
    fn every_length_is_a_batch_that_a_broker_accepts() {
        let batches = Batches::new(100, 50, 1_000).unwrap();
        assert_eq!(batches.max(), 50);
        for records in [1, 2, 49, 50] {
            let request = batches.request("load", 0, records).unwrap();
            let frame = [&request.head[..], &request.body, &wire::PRODUCE_TAIL].concat();
            let asked = wire::read_produce(&frame[4..]).unwrap();
            let batch =
                validate_produced(Some(Bytes::copy_from_slice(asked.batch)), &Limits::default()).unwrap();
            assert_eq!(usize::try_from(batch.header.records_count).unwrap(), records);
        }
        let large = Batches::new(1024, usize::MAX, 1_000).unwrap();
        assert!(large.max() > 1000 && large.ends[large.max() - 1] + HEADER_LEN <= MAX_BATCH);
    }
}
