//! Batches for tests.

use bytes::Bytes;
use takhin_protocol::record::{Attributes, Batch, BatchHeader, HEADER_LEN, NO_PRODUCER};

/// A data batch of `records` records whose body is filler; its checksum is right, its records cannot be decoded.
pub(crate) fn data_batch(base_offset: i64, epoch: i32, records: i32, timestamp: i64) -> Batch {
    let filler = usize::try_from(records).unwrap() * 20;
    let body = Bytes::from(base_offset.to_be_bytes().repeat(filler / 8 + 1));
    batch_with_body(base_offset, epoch, records, timestamp, body)
}

pub(crate) fn batch_with_body(
    base_offset: i64,
    epoch: i32,
    records: i32,
    timestamp: i64,
    body: Bytes,
) -> Batch {
    let header = BatchHeader {
        base_offset,
        batch_length: i32::try_from(HEADER_LEN - 12 + body.len()).unwrap(),
        partition_leader_epoch: epoch,
        magic: 2,
        crc: 0,
        attributes: Attributes(0),
        last_offset_delta: records - 1,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id: NO_PRODUCER,
        producer_epoch: -1,
        base_sequence: -1,
        records_count: records,
    };
    sealed(Batch { header, body })
}

/// A hidden entry.
pub(crate) fn hidden_batch(base_offset: i64, epoch: i32, body: &[u8]) -> Batch {
    Batch::hidden(base_offset, epoch, 0, Bytes::copy_from_slice(body))
}

/// The batch with its checksum computed.
pub(crate) fn sealed(mut batch: Batch) -> Batch {
    batch.header.crc = batch.compute_crc();
    batch
}
