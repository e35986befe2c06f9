//! Why a log could not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::NewerFormat;

/// What is wrong with the bytes at some position of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file ends inside a batch.
    #[error("the file ends inside a batch")]
    Incomplete,
    /// The header cannot be one of ours: magic, length, offsets or epoch are impossible.
    #[error("the batch header is not plausible")]
    BadHeader,
    /// The checksum does not match the bytes.
    #[error("the batch fails its checksum")]
    BadCrc,
    /// A valid batch, but not the one that belongs here.
    #[error("the batch has offset {found} where {expected} belongs")]
    WrongOffset {
        /// Offset that the preceding batches lead to.
        expected: i64,
        /// Offset in the header.
        found: i64,
    },
    /// A leader epoch below that of an earlier batch.
    #[error("the leader epoch goes back from {last} to {found}")]
    EpochBackwards {
        /// Epoch of the batch before.
        last: u32,
        /// Epoch in the header.
        found: u32,
    },
    /// The file is shorter than what is known to have been made durable.
    #[error("the file ends below its durable watermark")]
    ShorterThanWatermark,
    /// A sealed segment does not have the length it was sealed with.
    #[error("the segment does not have the length it was sealed with")]
    WrongLength,
    /// A segment file that must exist does not.
    #[error("the segment file is missing")]
    MissingSegment,
}

/// Why a log refused or failed an operation.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The offset lies outside what this log can serve.
    #[error("offset {requested} is outside {start}..={end}")]
    OffsetOutOfRange {
        /// Offset asked for.
        requested: i64,
        /// Log start offset, inclusive.
        start: i64,
        /// Log end offset; itself allowed (an empty read).
        end: i64,
    },
    /// The raft index lies outside what this log holds.
    #[error("raft index {requested} is outside {first}..{end}")]
    IndexOutOfRange {
        /// Index asked for.
        requested: u64,
        /// First index held, inclusive.
        first: u64,
        /// Index of the next entry, exclusive.
        end: u64,
    },
    /// An entry does not continue the log.
    #[error("entry has raft index {found} where {expected} belongs")]
    WrongIndex {
        /// Index that the next entry must have.
        expected: u64,
        /// Index it has.
        found: u64,
    },
    /// An entry's base offset is not the log end offset.
    #[error("entry {index} has base offset {found} where {expected} belongs")]
    WrongOffset {
        /// Raft index of the entry.
        index: u64,
        /// The log end offset at that entry.
        expected: i64,
        /// Its base offset.
        found: i64,
    },
    /// An entry's term is below that of its predecessor.
    #[error("entry {index} has term {found} after term {last}")]
    TermBackwards {
        /// Raft index of the entry.
        index: u64,
        /// Term of the entry before.
        last: u32,
        /// Its term.
        found: u32,
    },
    /// An entry's batch contradicts itself; nothing was written.
    #[error("entry {index} is malformed: {what}")]
    Malformed {
        /// Raft index of the entry.
        index: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Truncation would remove what the state machine already owns.
    #[error("cannot truncate to before raft index {purged}: it is purged")]
    TruncatePurged {
        /// Last purged index.
        purged: u64,
    },
    /// Bytes of a copy that do not belong here, or are missing.
    #[error("{dir}: segment {segment} of the copy goes on at byte {position}", dir = dir.display())]
    Unexpected {
        /// Where the copy is being built.
        dir: PathBuf,
        /// The segment that is next, counted from 0.
        segment: usize,
        /// Where in it.
        position: u64,
    },
    /// Damaged bytes were met while reading.
    #[error("{path}: byte {position}: {damage}", path = path.display())]
    Corrupt {
        /// The segment file.
        path: PathBuf,
        /// Where the damaged batch begins.
        position: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// The records of a batch cannot be decoded.
    #[error("{path}: byte {position}: records cannot be decoded: {reason}", path = path.display())]
    Undecodable {
        /// The segment file.
        path: PathBuf,
        /// Where the batch begins.
        position: u64,
        /// The decoder's words.
        reason: String,
    },
    /// The disk is full. The log is as it was before the call, and usable.
    #[error("{path}: no space left on the disk", path = path.display())]
    Full {
        /// File that could not grow.
        path: PathBuf,
    },
    /// The operating system refused an operation.
    #[error("cannot {operation} {path}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its words.
        #[source]
        source: io::Error,
    },
    /// An earlier write or sync failed; the log must be opened again.
    #[error("{dir}: the log failed and must be reopened: {reason}", dir = dir.display())]
    Failed {
        /// Directory of the log.
        dir: PathBuf,
        /// The first failure.
        reason: String,
    },
    /// The log was opened with damage that must not be cut; it takes no appends.
    #[error("{path}: byte {position}: the log is damaged from offset {offset} on: {damage}", path = path.display())]
    Damaged {
        /// The damaged or missing segment file.
        path: PathBuf,
        /// Where the damage begins.
        position: u64,
        /// First offset that cannot be read.
        offset: i64,
        /// What is wrong.
        damage: Damage,
    },
    /// A file was written by a newer release.
    #[error("{path}: {newer}", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        newer: NewerFormat,
    },
    /// A state file that every log has is missing or fails its check.
    #[error("{path}: unreadable: {reason}", path = path.display())]
    StateUnreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl LogError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::Full {
                path: path.to_owned(),
            };
        }
        Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}
