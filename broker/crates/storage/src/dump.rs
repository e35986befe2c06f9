//! Reading a log offline: no lock, no recovery, nothing is changed. For `takhin dump-log`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use takhin_protocol::record::{BatchHeader, Compression};
use takhin_runtime::disk::{Disk, File, OpenMode};

use crate::cleaned::Mark;
use crate::error::{Damage, LogError};
use crate::format::{LOG, SegmentId};
use crate::walk::{SCAN_BLOCK, Walk};

/// Largest batch that a dump believes.
const MAX_BATCH: u32 = 1 << 30;

/// One batch as it lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpedBatch {
    /// First byte in its file.
    pub position: u64,
    /// Bytes.
    pub len: u64,
    /// Raft index, counted from the file's name; `None` in a cleaned segment, where it is not known.
    pub raft_index: Option<u64>,
    /// The whole header: term (leader epoch), base offset, count, timestamps, producer.
    pub header: BatchHeader,
    /// Offset of the last record, inclusive; below the base offset for a hidden entry.
    pub last_offset: i64,
    /// Whether it is a hidden entry of the replication layer.
    pub hidden: bool,
    /// The codec; `None` for an unknown one.
    pub codec: Option<Compression>,
    /// Whether the checksum is right.
    pub crc_ok: bool,
}

/// One line of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpItem {
    /// A segment file begins.
    Segment {
        /// The file.
        path: PathBuf,
        /// What its name says.
        id: SegmentId,
        /// Bytes.
        bytes: u64,
        /// Where it ends, if compaction has written it.
        cleaned_to: Option<SegmentId>,
    },
    /// A batch.
    Batch(DumpedBatch),
    /// Nothing can be read from here to the end of this file.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// First byte.
        position: u64,
        /// Why.
        damage: Damage,
    },
}

/// Walks over one segment file, or over all of a log's directory in order, calling `each` until it returns `false`.
///
/// Batches that fail their checksum are shown and passed; a header that cannot be one ends its file.
///
/// # Errors
///
/// `Io`, also for a path that is neither.
pub fn dump(
    disk: &Arc<dyn Disk>,
    path: &Path,
    mut each: impl FnMut(DumpItem) -> bool,
) -> Result<(), LogError> {
    for (path, id) in files(&**disk, path)? {
        let file = disk
            .open(&path, OpenMode::Read)
            .map_err(|e| LogError::io("open", &path, e))?;
        if !dump_file(&*file, &path, id, &mut each)? {
            break;
        }
    }
    Ok(())
}

fn files(disk: &dyn Disk, path: &Path) -> Result<Vec<(PathBuf, SegmentId)>, LogError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if let Some((id, LOG)) = SegmentId::parse(name) {
        return Ok(vec![(path.to_owned(), id)]);
    }
    let entries = disk.read_dir(path).map_err(|e| LogError::io("list", path, e))?;
    let segments = entries.iter().filter_map(|e| match SegmentId::parse(&e.name) {
        Some((id, LOG)) => Some((path.join(&e.name), id)),
        _ => None,
    });
    let mut segments: Vec<_> = segments.collect();
    segments.sort_unstable_by_key(|(_, id)| *id);
    Ok(segments)
}

fn dump_file(
    file: &dyn File,
    path: &Path,
    id: SegmentId,
    each: &mut impl FnMut(DumpItem) -> bool,
) -> Result<bool, LogError> {
    let io = |e| LogError::io("read", path, e);
    let bytes = file.len().map_err(io)?;
    // One that fails its check is shown as a batch that does.
    let cleaned_to = Mark::read(file, id)
        .map_err(io)?
        .ok()
        .flatten()
        .map(|mark| mark.end);
    if !each(DumpItem::Segment {
        path: path.to_owned(),
        id,
        bytes,
        cleaned_to,
    }) {
        return Ok(false);
    }
    let mut walk = Walk::with_block(file, path, 0..bytes, MAX_BATCH, SCAN_BLOCK);
    let mut raft_index = id.first_index;
    let mut position = 0;
    loop {
        let item = match walk.step().map_err(io)? {
            Ok(None) => return Ok(true),
            Err(damage) => {
                return Ok(each(DumpItem::Unreadable {
                    path: path.to_owned(),
                    position,
                    damage,
                }));
            }
            Ok(Some(found)) => {
                let header = found.header;
                position = found.end();
                DumpedBatch {
                    position: found.pos,
                    len: found.end() - found.pos,
                    raft_index: cleaned_to.is_none().then_some(raft_index),
                    header,
                    last_offset: header.next_offset() - 1,
                    hidden: header.is_hidden(),
                    codec: Compression::from_id(header.attributes.compression()),
                    crc_ok: walk.crc_ok(&found).map_err(io)?,
                }
            }
        };
        raft_index += 1;
        if !each(DumpItem::Batch(item)) {
            return Ok(false);
        }
    }
}
