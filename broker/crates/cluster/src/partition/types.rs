//! What handlers say to a partition and hear from it.

use takhin_storage::{FileRanges, LogError};

/// When a produce request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Not at all (`acks=0`); the ticket resolves as soon as the batch was proposed.
    None,
    /// When the leader has appended (`acks=1`).
    Leader,
    /// When committed, and on as many replicas as `min.insync.replicas` asks for (`acks=all`).
    All,
}

/// What a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset.
    ReadCommitted,
}

/// Which replica may answer a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedBy {
    /// The leader alone.
    Leader,
    /// Any replica, below the high watermark that it knows itself (KIP-392).
    AnyReplica,
}

/// The positions of a partition; `log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    /// First readable offset, inclusive.
    pub log_start_offset: i64,
    /// First offset that a `read_committed` consumer may not see.
    pub last_stable_offset: i64,
    /// First offset not yet committed.
    pub high_watermark: i64,
    /// Offset the next record will get.
    pub log_end_offset: i64,
}

/// A produced batch's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// Offset of the batch's first record.
    pub base_offset: i64,
    /// The broker's timestamp if the topic uses `LogAppendTime`, else -1.
    pub log_append_time_ms: i64,
    /// First readable offset at that moment.
    pub log_start_offset: i64,
}

/// Why a batch was not appended, or not known to be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// This broker does not lead the partition.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// The partition's storage is offline.
    #[error("the partition's storage is offline: {reason}")]
    StorageOffline {
        /// What failed.
        reason: String,
    },
    /// The sequence number does not follow the producer's last one.
    #[error("producer {producer_id} sent sequence {found}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// First sequence of the batch.
        found: i32,
        /// What would have been accepted.
        expected: i32,
        /// The leader epoch in which it was refused: only who leads in it may say so.
        epoch: i32,
    },
    /// The producer epoch is older than one already seen.
    #[error("producer {producer_id} has epoch {current}, the batch says {found}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// Epoch of the batch.
        found: i16,
        /// Newest epoch seen.
        current: i16,
    },
    /// `acks=all`, and fewer replicas are in sync than `min.insync.replicas` asks for.
    #[error("{in_sync} replicas are in sync, min.insync.replicas asks for {wanted}")]
    NotEnoughReplicas {
        /// Replicas in sync.
        in_sync: u16,
        /// `min.insync.replicas`.
        wanted: u16,
    },
    /// `acks=all`, and after the append so few replicas stayed in sync that nobody knows when enough of them have the
    /// batch. It may be committed already.
    #[error("after the append {in_sync} replicas were in sync, {wanted} are asked for")]
    NotEnoughReplicasAfterAppend {
        /// Replicas in sync.
        in_sync: u16,
        /// The larger of `min.insync.replicas` and a majority.
        wanted: u16,
    },
    /// Too many batches wait for this partition already; the client should retry.
    #[error("{limit} batches are in flight to this partition")]
    TooManyInFlight {
        /// The bound.
        limit: usize,
    },
    /// The batch alone is larger than a segment.
    #[error("a batch of {size} bytes does not fit into a segment of {limit} bytes")]
    LargerThanSegment {
        /// Bytes of the batch.
        size: usize,
        /// `segment.bytes`.
        limit: usize,
    },
    /// Leadership or storage was lost after the append: it may or may not be committed.
    #[error("the outcome is unknown: leadership was lost after the append")]
    Unknown,
    /// The partition was deleted.
    #[error("the partition was deleted")]
    Deleted,
}

/// Why a read was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// This broker does not lead the partition, and only its leader may answer; or its replica is not open yet.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Below the log start or above the log end.
    #[error("offset {requested} is outside {start}..={end}")]
    OffsetOutOfRange {
        /// What was asked for.
        requested: i64,
        /// Log start offset.
        start: i64,
        /// Log end offset.
        end: i64,
    },
    /// The partition's storage is offline.
    #[error("the partition's storage is offline: {reason}")]
    StorageOffline {
        /// What failed.
        reason: String,
    },
    /// The log could not be read.
    #[error("the log could not be read")]
    Log(#[from] LogError),
    /// The caller's leader epoch is older than the one this replica knows (KIP-320).
    #[error("leader epoch {requested} is older than {current}")]
    FencedLeaderEpoch {
        /// The caller's.
        requested: i32,
        /// This replica's.
        current: i32,
    },
    /// The caller's leader epoch is newer than any this broker knows (KIP-320).
    #[error("leader epoch {requested} is newer than {current}")]
    UnknownLeaderEpoch {
        /// The caller's.
        requested: i32,
        /// This replica's.
        current: i32,
    },
}

/// Result of a read: file ranges and the positions they were planned against.
#[derive(Debug)]
pub struct Fetched {
    /// Whole batches, as ranges of segment files; empty when nothing is visible at the offset.
    pub ranges: FileRanges,
    /// Positions at planning time.
    pub offsets: Offsets,
}

/// Which offset `ListOffsets` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// -1: high watermark or last stable offset.
    Latest,
    /// -2: log start offset.
    Earliest,
    /// -3: record with the largest timestamp.
    MaxTimestamp,
    /// -4: earliest offset on local disk.
    EarliestLocal,
    /// -5: last tiered offset.
    LastTiered,
    /// First record whose timestamp is at least this many milliseconds.
    AtOrAfter(i64),
}

/// An offset, its record's timestamp (-1 where it has none) and leader epoch (-1 unknown).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset, or -1 for none.
    pub offset: i64,
    /// Milliseconds, or -1.
    pub timestamp: i64,
    /// Epoch, or -1.
    pub leader_epoch: i32,
}
