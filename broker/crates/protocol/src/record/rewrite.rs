//! Writes a batch again: with some of its records, as compaction does, or with another codec (`compression.type`).

use bytes::Bytes;

use super::batch::{Attributes, Batch, BatchHeader, HEADER_LEN};
use super::builder::BuildError;
use super::compression::{Compression, compress, compress_at, decompress};
use super::records::{Record, RecordError, Records};
use super::varint;

/// Why a batch could not be written again.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// A record cannot be read.
    #[error("records cannot be decoded")]
    Records(#[from] RecordError),
    /// The new batch cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl Batch {
    /// The batch with only those records for which `keep` holds, under their own offsets and timestamps; `None` if
    /// it holds for none.
    ///
    /// `records` is this batch's body, uncompressed; the new body is compressed with `codec`, which is the batch's
    /// own. Base offset, last offset delta, leader epoch, producer and sequence stay, so that offsets have holes and the
    /// producer's state is what it was. With `delete_horizon_ms` the batch gets that horizon: attribute bit 6 is set and
    /// the base timestamp is it, with timestamps relative to it (KIP-534).
    ///
    /// # Errors
    ///
    /// [`RewriteError`].
    pub fn retain_records(
        header: &BatchHeader,
        records: &[u8],
        codec: Compression,
        delete_horizon_ms: Option<i64>,
        mut keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<Option<Self>, RewriteError> {
        let base = delete_horizon_ms.unwrap_or(header.base_timestamp);
        let shift = header.base_timestamp.wrapping_sub(base);
        let (mut kept, mut largest) = (0, None);
        let mut out = Vec::new();
        let mut reader = Records::new(records, header.records_count);
        loop {
            let before = reader.rest();
            let Some(record) = reader.next().transpose()? else {
                break;
            };
            if !keep(&record) {
                continue;
            }
            kept += 1;
            let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
            largest = largest.max(Some(timestamp));
            let raw = &before[..before.len() - reader.rest().len()];
            if shift == 0 {
                out.extend_from_slice(raw);
            } else {
                put_shifted(&mut out, raw, record.timestamp_delta.wrapping_add(shift))?;
            }
        }
        let Some(largest) = largest else { return Ok(None) };
        let body = match codec {
            Compression::None => Bytes::from(out),
            codec => Bytes::from(compress(codec, &out).map_err(BuildError::from)?),
        };
        let len = HEADER_LEN + body.len();
        let mut new = *header;
        new.batch_length = i32::try_from(len - 12).map_err(|_| BuildError::TooLarge { len })?;
        new.records_count = kept;
        new.base_timestamp = base;
        if !header.attributes.has(Attributes::LOG_APPEND_TIME) {
            new.max_timestamp = largest;
        }
        if delete_horizon_ms.is_some() {
            new.attributes.0 |= Attributes::DELETE_HORIZON;
        }
        Ok(Some(sealed(new, body)))
    }

    /// The batch with its records compressed by `codec` at `level` (see [`compress_at`]); itself if it has that codec
    /// already. Offsets, timestamps and the records' bytes stay.
    ///
    /// # Errors
    ///
    /// [`BuildError::Compression`] if the records cannot be decompressed into `budget` bytes, [`BuildError::TooLarge`].
    pub fn recompressed(
        self,
        codec: Compression,
        level: Option<i32>,
        budget: usize,
    ) -> Result<Self, BuildError> {
        let present = self.header.attributes.compression();
        if present == codec.id() {
            return Ok(self);
        }
        let body = match Compression::from_id(present) {
            Some(Compression::None) => Bytes::from(compress_at(codec, level, &self.body)?),
            Some(present) => {
                let records = decompress(present, &self.body, budget)?;
                match codec {
                    Compression::None => Bytes::from(records),
                    codec => Bytes::from(compress_at(codec, level, &records)?),
                }
            }
            // Not one of ours to read: it stays as it is.
            None => return Ok(self),
        };
        let len = HEADER_LEN + body.len();
        let mut header = self.header;
        header.batch_length = i32::try_from(len - 12).map_err(|_| BuildError::TooLarge { len })?;
        header.attributes.0 = (header.attributes.0 & !Attributes::COMPRESSION_MASK) | codec.id();
        Ok(sealed(header, body))
    }

    /// The batch without any record: what is left of one whose header is still needed. It keeps its offsets, its
    /// producer and its largest timestamp.
    #[must_use]
    pub fn emptied(header: &BatchHeader) -> Self {
        let mut new = *header;
        // No body, so no codec; and no tombstone that a horizon could be for.
        new.attributes.0 &= !(Attributes::COMPRESSION_MASK | Attributes::DELETE_HORIZON);
        if header.attributes.has(Attributes::DELETE_HORIZON) {
            new.base_timestamp = -1;
        }
        new.batch_length = i32::try_from(HEADER_LEN - 12).unwrap_or(0);
        new.records_count = 0;
        sealed(new, Bytes::new())
    }
}

/// Copies a record with another timestamp delta.
fn put_shifted(out: &mut Vec<u8>, raw: &[u8], timestamp_delta: i64) -> Result<(), RecordError> {
    let mut rest = raw;
    varint::take_i32(&mut rest)?;
    let (attributes, mut rest) = rest.split_first().ok_or(RecordError::Truncated)?;
    varint::take_i64(&mut rest)?;
    let mut delta = Vec::with_capacity(10);
    varint::put(&mut delta, timestamp_delta);
    let len = 1 + delta.len() + rest.len();
    varint::put(out, i64::try_from(len).unwrap_or(i64::MAX));
    out.push(*attributes);
    out.extend_from_slice(&delta);
    out.extend_from_slice(rest);
    Ok(())
}

fn sealed(header: BatchHeader, body: Bytes) -> Batch {
    let mut batch = Batch { header, body };
    batch.header.crc = batch.compute_crc();
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, NewRecord, decompress, scan};

    /// Offset, timestamp, key and value of each record.
    type Read = Vec<(i64, i64, Option<Vec<u8>>, Option<Vec<u8>>)>;

    fn read(batch: &Batch) -> Read {
        let codec = Compression::from_id(batch.header.attributes.compression()).unwrap();
        let records = decompress(codec, &batch.body, 1 << 20).unwrap();
        let header = &batch.header;
        Records::new(&records, header.records_count)
            .map(|r| {
                let r = r.unwrap();
                (
                    header.base_offset + i64::from(r.offset_delta),
                    header.base_timestamp + r.timestamp_delta,
                    r.key.map(<[u8]>::to_vec),
                    r.value.map(<[u8]>::to_vec),
                )
            })
            .collect()
    }

    fn sample(codec: Compression) -> Batch {
        let mut builder = BatchBuilder::new(codec).producer(7, 2, 100);
        for i in 0..6_u8 {
            builder.push(NewRecord {
                timestamp: 5_000 - 700 * i64::from(i),
                key: (i != 2).then_some(&[i][..]),
                value: (i != 4).then_some(&b"value"[..]),
                headers: &[("h", Some(b"x"))],
            });
        }
        let mut batch = builder.build().unwrap();
        (batch.header.base_offset, batch.header.partition_leader_epoch) = (40, 3);
        batch
    }

    #[test]
    fn another_codec_changes_no_record() {
        let all = [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ];
        for (from, to) in all.iter().flat_map(|from| all.map(|to| (*from, to))) {
            let before = sample(from);
            let after = before.clone().recompressed(to, Some(1), 1 << 20).unwrap();
            assert_eq!(read(&after), read(&before), "{from:?} to {to:?}");
            assert_eq!(after.header.attributes.compression(), to.id());
            assert_eq!(scan::check(&after.to_bytes()).unwrap().0, after.header);
            assert_eq!(after == before, from == to);
            let tight = before.recompressed(to, None, 10);
            assert_eq!(
                tight.is_err(),
                from != to && from != Compression::None,
                "{from:?} to {to:?}"
            );
        }
    }

    #[test]
    fn levels_are_the_codecs_own() {
        let mut noise = 1_u32;
        let next = |noise: &mut u32| {
            *noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.to_be_bytes()[0] % 16
        };
        let text: Vec<u8> = (0..60_000).map(|_| next(&mut noise)).collect();
        for (codec, fast, best) in [(Compression::Gzip, 0, 9), (Compression::Zstd, -50, 19)] {
            let fast = compress_at(codec, Some(fast), &text).unwrap();
            let best = compress_at(codec, Some(best), &text).unwrap();
            assert!(
                best.len() < fast.len(),
                "{codec:?}: {} and {}",
                best.len(),
                fast.len()
            );
            assert_eq!(decompress(codec, &fast, 1 << 20).unwrap(), text);
            assert_eq!(decompress(codec, &best, 1 << 20).unwrap(), text);
        }
        let default = compress(Compression::Gzip, &text).unwrap();
        assert_eq!(compress_at(Compression::Gzip, Some(-1), &text).unwrap(), default);
    }

    #[test]
    fn kept_records_are_what_they_were_and_the_header_spans_the_same_offsets() {
        for codec in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let before = sample(codec);
            let records = decompress(codec, &before.body, 1 << 20).unwrap();
            for horizon in [None, Some(9_000_000)] {
                let odd = |r: &Record<'_>| r.offset_delta % 2 == 1;
                let after = Batch::retain_records(&before.header, &records, codec, horizon, odd)
                    .unwrap()
                    .unwrap();
                let expected: Read = read(&before).into_iter().filter(|r| r.0 % 2 == 1).collect();
                assert_eq!(read(&after), expected);
                assert_eq!(scan::check(&after.to_bytes()).unwrap().0, after.header);
                let (old, new) = (before.header, after.header);
                assert_eq!((new.base_offset, new.next_offset()), (40, old.next_offset()));
                assert_eq!(
                    (new.producer_id, new.base_sequence, new.partition_leader_epoch),
                    (7, 100, 3)
                );
                assert_eq!((new.records_count, new.max_timestamp), (3, 4_300));
                assert_eq!(new.attributes.has(Attributes::DELETE_HORIZON), horizon.is_some());
                assert_eq!(new.base_timestamp, horizon.unwrap_or(old.base_timestamp));
                let none = Batch::retain_records(&new, &records, codec, None, |_| false);
                assert!(
                    matches!(none, Err(RewriteError::Records(_))),
                    "the count is another"
                );
            }
            let none = Batch::retain_records(&before.header, &records, codec, None, |_| false);
            assert!(none.unwrap().is_none());
            let empty = Batch::emptied(&before.header);
            assert_eq!(scan::check(&empty.to_bytes()).unwrap().0, empty.header);
            assert_eq!(empty.header.next_offset(), before.header.next_offset());
            assert!(read(&empty).is_empty());
        }
    }
}
