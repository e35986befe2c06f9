//! Checking the bytes of a segment.

use std::path::Path;

use takhin_protocol::record::{BatchHeader, HEADER_LEN};
use takhin_runtime::disk::{File, OpenMode};

use crate::cleaned::{Continuity, Mark};
use crate::error::{Damage, LogError};
use crate::format::{LOG, SegmentId, to_usize};
use crate::index::SegmentIndex;
use crate::options::{LogOptions, StorageContext};
use crate::segment::open_segment;
use crate::state_file::SealedLen;
use crate::walk::{Blocks, HEADER_BLOCK, Located, SCAN_BLOCK, Walk, crc_ok, plausible};

/// What a scan of a segment found.
pub(super) struct Scan {
    /// The valid prefix.
    pub(super) index: SegmentIndex,
    /// Leader epoch of its last entry.
    pub(super) epoch: u32,
    /// What ended it before the end of the file.
    pub(super) damage: Option<Damage>,
}

/// Which part of a segment to scan, and how.
pub(super) struct ScanRange {
    /// The length of the file.
    pub(super) len: u64,
    /// From this position on checksums are verified; before it, headers only.
    pub(super) crc_from: u64,
    /// Leader epoch of the entry before the segment.
    pub(super) epoch: u32,
}

/// Walks segment `id` from its beginning and notes every valid batch.
pub(super) fn scan(
    file: &dyn File,
    path: &Path,
    id: SegmentId,
    range: &ScanRange,
    options: &LogOptions,
) -> Result<Scan, LogError> {
    let io = |e| LogError::io("read", path, e);
    let mut epoch = range.epoch;
    let mark = match Mark::read(file, id).map_err(io)? {
        Ok(mark) => mark,
        Err(damage) => {
            return Ok(Scan {
                index: SegmentIndex::new(id),
                epoch,
                damage: Some(damage),
            });
        }
    };
    let mut index = SegmentIndex::of(id, mark.as_ref());
    let mut continuity = Continuity::new(id, mark.as_ref());
    let mut good = id.base_offset;
    let below = range.crc_from.min(range.len);
    let headers = Walk::new(file, path, 0..below, options.max_batch_bytes);
    let checked = Walk::with_block(file, path, below..range.len, options.max_batch_bytes, SCAN_BLOCK);
    for (mut walk, check) in [(headers, false), (checked, true)] {
        loop {
            let found = match walk.step().map_err(io)? {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(damage) => return Ok(broken(index, epoch, damage, good)),
            };
            let damage = match continues(&found.header, &mut continuity, epoch) {
                Some(damage) => Some(damage),
                None if check && !walk.crc_ok(&found).map_err(io)? => Some(Damage::BadCrc),
                None => None,
            };
            if let Some(damage) = damage {
                return Ok(broken(index, epoch, damage, good));
            }
            good = found.header.next_offset();
            epoch = u32::try_from(found.header.partition_leader_epoch).unwrap_or(epoch);
            index.note(&found.header, options.index_interval_bytes);
        }
    }
    if mark.is_some_and(|mark| mark.bytes != index.bytes) {
        return Ok(broken(index, epoch, Damage::WrongLength, good));
    }
    Ok(Scan {
        index,
        epoch,
        damage: None,
    })
}

/// What lies before the damage: up to offset `good`, exclusive.
fn broken(mut index: SegmentIndex, epoch: u32, damage: Damage, good: i64) -> Scan {
    index.end_here(good);
    Scan {
        index,
        epoch,
        damage: Some(damage),
    }
}

fn continues(header: &BatchHeader, continuity: &mut Continuity, last: u32) -> Option<Damage> {
    if let Some(damage) = continuity.step(header) {
        return Some(damage);
    }
    let found = u32::try_from(header.partition_leader_epoch).unwrap_or(0);
    (found < last).then_some(Damage::EpochBackwards { last, found })
}

/// Verifies a segment that was copied into `dir`: valid throughout, and `next` goes on where it ends. Returns its index and
/// the leader epoch of its last entry; `epoch` is that of the entry before.
pub(crate) fn check_copied(
    cx: &StorageContext,
    dir: &Path,
    segment: SealedLen,
    next: SegmentId,
    epoch: u32,
    options: &LogOptions,
) -> Result<(SegmentIndex, u32), LogError> {
    let path = segment.id.path(dir, LOG);
    let file = open_segment(&*cx.disk, &path, OpenMode::Read)?;
    let range = ScanRange {
        len: segment.bytes,
        crc_from: 0,
        epoch,
    };
    let found = scan(&*file, &path, segment.id, &range, options)?;
    let short = (found.index.end() != next).then_some(Damage::WrongLength);
    match found.damage.or(short) {
        Some(damage) => Err(LogError::Corrupt {
            path,
            position: found.index.bytes,
            damage,
        }),
        None => Ok((found.index, found.epoch)),
    }
}

/// Whether a whole valid batch of this log begins anywhere after `from`.
///
/// A write that was torn by the end of the process leaves nothing valid behind it; if there is something, the damage
/// before it has another cause. Every byte position is tried, since the damaged length cannot be trusted.
pub(super) fn valid_batch_after(
    file: &dyn File,
    path: &Path,
    range: std::ops::Range<u64>,
    min_offset: i64,
    options: &LogOptions,
) -> Result<bool, LogError> {
    let io = |e| LogError::io("read", path, e);
    let mut blocks = Blocks::new(file, range.end, SCAN_BLOCK);
    // Its own memory: checking a candidate must not throw away the block that is being searched.
    let mut check = Blocks::new(file, range.end, HEADER_BLOCK);
    let mut pos = range.start + 1;
    while pos + HEADER_LEN as u64 <= range.end {
        let len = to_usize(range.end - pos).min(SCAN_BLOCK);
        let Some(block) = blocks.slice(pos, len).map_err(io)? else {
            return Ok(false);
        };
        for (at, window) in (pos..).zip(block.windows(HEADER_LEN)) {
            if window[16] != 2 {
                continue;
            }
            let mut head = [0; HEADER_LEN];
            head.copy_from_slice(window);
            let header = BatchHeader::parse(&head);
            let found = Located { pos: at, header };
            if plausible(&header, options.max_batch_bytes)
                && header.base_offset >= min_offset
                && found.end() <= range.end
                && crc_ok(&mut check, &found).map_err(io)?
            {
                return Ok(true);
            }
        }
        pos += (len - HEADER_LEN + 1) as u64;
    }
    Ok(false)
}
