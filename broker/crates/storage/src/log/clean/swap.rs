//! A cleaned segment takes the place of those that it was made of.
//!
//! Sources `S1..Sk` become `N`, which begins where `S1` begins and therefore has its name:
//!
//! ```text
//! 1. state: the floor is the end of all that the pass will replace   durable; watermarks below it are void
//! 2. N.tmp written and synced                                        a crash leaves a .tmp, which recovery removes
//! 3. rename N.tmp to S1                                              the commit: one name, changed at once
//! 4. sync of the directory
//! 5. S2..Sk, their indexes and snapshots removed
//! ```
//!
//! The invariant: **at every moment the names in the directory are those of one valid log.** Before 3 it is the old one,
//! after 3 the new one, and which of them a power loss leaves is the same to anybody, since everything in both is durable
//! and acknowledged records that only `S1` had were replaced by later ones of the same key. `N` says in its mark where it
//! ends, so that after 3 recovery knows `S2..Sk` for leftovers and finishes 5. No name of them goes before 4 is done, or
//! a power loss could keep their removal and forget the rename.
//!
//! All changes of names are made under the writer's lock, by a log that has not failed: one that has may be open again
//! elsewhere.

use std::sync::Arc;

use super::Candidate;
use super::output::Output;
use crate::entry::Checkpoint;
use crate::epochs::EpochStart;
use crate::error::LogError;
use crate::format::{LOG, SegmentId};
use crate::index::SegmentIndex;
use crate::log::{Log, sync_failed};
use crate::metrics::METRICS;
use crate::segment::{Sealed, remove_segment, save_index};
use crate::state_file::LogState;

impl Log {
    /// Makes everything below `end`, where a segment begins, durable and says so in the state.
    pub(super) fn raise_floor(&self, end: SegmentId) -> Result<(), LogError> {
        self.flush()?;
        let _writer = self.writer.lock();
        let persisted = {
            let state = self.state.read();
            self.check_writable(&state)?;
            if state.persisted.floor_index() >= end.first_index {
                return Ok(());
            }
            let last = end.first_index.checked_sub(1).and_then(|index| {
                let term = state.derived.epochs.epoch_at(index)?;
                Some(crate::entry::EntryId { term, index })
            });
            let floor = Checkpoint {
                generation: state.persisted.generation,
                last,
                next_offset: end.base_offset,
                segment: end,
                position: 0,
            };
            LogState {
                floor: Some(floor),
                ..state.persisted
            }
        };
        self.write_state(&persisted).map_err(|e| self.names_lost(e))?;
        let mut state = self.state.write();
        state.persisted = persisted;
        if let Some(floor) = persisted
            .floor
            .filter(|f| f.next_index() >= state.durable.next_index())
        {
            state.durable = floor;
        }
        Ok(())
    }

    /// Writes down that a pass has looked at everything below `offset`; durable on return.
    pub(super) fn set_first_dirty(&self, offset: i64) -> Result<(), LogError> {
        let _writer = self.writer.lock();
        let persisted = {
            let state = self.state.read();
            self.check_writable(&state)?;
            LogState {
                first_dirty: offset,
                ..state.persisted
            }
        };
        self.write_state(&persisted).map_err(|e| self.names_lost(e))?;
        self.state.write().persisted = persisted;
        Ok(())
    }

    /// Begins the new segment for what lies between `id` and `end`.
    pub(super) fn create_output(&self, id: SegmentId, end: SegmentId) -> Result<Output, LogError> {
        let epochs = self.epochs_within(id, end);
        Output::create(&*self.cx.disk, &self.dir, id, end, epochs, &self.options())
    }

    /// Where leader epochs begin in `id..end`, with that of the first entry as if it began there.
    fn epochs_within(&self, id: SegmentId, end: SegmentId) -> Vec<EpochStart> {
        let state = self.state.read();
        let starts = state.derived.epochs.starts();
        let from = starts.partition_point(|s| s.first_index <= id.first_index);
        let to = starts.partition_point(|s| s.first_index < end.first_index);
        let covering = from.checked_sub(1).map(|i| EpochStart {
            epoch: starts[i].epoch,
            first_index: id.first_index,
            first_offset: id.base_offset,
        });
        covering
            .into_iter()
            .chain(starts[from..to.max(from)].iter().copied())
            .collect()
    }

