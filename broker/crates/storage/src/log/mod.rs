//! A partition's log: one writer at a time, many readers.
//!
//! Lock order: `writer`, then `state`. The writer's lock is held across system calls and only writers take it;
//! `state` is held for lookups in memory only, so that a reader never waits for a write to the disk.

mod append;
mod clean;
mod derive;
mod entries;
mod export;
mod open;
mod quarantine;
mod read;
mod recover;
mod restart;
mod retain;
mod roll;
mod scan;
mod settle;
mod sync;
mod sync_failed;
mod time;
mod truncate;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use takhin_protocol::record::HEADER_LEN;

pub use self::clean::{CleanLimits, CleanReport, CleanRules, CleanStep, Cleanable, CleanerStatus, Cleaning};
pub use self::export::Export;
pub use self::recover::{RecoveryAction, RecoveryReport};
pub use self::retain::{LogStats, SegmentStats};
pub(crate) use self::scan::check_copied;
pub use self::sync::SyncTarget;
pub use self::verify::{Finding, VerifyReport};
use crate::entry::{Checkpoint, EntryId, LogEnd, LogStatus};
use crate::epochs::{EpochHistory, EpochStart};
use crate::error::LogError;
use crate::format::{Kind, STATE, SegmentId};
use crate::heads::HeadRing;
use crate::metrics::METRICS;
use crate::options::{LogOptions, StorageContext};
use crate::producers::ProducerTable;
use crate::segment::{Active, Opened, Sealed};
use crate::snapshot::Derived;
use crate::state_file::LogState;
use crate::whole;

/// A partition's log on disk.
#[derive(Debug)]
pub struct Log {
    cx: StorageContext,
    dir: PathBuf,
    options: RwLock<LogOptions>,
    writer: Mutex<Writer>,
    state: RwLock<State>,
    cleaner: Mutex<CleanerStatus>,
}

/// What only writers use.
#[derive(Debug, Default)]
struct Writer {
    headers: Vec<[u8; HEADER_LEN]>,
    rolls_since_manifest: usize,
}

/// Where the log begins and ends, and everything that is known without reading it.
#[derive(Debug)]
struct State {
    status: LogStatus,
    persisted: LogState,
    /// Ascending; each ends where the next begins.
    sealed: Vec<Arc<Sealed>>,
    active: Active,
    derived: Derived,
    heads: HeadRing,
    durable: Checkpoint,
    /// Counts replacements of segments in this run: a look at several of them may have mixed old and new.
    swaps: u64,
    /// Counts truncations of this run, so that a sync that began before one cannot raise the watermark.
    cuts: u64,
    dirty: sync::Dirty,
}

impl State {
    fn next_index(&self) -> u64 {
        self.active.index.next_index
    }

    fn end_offset(&self) -> i64 {
        self.active.index.next_offset
    }

    fn first_index(&self) -> u64 {
        self.sealed
            .first()
            .map_or(self.active.index.id.first_index, |s| s.id.first_index)
    }

    /// The first entry that can be found by index: below the floor they cannot be counted.
    fn first_entry(&self) -> u64 {
        self.first_index().max(self.persisted.floor_index())
    }

    /// The last entry: held, or purged, or none.
    fn last(&self) -> Option<EntryId> {
        let index = self.next_index().checked_sub(1)?;
        let purged = self.persisted.purged.filter(|p| p.index >= index);
        purged.or_else(|| {
            self.derived
                .epochs
                .epoch_at(index)
                .map(|term| EntryId { term, index })
        })
    }

    /// Where the segment after the `i`th sealed one begins.
    fn after_sealed(&self, i: usize) -> SegmentId {
        self.sealed.get(i + 1).map_or(self.active.index.id, |s| s.id)
    }

    /// The watermark of everything written so far.
    fn end_checkpoint(&self) -> Checkpoint {
        Checkpoint {
            generation: self.persisted.generation,
            last: self.last(),
            next_offset: self.end_offset(),
            segment: self.active.index.id,
            position: self.active.index.bytes,
        }
    }

    /// `log_start_offset <= log_end_offset`; the other two watermarks between them are the cluster's.
    fn assert_order(&self) {
        assert!(
            self.persisted.log_start_offset <= self.end_offset(),
            "the log start passed the log end"
        );
        assert!(
            self.durable.next_index() <= self.next_index(),
            "more is durable than was written"
        );
    }
}

impl Log {
    /// Where the log begins and ends.
    pub fn end(&self) -> LogEnd {
        let state = self.state.read();
        LogEnd {
            log_start_offset: state.persisted.log_start_offset,
            log_end_offset: state.end_offset(),
            first_index: state.first_entry(),
            last: state.last(),
            purged: state.persisted.purged,
        }
    }

