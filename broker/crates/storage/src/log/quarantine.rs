//! Cutting what recovery found damaged. Nothing is deleted before a copy of it is durable.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use takhin_runtime::disk::{Disk, OpenMode};

use crate::error::LogError;
use crate::format::{LOG, QUARANTINE, SNAPSHOT, SegmentId, TMP, to_usize};
use crate::segment::{open_segment, remove_if_exists, remove_index};

/// Bytes copied at a time.
const PIECE: u64 = 1 << 20;

/// Moves a whole segment to the quarantine; returns where it is now. The move is durable on return.
pub(super) fn move_segment(
    disk: &dyn Disk,
    dir: &Path,
    id: SegmentId,
    len: u64,
) -> Result<PathBuf, LogError> {
    let to = prepare(disk, dir)?.join(format!("{}.whole.{len}", id.file_name(LOG)));
    let from = id.path(dir, LOG);
    disk.rename(&from, &to)
        .map_err(|e| LogError::io("rename", &from, e))?;
    remove_index(disk, dir, id)?;
    remove_if_exists(disk, &id.path(dir, SNAPSHOT))?;
    sync_both(disk, dir)?;
    Ok(to)
}

/// Copies a segment's bytes from `pos` on to the quarantine, then cuts them off; returns where the copy is.
///
/// The name of the copy depends only on what is cut, so that a crash anywhere in here leads to the same result.
pub(super) fn cut_segment(
    disk: &dyn Disk,
    dir: &Path,
    id: SegmentId,
    range: std::ops::Range<u64>,
) -> Result<PathBuf, LogError> {
    let quarantine = prepare(disk, dir)?;
    let from = id.path(dir, LOG);
    let file = open_segment(disk, &from, OpenMode::Write)?;
    let tmp = quarantine.join(format!("{}.{TMP}", id.file_name(LOG)));
    let copy = disk
        .open(&tmp, OpenMode::CreateOrWrite)
        .map_err(|e| LogError::io("create", &tmp, e))?;
    copy.set_len(0).map_err(|e| LogError::io("truncate", &tmp, e))?;
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    let mut pos = range.start;
    while pos < range.end {
        let mut piece = vec![0; to_usize((range.end - pos).min(PIECE))];
        file.read_exact_at(&mut piece, pos)
            .map_err(|e| LogError::io("read", &from, e))?;
        digest.update(&piece);
        copy.write_at(&mut [IoSlice::new(&piece)], pos - range.start)
            .map_err(|e| LogError::io("write", &tmp, e))?;
        pos += piece.len() as u64;
    }
    copy.sync_data().map_err(|e| LogError::io("sync", &tmp, e))?;
    let crc = digest.finalize();
    let to = quarantine.join(format!("{}.{}.{crc:08x}", id.file_name(LOG), range.start));
    disk.rename(&tmp, &to)
        .map_err(|e| LogError::io("rename", &tmp, e))?;
    sync_both(disk, dir)?;
    remove_index(disk, dir, id)?;
    file.set_len(range.start)
        .map_err(|e| LogError::io("truncate", &from, e))?;
    file.sync_data().map_err(|e| LogError::io("sync", &from, e))?;
    disk.sync_dir(dir)
        .map_err(|e| LogError::io("sync directory", dir, e))?;
    Ok(to)
}

fn prepare(disk: &dyn Disk, dir: &Path) -> Result<PathBuf, LogError> {
    let quarantine = dir.join(QUARANTINE);
    disk.create_dir_all(&quarantine)
        .map_err(|e| LogError::io("create", &quarantine, e))?;
    Ok(quarantine)
}

fn sync_both(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let quarantine = dir.join(QUARANTINE);
    disk.sync_dir(&quarantine)
        .map_err(|e| LogError::io("sync directory", &quarantine, e))?;
    disk.sync_dir(dir)
        .map_err(|e| LogError::io("sync directory", dir, e))
}
