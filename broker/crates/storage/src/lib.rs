//! A partition's log on disk.
//!
//! The log of record batches *is* the Raft log: one Raft entry is one Kafka v2 batch, byte for byte as a consumer
//! gets it, and hidden entries (`BatchHeader::is_hidden`) take no offset. [`Log`] appends, reads by offset
//! ([`Log::read`]: ranges of files, for `sendfile`) and by raft index ([`Log::entries`]), truncates, and recovers
//! what a crash left. Nothing here decides about replication, and nothing is asynchronous.
//!
//! Invariants:
//!
//! - `log_start_offset <= log_end_offset`, and what is durable is never more than what was written;
//! - base offsets are dense: each entry begins at the next offset of its predecessor; below the floor, where compaction
//!   has been, they ascend with holes, and segments say of themselves what cannot be counted any more (`cleaned.rs`);
//! - recovery cuts only what lies above the durable watermark, and saves it first (`log/recover.rs`);
//! - segment and state files are the truth; every other file can be deleted and is rebuilt.
//!
//! Start reading at `log/mod.rs`; file formats are in `format.rs`, `index.rs`, `snapshot.rs` and `state_file.rs`.

mod cleaned;
mod cuts;
mod data_dir;
mod dump;
mod entry;
mod epochs;
mod error;
mod flush;
mod format;
mod heads;
mod incoming;
mod index;
mod journal;
mod log;
mod manager;
mod metrics;
mod offset_map;
mod options;
mod producers;
mod segment;
mod snapshot;
mod state_file;
#[cfg(test)]
mod testing;
mod walk;
mod whole;

pub use self::data_dir::{DataDir, DataDirError, Expected, NodeMeta, read_node_meta};
pub use self::dump::{DumpItem, DumpedBatch, dump};
pub use self::entry::{
    Appended, Checkpoint, DamagedAt, Entry, EntryHead, EntryId, FileRange, FileRanges, LogEnd, LogStatus,
    NewEntry, PreviousStop,
};
pub use self::epochs::{EpochHistory, EpochStart};
pub use self::error::{Damage, LogError};
pub use self::flush::{FlushError, FlushPolicy, Flusher, Round, Synced};
pub use self::format::{NewerFormat, SegmentId};
pub use self::incoming::{CheckedCopy, Incoming};
pub use self::journal::{Change, Journal, JournalError, MAX_KEY_LEN, MAX_VALUE_LEN};
pub use self::log::{
    CleanLimits, CleanReport, CleanRules, CleanStep, Cleanable, CleanerStatus, Cleaning, Export, Finding,
    Log, LogStats, RecoveryAction, RecoveryReport, SegmentStats, SyncTarget, VerifyReport,
};
pub use self::manager::{LogManager, ManagerError, Replaced, parse_dir_name, partition_of_path};
pub use self::options::{LogOptions, StorageContext};
pub use self::producers::{BATCHES_PER_PRODUCER, Producer, ProducerBatch, ProducerTable};
