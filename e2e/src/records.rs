//! Record batches (format v2) by hand, uncompressed: well-formed ones, and ones that lie.

use anyhow::{Context, Result, ensure};

use crate::wire::{Connection, Reader, Writer};

/// Where each field that the suites forge lies in a batch.
pub mod at {
    #![allow(missing_docs, reason = "the names are Kafka's")]
    pub const BASE_OFFSET: usize = 0;
    pub const BATCH_LENGTH: usize = 8;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const PRODUCER_ID: usize = 43;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORDS_COUNT: usize = 57;
    pub const RECORDS: usize = 61;
}

/// A batch of plain values with `timestamp` (milliseconds since the epoch) and no producer id.
pub fn batch(values: &[&[u8]], timestamp: i64) -> Result<Vec<u8>> {
    let count = i32::try_from(values.len())?;
    let mut records = Writer::default();
    for (delta, value) in values.iter().enumerate() {
        let mut record = Writer::default();
        record.i8(0).varint(0).varint(i64::try_from(delta)?).varint(-1);
        record.varint(i64::try_from(value.len())?).raw(value).varint(0);
        records.varint(i64::try_from(record.0.len())?).raw(&record.0);
    }
    let mut w = Writer::default();
    w.i64(0)
        .i32(i32::try_from(records.0.len() + at::RECORDS - 12)?)
        .i32(-1)
        .i8(2)
        .i32(0);
    w.i16(0)
        .i32(count - 1)
        .i64(timestamp)
        .i64(timestamp)
        .i64(-1)
        .i16(-1)
        .i32(-1)
        .i32(count);
    w.raw(&records.0);
    reseal(&mut w.0);
    Ok(w.0)
}

/// Overwrites the bytes at `position` and repairs the checksum, so that only the lie itself can be refused.
pub fn forge(mut batch: Vec<u8>, position: usize, bytes: &[u8]) -> Vec<u8> {
    batch[position..position + bytes.len()].copy_from_slice(bytes);
    reseal(&mut batch);
    batch
}

/// Recomputes the CRC-32C.
fn reseal(batch: &mut [u8]) {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch[at::ATTRIBUTES..]);
    // The algorithm yields 32 bits in a u64: the last four bytes are all of it.
    batch[at::CRC..at::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes()[4..]);
}

/// Everything a partition holds, offset and value, in order.
///
/// # Errors
/// Also when the broker serves a damaged batch, or answers with an error before the high watermark.
pub fn read_all(connection: &mut Connection, topic: &str, partition: i32) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut all: Vec<(i64, Vec<u8>)> = Vec::new();
    loop {
        let next = all.last().map_or(0, |(offset, _)| offset + 1);
        let (error, high_watermark, batches) = connection.fetch(topic, partition, next, 4 << 20)?;
        ensure!(
            error == 0,
            "fetch of {topic}-{partition} at {next}: error {error}"
        );
        let more = values(&batches)?;
        if more.is_empty() {
            ensure!(
                next == high_watermark,
                "no records at {next}, below the end {high_watermark}"
            );
            return Ok(all);
        }
        // A fetch may begin inside a batch: the records before it were asked for earlier.
        all.extend(more.into_iter().filter(|(offset, _)| *offset >= next));
    }
}

/// The compression codec of each whole batch in what was fetched.
pub fn codecs(fetched: &[u8]) -> Result<Vec<u8>> {
    let all = batches(fetched)?.into_iter();
    Ok(all.map(|batch| batch[at::ATTRIBUTES + 1] & 7).collect())
}

/// The whole batches in what was fetched.
pub fn batches(fetched: &[u8]) -> Result<Vec<&[u8]>> {
    let mut found = Vec::new();
    let mut rest = fetched;
    while let Some((batch, next)) = split_batch(rest)? {
        found.push(batch);
        rest = next;
    }
    Ok(found)
}

/// The first batch and what follows it; `None` when no whole batch is left.
fn split_batch(fetched: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
    if fetched.len() < at::RECORDS {
        return Ok(None);
    }
    let length = Reader(&fetched[at::BATCH_LENGTH..]).i32()?;
    let total = usize::try_from(length).context("negative batch length")? + 12;
    ensure!(
        total >= at::RECORDS,
        "a batch of {total} bytes is shorter than its header"
    );
    Ok(fetched.split_at_checked(total))
}

/// Offset and value of each record in fetched, uncompressed batches; an incomplete last batch is left out.
pub fn values(fetched: &[u8]) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut found = Vec::new();
    for batch in batches(fetched)? {
        let base = Reader(batch).i64()?;
        ensure!(
            batch[at::ATTRIBUTES + 1] & 7 == 0,
            "a compressed batch where none was produced"
        );
        let stored = Reader(&batch[at::CRC..]).i32()?;
        let mut copy = batch.to_vec();
        reseal(&mut copy);
        ensure!(
            stored == Reader(&copy[at::CRC..]).i32()?,
            "the batch at {base} fails its checksum"
        );
        let count = Reader(&batch[at::RECORDS_COUNT..]).i32()?;
        let mut records = Reader(&batch[at::RECORDS..]);
        for _ in 0..count {
            let record_len = usize::try_from(records.varint()?)?;
            let mut record = Reader(records.some(record_len)?);
            record.i8()?;
            record.varint()?;
            let offset = base + record.varint()?;
            let key_len = record.varint()?;
            record.some(usize::try_from(key_len).unwrap_or(0))?;
            let value_len = record.varint()?;
            found.push((
                offset,
                record.some(usize::try_from(value_len).unwrap_or(0))?.to_vec(),
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_with_their_offsets() {
        let two = batch(&[b"one", b""], 1).unwrap();
        let later = forge_base_offset(batch(&[b"three"], 2).unwrap(), 2);
        let cut = &later[..later.len() - 1];
        let fetched = [&two[..], &later, cut].concat();
        let expected = vec![(0, b"one".to_vec()), (1, vec![]), (2, b"three".to_vec())];
        assert_eq!(values(&fetched).unwrap(), expected);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut flipped = batch(&[b"one"], 1).unwrap();
        flipped[64] ^= 1;
        assert!(values(&flipped).is_err());
    }

    fn forge_base_offset(mut batch: Vec<u8>, base: i64) -> Vec<u8> {
        batch[..8].copy_from_slice(&base.to_be_bytes());
        batch
    }
}
