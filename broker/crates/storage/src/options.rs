//! Settings of one log, and what all logs of a node share.

use std::sync::Arc;

use takhin_runtime::disk::Disk;

use crate::segment::OpenSegments;

/// Settings of one log; topic settings of the same names in Kafka, with the units in ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// `segment.bytes`: a segment is rolled before it would grow past this; at most `i32::MAX`.
    pub segment_bytes: u32,
    /// `segment.ms`: roll when a batch is this much newer than the segment's first, by record time.
    pub segment_ms: i64,
    /// `index.interval.bytes`: bytes of log between two index entries.
    pub index_interval_bytes: u32,
    /// Entries after which an index is full and its segment rolled.
    pub index_max_entries: u32,
    /// `max.message.bytes` is the broker's to enforce; this bounds what a read believes of a header on disk.
    pub max_batch_bytes: u32,
    /// Recent entry heads kept in memory.
    pub head_ring: usize,
    /// Producers remembered; the longest silent ones go first.
    pub max_producers: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            index_interval_bytes: 4096,
            index_max_entries: 1 << 20,
            max_batch_bytes: 1 << 30,
            head_ring: 1024,
            max_producers: 100_000,
        }
    }
}

/// What all logs of a node share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StorageContext {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) open: Arc<OpenSegments>,
}

impl StorageContext {
    /// Sealed segments kept open (file and indexes) across all logs of a node.
    pub const OPEN_SEGMENTS: usize = 256;

    /// A context with the default number of open sealed segments.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self::with_open_segments(disk, Self::OPEN_SEGMENTS)
    }

    /// A context that keeps at most `open_segments` sealed segments open.
    pub fn with_open_segments(disk: Arc<dyn Disk>, open_segments: usize) -> Self {
        Self {
            disk,
            open: Arc::new(OpenSegments::new(open_segments)),
        }
    }

    /// Sealed segments that are open now.
    pub fn open_segments(&self) -> usize {
        self.open.count()
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }
}