    /// Whether these segments are still part of the log, one after the other.
    pub(super) fn holds(&self, sources: &[Arc<Sealed>]) -> bool {
        self.state.read().place_of(sources).is_some()
    }

    /// Puts the finished output in the place of `sources`; `false` if they are not part of the log any more.
    pub(super) fn swap(&self, sources: &[Candidate], output: &Output) -> Result<bool, LogError> {
        let old: Vec<Arc<Sealed>> = sources.iter().map(|s| Arc::clone(&s.sealed)).collect();
        if !self.put_in_place(&old, output)? {
            return Ok(false);
        }
        METRICS.segments_cleaned.add(old.len() as u64);
        self.sync_names()?;
        let _writer = self.writer.lock();
        self.check_writable(&self.state.read())?;
        for gone in &old[1..] {
            remove_segment(&*self.cx.disk, &self.dir, gone.id)?;
        }
        if let Err(error) = save_index(&self.cx, &self.dir, &output.index) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot keep the index of a cleaned segment");
        }
        Ok(true)
    }

    /// The rename, and what readers see from then on.
    fn put_in_place(&self, old: &[Arc<Sealed>], output: &Output) -> Result<bool, LogError> {
        let _writer = self.writer.lock();
        {
            let state = self.state.read();
            self.check_writable(&state)?;
            if state.place_of(old).is_none() {
                return Ok(false);
            }
        }
        // From here on a reader that fails to open one of them waits for this to end, and looks again.
        old.iter().for_each(|sealed| sealed.retire(true));
        let path = output.id.path(&self.dir, LOG);
        if let Err(error) = self.cx.disk.rename(&output.path, &path) {
            old.iter().for_each(|sealed| sealed.retire(false));
            return Err(LogError::io("rename", &output.path, error));
        }
        let index: SegmentIndex = output.index.clone();
        let new = Sealed::from_open(&self.cx, Arc::clone(&output.file), index);
        let mut guard = self.state.write();
        let state = &mut *guard;
        if let Some(place) = state.place_of(old) {
            state.sealed.splice(place..place + old.len(), [new]);
        }
        for file in old.iter().filter_map(Sealed::open_file) {
            state.dirty.forget(&file);
        }
        state.swaps += 1;
        Ok(true)
    }

    /// Makes the names in the directory durable; a failure fails the log, as that of any sync does.
    fn sync_names(&self) -> Result<(), LogError> {
        let synced = self.cx.disk.sync_dir(&self.dir);
        synced.map_err(|source| {
            self.names_lost(LogError::Io {
                operation: "sync directory",
                path: self.dir.clone(),
                source,
            })
        })
    }

    /// After a failed sync of the directory any name that changed lately may never become durable: the log has failed.
    fn names_lost(&self, error: LogError) -> LogError {
        let of_directory = match &error {
            LogError::Io { operation, .. } => *operation == "sync directory",
            LogError::Full { path } => *path == self.dir,
            _ => false,
        };
        if !of_directory {
            return error;
        }
        let error = self.fail(error);
        if let Err(error) = sync_failed::note(&*self.cx.disk, &self.dir, &self.checkpoint()) {
            tracing::error!(dir = %self.dir.display(), %error, "the failed sync cannot be noted");
        }
        error
    }
}

impl crate::log::State {
    /// Where in the list of sealed segments these are, one after the other.
    fn place_of(&self, segments: &[Arc<Sealed>]) -> Option<usize> {
        let first = segments.first()?;
        let place = self
            .sealed
            .binary_search_by_key(&first.id.first_index, |s| s.id.first_index)
            .ok()?;
        let held = self.sealed.get(place..place + segments.len())?;
        let same = held.iter().zip(segments).all(|(held, s)| Arc::ptr_eq(held, s));
        same.then_some(place)
    }
}
