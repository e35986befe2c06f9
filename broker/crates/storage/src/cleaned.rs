//! The mark at the beginning of a segment that compaction has written.
//!
//! In a segment as it was appended, offsets are dense and raft indexes are counted. In a cleaned one neither holds:
//! records are missing, and so are all hidden entries. What cannot be counted any more is written down in the mark,
//! which is the file's first batch: hidden, so that no reader is ever sent it, with attribute bit 6 as well, which no
//! other hidden entry has.
//!
//! ```text
//! header  base_offset: of the segment | partition_leader_epoch: of its first entry | attributes: bits 5, 6, 15
//! body    end_offset i64 | end_index u64 | bytes u64 (of the whole file)
//!         epochs u32 * { epoch u32 | first_index u64 | first_offset i64 }   those of the segment's entries
//! ```

use std::io;

use bytes::{Buf, BufMut, Bytes};
use takhin_protocol::record::{Attributes, Batch, BatchHeader, HEADER_LEN};
use takhin_runtime::disk::File;

use crate::epochs::EpochStart;
use crate::error::Damage;
use crate::format::{SegmentId, crc32c, len_u32};

const BITS: i16 = Attributes::HIDDEN | Attributes::CONTROL | Attributes::DELETE_HORIZON;

/// Longest body that is believed: room for 800,000 changes of leader within one segment.
const MAX_BODY: usize = 16 << 20;

/// Bytes of a body without epochs.
const FIXED: usize = 28;

/// Bytes of an epoch.
const EPOCH: usize = 20;

/// What a cleaned segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Where the next segment begins.
    pub(crate) end: SegmentId,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Where leader epochs began, ascending; the first is that of the segment's first entry.
    pub(crate) epochs: Vec<EpochStart>,
    /// Tells this content of the file from any other; never [`PLAIN`].
    pub(crate) stamp: u64,
}

/// The stamp of a segment that was never cleaned.
pub(crate) const PLAIN: u64 = 0;

/// Whether a header is that of a mark.
pub(crate) fn is_mark(header: &BatchHeader) -> bool {
    header.attributes.has(BITS)
}

impl Mark {
    /// Bytes of a mark with this many epochs.
    pub(crate) fn len(epochs: usize) -> usize {
        HEADER_LEN + FIXED + EPOCH * epochs
    }

    /// The batch to be written at the beginning of segment `id`, and the mark with its stamp.
    pub(crate) fn encode(
        id: SegmentId,
        end: SegmentId,
        bytes: u64,
        epochs: Vec<EpochStart>,
    ) -> (Batch, Self) {
        let mut body = Vec::with_capacity(FIXED + EPOCH * epochs.len());
        end.encode(&mut body);
        body.put_u64(bytes);
        body.put_u32(len_u32(epochs.len()));
        for e in &epochs {
            body.put_u32(e.epoch);
            body.put_u64(e.first_index);
            body.put_i64(e.first_offset);
        }
        let epoch = epochs.first().map_or(0, |e| e.epoch);
        let epoch = i32::try_from(epoch).unwrap_or(i32::MAX);
        let mut batch = Batch::hidden(id.base_offset, epoch, -1, Bytes::from(body));
        batch.header.attributes.0 |= BITS;
        batch.header.crc = batch.compute_crc();
        let stamp = stamp(&batch.header);
        let mark = Self {
            end,
            bytes,
            epochs,
            stamp,
        };
        (batch, mark)
    }

