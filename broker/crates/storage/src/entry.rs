//! What goes into a log and what comes out.

use std::path::PathBuf;
use std::sync::Arc;

use takhin_protocol::record::Batch;
use takhin_runtime::disk::File;

use crate::error::{Damage, LogError};
use crate::format::SegmentId;

/// Term and raft index of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Raft term; the leader epoch of the batch.
    pub term: u32,
    /// Raft index.
    pub index: u64,
}

/// One entry to append. The proposer has filled in base offset and leader epoch; the log verifies them.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Raft term; equals the header's leader epoch.
    pub term: u32,
    /// Raft index; one more than the last.
    pub raft_index: u64,
    /// The batch; `base_offset` is the log end offset.
    pub batch: Batch,
}

/// One entry read back with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Raft term.
    pub term: u32,
    /// Raft index.
    pub index: u64,
    /// The batch as it lies on disk.
    pub batch: Batch,
}

/// One entry without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHead {
    /// Raft term.
    pub term: u32,
    /// Raft index.
    pub index: u64,
    /// Offset of the first record; of a hidden entry, the offset the next record gets.
    pub base_offset: i64,
    /// Offset after the last record, exclusive.
    pub next_offset: i64,
    /// Whether it is a hidden entry of the replication layer.
    pub hidden: bool,
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The last entry of the log now.
    pub last: Option<EntryId>,
    /// The log end offset now, exclusive.
    pub log_end_offset: i64,
    /// Bytes written.
    pub bytes: u64,
}

/// Where a log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// First readable offset, inclusive.
    pub log_start_offset: i64,
    /// Offset of the next record, exclusive end.
    pub log_end_offset: i64,
    /// First raft index that `entries` can read; equals the next index when no entry is held.
    pub first_index: u64,
    /// The last entry ever appended and not truncated; may be purged. `None` in a log that never had one.
    pub last: Option<EntryId>,
    /// The last entry that belongs to the state machine rather than the raft log.
    pub purged: Option<EntryId>,
}

/// A point up to which a log is known to be on disk: its durable watermark.
///
/// Stored by the caller in the node's journal and handed back to `Log::open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Counts truncations; a checkpoint from before a truncation does not hold above it.
    pub generation: u64,
    /// The last durable entry, if there is one.
    pub last: Option<EntryId>,
    /// The offset after the durable part, exclusive.
    pub next_offset: i64,
    /// The segment in which the durable part ends.
    pub segment: SegmentId,
    /// Length in bytes of that segment's durable part.
    pub position: u64,
}

impl Checkpoint {
    /// Bytes of the encoding.
    pub const LEN: usize = 53;

    /// The raft index after the durable part, exclusive.
    pub fn next_index(&self) -> u64 {
        self.last.map_or(0, |l| l.index + 1)
    }

    /// Encodes for the journal.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let last = self.last.unwrap_or(EntryId { term: 0, index: 0 });
        let mut b = [0; Self::LEN];
        b[0..8].copy_from_slice(&self.generation.to_be_bytes());
        b[8] = u8::from(self.last.is_some());
        b[9..13].copy_from_slice(&last.term.to_be_bytes());
        b[13..21].copy_from_slice(&last.index.to_be_bytes());
        b[21..29].copy_from_slice(&self.next_offset.to_be_bytes());
        b[29..37].copy_from_slice(&self.segment.base_offset.to_be_bytes());
        b[37..45].copy_from_slice(&self.segment.first_index.to_be_bytes());
        b[45..53].copy_from_slice(&self.position.to_be_bytes());
        b
    }

    /// Decodes what [`Checkpoint::encode`] wrote; `None` when it cannot be that.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let u64_at = |i: usize| {
            let mut x = [0; 8];
            x.copy_from_slice(&b[i..i + 8]);
            x
        };
        let term = u32::from_be_bytes([b[9], b[10], b[11], b[12]]);
        let last = match b[8] {
            0 => None,
            1 => Some(EntryId {
                term,
                index: u64::from_be_bytes(u64_at(13)),
            }),
            _ => return None,
        };
        Some(Self {
            generation: u64::from_be_bytes(u64_at(0)),
            last,
            next_offset: i64::from_be_bytes(u64_at(21)),
            segment: SegmentId {
                base_offset: i64::from_be_bytes(u64_at(29)),
                first_index: u64::from_be_bytes(u64_at(37)),
            },
            position: u64::from_be_bytes(u64_at(45)),
        })
    }
}

/// A piece of a segment file that holds whole batches and nothing hidden.
#[derive(Debug, Clone)]
pub struct FileRange {
    /// The segment file; stays readable even if retention removes its name.
    pub file: Arc<dyn File>,
    /// First byte.
    pub pos: u64,
    /// Number of bytes.
    pub len: usize,
}

/// What a read by offset found.
#[derive(Debug, Clone)]
pub struct FileRanges {
    /// In offset order, to be sent one after the other.
    pub ranges: Vec<FileRange>,
    /// Sum of their lengths.
    pub bytes: usize,
    /// Where the next read continues, exclusive end of this one; the requested offset when nothing was found.
    pub next_offset: i64,
}

impl FileRanges {
    /// Nothing, at the requested offset.
    pub fn empty(at: i64) -> Self {
        Self {
            ranges: Vec::new(),
            bytes: 0,
            next_offset: at,
        }
    }

    /// Reads all ranges into memory, for callers that cannot send files.
    pub fn read_all(&self) -> std::io::Result<Vec<u8>> {
        let mut out = vec![0; self.bytes];
        let mut at = 0;
        for range in &self.ranges {
            range
                .file
                .read_exact_at(&mut out[at..at + range.len], range.pos)?;
            at += range.len;
        }
        Ok(out)
    }
}

/// Whether a log takes appends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogStatus {
    /// Everything works.
    Ready,
    /// A write or sync failed; reopen with [`crate::PreviousStop::Failed`] and the last checkpoint.
    Failed {
        /// The first failure.
        reason: String,
    },
    /// Opened with damage that recovery must not cut: the prefix is readable, appends are refused.
    Damaged(DamagedAt),
}

/// Where damage begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedAt {
    /// The damaged or missing segment file.
    pub path: PathBuf,
    /// Byte at which it begins.
    pub position: u64,
    /// First offset that cannot be read.
    pub offset: i64,
    /// What is wrong.
    pub damage: Damage,
}

impl DamagedAt {
    pub(crate) fn error(&self) -> LogError {
        LogError::Damaged {
            path: self.path.clone(),
            position: self.position,
            offset: self.offset,
            damage: self.damage,
        }
    }
}

/// How the previous owner of the data directory stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviousStop {
    /// Closed in order: nothing can be torn.
    Clean,
    /// The process ended without closing; the page cache survived, so only the very end can be torn.
    Killed,
    /// The machine restarted: anything above the durable watermark may be lost or torn.
    PowerLoss,
    /// This log failed to sync: everything above the durable watermark is cut, valid or not.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_survives_its_encoding() {
        let c = Checkpoint {
            generation: 3,
            last: Some(EntryId { term: 9, index: 77 }),
            next_offset: 1234,
            segment: SegmentId {
                base_offset: 1000,
                first_index: 50,
            },
            position: 4096,
        };
        assert_eq!(Checkpoint::decode(&c.encode()), Some(c));
        let none = Checkpoint { last: None, ..c };
        assert_eq!(Checkpoint::decode(&none.encode()), Some(none));
        assert_eq!(Checkpoint::decode(&c.encode()[1..]), None);
    }
}