    /// Whether the log takes appends.
    pub fn status(&self) -> LogStatus {
        self.state.read().status.clone()
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The current settings.
    pub fn options(&self) -> LogOptions {
        *self.options.read()
    }

    /// Replaces the settings; existing segments stay as they are.
    pub fn set_options(&self, options: LogOptions) {
        *self.options.write() = options;
    }

    /// The newest durable watermark, to be stored in the node's journal.
    pub fn checkpoint(&self) -> Checkpoint {
        self.state.read().durable
    }

    /// The largest epoch at or below `epoch` that this log knows, and its end offset, exclusive.
    ///
    /// Answers OffsetForLeaderEpoch (KIP-320); `None` for an epoch above all known ones.
    pub fn end_offset_for(&self, epoch: u32) -> Option<(u32, i64)> {
        let state = self.state.read();
        state.derived.epochs.end_offset_for(epoch, state.end_offset())
    }

    /// Each term with the raft index of its first entry, ascending.
    pub fn term_starts(&self) -> Vec<(u32, u64)> {
        let state = self.state.read();
        state
            .derived
            .epochs
            .starts()
            .iter()
            .map(|s| (s.epoch, s.first_index))
            .collect()
    }

    /// All leader epochs with where they began, ascending.
    pub fn epochs(&self) -> Vec<EpochStart> {
        self.state.read().derived.epochs.starts().to_vec()
    }

    /// The epoch history as a value.
    pub fn epoch_history(&self) -> EpochHistory {
        self.state.read().derived.epochs.clone()
    }

    /// A copy of what is known of producers at the log's end.
    pub fn producers(&self) -> ProducerTable {
        self.state.read().derived.producers.clone()
    }

    /// Looks at the producers at the log's end without copying them; `look` must be short.
    pub fn with_producers<R>(&self, look: impl FnOnce(&ProducerTable) -> R) -> R {
        look(&self.state.read().derived.producers)
    }

    /// Forgets producers without an open transaction whose last batch is from before `oldest_ms`, in milliseconds of
    /// record time.
    pub fn expire_producers(&self, oldest_ms: i64) {
        self.state.write().derived.producers.expire(oldest_ms);
    }

    /// Writes the log's own state; durable on return.
    fn write_state(&self, state: &LogState) -> Result<(), LogError> {
        whole::write_durable(
            &*self.cx.disk,
            &self.dir.join(STATE),
            Kind::State,
            &state.encode(),
        )
    }

    /// Marks the log failed, once, and returns the error to hand on.
    fn fail(&self, error: LogError) -> LogError {
        let mut state = self.state.write();
        if state.status == LogStatus::Ready {
            tracing::error!(dir = %self.dir.display(), %error, "log failed");
            METRICS.logs_failed.add(1);
            let reason = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            state.status = LogStatus::Failed { reason };
        }
        error
    }

    /// Refuses unless the log takes appends.
    fn check_writable(&self, state: &State) -> Result<(), LogError> {
        match &state.status {
            LogStatus::Ready => Ok(()),
            LogStatus::Failed { reason } => Err(LogError::Failed {
                dir: self.dir.clone(),
                reason: reason.clone(),
            }),
            LogStatus::Damaged(at) => Err(at.error()),
        }
    }

    /// Calls `look` with the segment that begins at `id`: under the short lock if it is the active one, opened if
    /// it is sealed. `None` if there is no such segment (any more).
    fn with_segment<R>(
        &self,
        id: SegmentId,
        look: impl FnOnce(View<'_>) -> R,
    ) -> Result<Option<R>, LogError> {
        let opened: Arc<Opened> = loop {
            let (sealed, next) = {
                let state = self.state.read();
                if state.active.index.id == id {
                    let view = View {
                        file: &state.active.file,
                        index: &state.active.index,
                        heads: Some(&state.heads),
                    };
                    return Ok(Some(look(view)));
                }
                let Ok(i) = state
                    .sealed
                    .binary_search_by_key(&id.first_index, |s| s.id.first_index)
                else {
                    return Ok(None);
                };
                (state.sealed[i].clone(), state.after_sealed(i))
            };
            match sealed.open(&self.cx, &self.dir, &self.options(), next) {
                // Replaced between the look-up and the open: once that is over, there is another one to open.
                Err(_) if sealed.is_retired() => drop(self.writer.lock()),
                opened => break opened?,
            }
        };
        Ok(Some(look(View {
            file: &opened.file,
            index: &opened.index,
            heads: None,
        })))
    }

    /// What `look` finds while no segment is replaced; it is called again when one was. For looks at several segments.
    fn undisturbed<R>(&self, look: impl Fn() -> Result<R, LogError>) -> Result<R, LogError> {
        loop {
            let before = self.state.read().swaps;
            let found = look();
            if self.state.read().swaps == before {
                return found;
            }
        }
    }

    /// All segments from the one that holds raft index `index` on.
    fn segments_from_index(&self, index: u64) -> Vec<SegmentId> {
        let state = self.state.read();
        let skip = state
            .sealed
            .partition_point(|s| s.id.first_index <= index)
            .saturating_sub(1);
        let mut ids: Vec<SegmentId> = state.sealed[skip..].iter().map(|s| s.id).collect();
        if ids
            .first()
            .is_some_and(|_| state.active.index.id.first_index <= index)
        {
            ids.clear();
        }
        ids.push(state.active.index.id);
        ids
    }
}

/// A segment as a reader sees it at one moment.
struct View<'a> {
    file: &'a Arc<dyn takhin_runtime::disk::File>,
    index: &'a crate::index::SegmentIndex,
    /// The recent heads, for the active segment.
    heads: Option<&'a HeadRing>,
}

#[cfg(test)]
mod tests;