    /// The mark of segment `id`, or `None` if `file` begins with something else.
    ///
    /// The inner error is a mark that fails its check or is not this segment's.
    pub(crate) fn read(file: &dyn File, id: SegmentId) -> io::Result<Result<Option<Self>, Damage>> {
        let mut head = [0; HEADER_LEN];
        match file.read_exact_at(&mut head, 0) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Ok(None)),
            read => read?,
        }
        let header = BatchHeader::parse(&head);
        if header.magic != 2 || !is_mark(&header) {
            return Ok(Ok(None));
        }
        let len = header.total_len().saturating_sub(HEADER_LEN);
        if !(FIXED..=MAX_BODY).contains(&len) {
            return Ok(Err(Damage::BadHeader));
        }
        let mut body = vec![0; len];
        match file.read_exact_at(&mut body, HEADER_LEN as u64) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Err(Damage::Incomplete)),
            read => read?,
        }
        if crc32c(&[&head[21..], &body]) != header.crc {
            return Ok(Err(Damage::BadCrc));
        }
        let mark = Self::decode(&header, &body).filter(|mark| mark.end > id);
        if header.base_offset != id.base_offset {
            let (expected, found) = (id.base_offset, header.base_offset);
            return Ok(Err(Damage::WrongOffset { expected, found }));
        }
        Ok(mark.map(Some).ok_or(Damage::BadHeader))
    }

    fn decode(header: &BatchHeader, mut body: &[u8]) -> Option<Self> {
        let end = SegmentId::decode(&mut body)?;
        let bytes = body.try_get_u64().ok()?;
        let count = body.try_get_u32().ok()? as usize;
        if count.checked_mul(EPOCH)? != body.remaining() {
            return None;
        }
        let mut epochs = Vec::with_capacity(count);
        for _ in 0..count {
            epochs.push(EpochStart {
                epoch: body.try_get_u32().ok()?,
                first_index: body.try_get_u64().ok()?,
                first_offset: body.try_get_i64().ok()?,
            });
        }
        Some(Self {
            end,
            bytes,
            epochs,
            stamp: stamp(header),
        })
    }
}

fn stamp(header: &BatchHeader) -> u64 {
    (1 << 32) | u64::from(header.crc)
}

/// Follows the offsets of a segment: dense as appended, ascending with holes as cleaned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Continuity {
    next: i64,
    /// The end of a cleaned segment.
    end: Option<i64>,
}

impl Continuity {
    pub(crate) fn new(id: SegmentId, mark: Option<&Mark>) -> Self {
        Self {
            next: id.base_offset,
            end: mark.map(|mark| mark.end.base_offset),
        }
    }

    /// What is wrong with the offsets of the next batch.
    pub(crate) fn step(&mut self, header: &BatchHeader) -> Option<Damage> {
        let (expected, found) = (self.next, header.base_offset);
        let right = match self.end {
            None => found == expected,
            Some(end) => found >= expected && header.next_offset() <= end,
        };
        self.next = header.next_offset();
        (!right).then_some(Damage::WrongOffset { expected, found })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use takhin_runtime::disk::{Disk, OpenMode};
    use takhin_runtime::sim::SimDisk;

    use super::*;
    use crate::testing::hidden_batch;

    const ID: SegmentId = SegmentId {
        base_offset: 10,
        first_index: 4,
    };

    fn read(bytes: &[u8], id: SegmentId) -> Result<Option<Mark>, Damage> {
        let disk = SimDisk::new(1);
        let file = disk.open(Path::new("/s"), OpenMode::CreateOrWrite).unwrap();
        file.write_at(&mut [io::IoSlice::new(bytes)], 0).unwrap();
        Mark::read(&*file, id).unwrap()
    }

    #[test]
    fn a_mark_reads_back_and_no_flipped_bit_is_believed() {
        let end = SegmentId {
            base_offset: 90,
            first_index: 33,
        };
        let epochs = [(2, 4, 10), (5, 20, 70)].map(|(epoch, first_index, first_offset)| EpochStart {
            epoch,
            first_index,
            first_offset,
        });
        let (batch, mark) = Mark::encode(ID, end, 777, epochs.to_vec());
        let bytes = batch.to_bytes();
        assert_eq!(bytes.len(), Mark::len(2));
        assert_eq!(read(&bytes, ID), Ok(Some(mark.clone())));
        let other = SegmentId {
            base_offset: 11,
            ..ID
        };
        assert!(matches!(read(&bytes, other), Err(Damage::WrongOffset { .. })));
        for bit in 0..bytes.len() * 8 {
            // The leader epoch lies outside the checksum and is not read back.
            if (12 * 8..16 * 8).contains(&bit) {
                continue;
            }
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(read(&bad, ID), Ok(Some(mark.clone())), "bit {bit}");
        }
        assert_eq!(read(&hidden_batch(10, 2, b"blank").to_bytes(), ID), Ok(None));
        assert_eq!(read(b"short", ID), Ok(None));
    }
}
