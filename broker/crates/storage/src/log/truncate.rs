//! Removing entries from the end.

use std::sync::Arc;

use takhin_runtime::disk::OpenMode;

use super::derive::derive;
use super::{Log, State, Writer};
use crate::entry::{Checkpoint, EntryId};
use crate::error::LogError;
use crate::format::{LOG, MANIFEST, SNAPSHOT, SegmentId};
use crate::index::SegmentIndex;
use crate::options::LogOptions;
use crate::segment::{Active, Sealed, open_segment, remove_if_exists, remove_index};
use crate::snapshot::Derived;
use crate::state_file::{LogState, SealedLen};
use crate::walk::Walk;

/// What a truncation is going to leave.
struct Cut {
    /// The new active segment, with its file still uncut.
    active: Active,
    derived: Derived,
    persisted: LogState,
    /// Whether something durable goes.
    lowers_watermark: bool,
    durable: Checkpoint,
}

impl Log {
    /// Removes every entry after `index` (all entries for `None`).
    ///
    /// The shorter log is durable on return. A checkpoint taken before the call stays safe to hand to `Log::open`: it
    /// is known not to hold above the cut. Readers must not depend on what is removed; Raft truncates only above
    /// the commit index.
    ///
    /// # Errors
    ///
    /// `TruncatePurged`, `IndexOutOfRange`, `OffsetOutOfRange`: the cut would reach below the purge point, the first
    /// held entry or the log start; nothing happened. An error of the disk leaves the log `Failed`.
    pub fn truncate_after(&self, index: Option<u64>) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        self.truncate_locked(&mut writer, index)
    }

    pub(super) fn truncate_locked(&self, writer: &mut Writer, index: Option<u64>) -> Result<(), LogError> {
        let options = self.options();
        let cut_index = index.map_or(0, |i| i + 1);
        let id = {
            let state = self.state.read();
            self.check_writable(&state)?;
            if cut_index >= state.next_index() {
                return Ok(());
            }
            check_cut(&state, cut_index)?;
            state.segment_of_index(cut_index)
        };
        let cut = self.plan_cut(id, cut_index, &options)?;
        if cut.lowers_watermark {
            // From here on older checkpoints are void above the cut, so that bytes may go without looking like damage.
            self.write_state(&cut.persisted)?;
        }
        let removed = self.install_cut(cut);
        self.remove_after_cut(&removed).map_err(|e| self.fail(e))?;
        let manifest = self.state.read().manifest();
        self.save_manifest(writer, &manifest);
        tracing::info!(dir = %self.dir.display(), next_index = cut_index, "truncated");
        Ok(())
    }

    fn plan_cut(&self, id: SegmentId, cut_index: u64, options: &LogOptions) -> Result<Cut, LogError> {
        let missing = || LogError::IndexOutOfRange {
            requested: cut_index,
            first: 0,
            end: cut_index,
        };
        let index = self
            .with_segment(id, |view| view.index.clone())?
            .ok_or_else(missing)?;
        let path = id.path(&self.dir, LOG);
        let file = open_segment(&*self.cx.disk, &path, OpenMode::Write)?;
        let index = cut_index_at(&path, &*file, index, cut_index, options)?;
        let (mut derived, producers_stay, persisted, durable, mut segments) = {
            let state = self.state.read();
            let segments: Vec<SealedLen> = state
                .sealed
                .iter()
                .filter(|s| s.id.first_index < id.first_index)
                .map(|s| SealedLen {
                    id: s.id,
                    bytes: s.bytes,
                })
                .collect();
            let stay = state.removes_no_producer(cut_index);
            (
                state.derived.clone(),
                stay,
                state.persisted,
                state.durable,
                segments,
            )
        };
        derived.epochs.truncate(cut_index);
        if !producers_stay {
            segments.push(SealedLen {
                id,
                bytes: index.bytes,
            });
            derived.producers = derive(&self.cx, &self.dir, options, &segments)?.producers;
        }
        let log_start = persisted.log_start_offset;
        if index.next_offset < log_start {
            let (requested, end) = (index.next_offset, index.next_offset);
            return Err(LogError::OffsetOutOfRange {
                requested,
                start: log_start,
                end,
            });
        }
        let active = Active { file, index };
        Ok(with_watermark(active, derived, persisted, durable))
    }

    /// Shows readers the shorter log; returns the segments whose files must go, last first.
    fn install_cut(&self, cut: Cut) -> Vec<SegmentId> {
        let mut guard = self.state.write();
        let state = &mut *guard;
        let id = cut.active.index.id;
        let mut removed = Vec::new();
        let old = std::mem::replace(&mut state.active, cut.active);
        state.dirty.forget(&old.file);
        if old.index.id != id {
            removed.push(old.index.id);
        }
        while state
            .sealed
            .last()
            .is_some_and(|s| s.id.first_index >= id.first_index)
        {
            let Some(sealed) = state.sealed.pop() else { break };
            if let Some(file) = Sealed::open_file(&sealed) {
                state.dirty.forget(&file);
            }
            if sealed.id != id {
                removed.push(sealed.id);
            }
        }
        state.heads.truncate(state.active.index.next_index);
        state.derived = cut.derived;
        state.persisted = cut.persisted;
        state.durable = cut.durable;
        state.cuts += 1;
        let file = state.active.file.clone();
        state.dirty.file(&file);
        state.dirty.names();
        state.assert_order();
        removed
    }

    /// Removes the files behind the cut, last first, then cuts the segment; durable on return.
    fn remove_after_cut(&self, removed: &[SegmentId]) -> Result<(), LogError> {
        let disk = &*self.cx.disk;
        let (file, id, bytes, at) = {
            let state = self.state.read();
            let index = &state.active.index;
            let at = SegmentId {
                base_offset: index.next_offset,
                first_index: index.next_index,
            };
            (Arc::clone(&state.active.file), index.id, index.bytes, at)
        };
        // The list would contradict what is written over the cut; a power loss must not bring it back.
        remove_if_exists(disk, &self.dir.join(MANIFEST))?;
        for id in removed {
            remove_if_exists(disk, &id.path(&self.dir, LOG))?;
            remove_index(disk, &self.dir, *id)?;
            remove_if_exists(disk, &id.path(&self.dir, SNAPSHOT))?;
        }
        // A snapshot at exactly this point would be right, but those of other points that end here are not: what a
        // clean close left at the old end goes with the rest.
        self.remove_snapshots_after(at)?;
        remove_index(disk, &self.dir, id)?;
        let path = id.path(&self.dir, LOG);
        file.set_len(bytes)
            .map_err(|e| LogError::io("truncate", &path, e))?;
        file.sync_data().map_err(|e| LogError::Io {
            operation: "sync",
            path,
            source: e,
        })?;
        disk.sync_dir(&self.dir)
            .map_err(|e| LogError::io("sync directory", &self.dir, e))
    }

    fn remove_snapshots_after(&self, at: SegmentId) -> Result<(), LogError> {
        let disk = &*self.cx.disk;
        let entries = disk
            .read_dir(&self.dir)
            .map_err(|e| LogError::io("list", &self.dir, e))?;
        for entry in entries {
            let snapshot = SegmentId::parse(&entry.name).filter(|(_, extension)| *extension == SNAPSHOT);
            if snapshot.is_some_and(|(id, _)| id.first_index > at.first_index) {
                remove_if_exists(disk, &self.dir.join(&entry.name))?;
            }
        }
        Ok(())
    }
}

impl State {
    /// The segment that holds the entry at `index`, which must lie within the log.
    pub(super) fn segment_of_index(&self, index: u64) -> SegmentId {
        if self.active.index.id.first_index <= index {
            return self.active.index.id;
        }
        let n = self.sealed.partition_point(|s| s.id.first_index <= index);
        self.sealed
            .get(n.saturating_sub(1))
            .map_or(self.active.index.id, |s| s.id)
    }

    /// Whether no entry from `cut_index` on belongs to a producer, as far as memory can tell.
    fn removes_no_producer(&self, cut_index: u64) -> bool {
        self.heads.first_index().is_some_and(|first| first <= cut_index)
            && self
                .heads
                .starting_at(cut_index)
                .all(|h| h.head.hidden || h.producer_id < 0)
    }
}

fn check_cut(state: &State, cut_index: u64) -> Result<(), LogError> {
    if let Some(purged) = state.persisted.purged.filter(|p| cut_index <= p.index) {
        return Err(LogError::TruncatePurged { purged: purged.index });
    }
    let first = state.first_index();
    if cut_index < first {
        return Err(LogError::IndexOutOfRange {
            requested: cut_index,
            first,
            end: state.next_index(),
        });
    }
    Ok(())
}

/// The index of a segment as it was before the entry at `cut_index`.
fn cut_index_at(
    path: &std::path::Path,
    file: &dyn takhin_runtime::disk::File,
    mut index: SegmentIndex,
    cut_index: u64,
    options: &LogOptions,
) -> Result<SegmentIndex, LogError> {
    let bytes = index.bytes;
    let floor = index.floor_index(cut_index);
    let anchor = index.rewind(floor.pos);
    let mut walk = Walk::new(file, path, anchor.pos..bytes, options.max_batch_bytes);
    while index.next_index < cut_index {
        match walk.next()? {
            Some(found) => index.note(&found.header, options.index_interval_bytes),
            None => break,
        }
    }
    Ok(index)
}

/// Completes a cut: what is durable of what it leaves, and whether older checkpoints must be lowered.
fn with_watermark(active: Active, derived: Derived, persisted: LogState, durable: Checkpoint) -> Cut {
    let index = &active.index;
    if durable.next_index() <= index.next_index {
        // No checkpoint of this generation reaches above the cut, so none has to be lowered.
        return Cut {
            active,
            derived,
            persisted,
            lowers_watermark: false,
            durable,
        };
    }
    let last = index.next_index.checked_sub(1).and_then(|i| {
        let held = derived.epochs.epoch_at(i).map(|term| EntryId { term, index: i });
        held.or_else(|| persisted.purged.filter(|p| p.index == i))
    });
    let generation = persisted.generation + 1;
    let durable = Checkpoint {
        generation,
        last,
        next_offset: index.next_offset,
        segment: index.id,
        position: index.bytes,
    };
    let persisted = LogState {
        generation,
        cuts: persisted.cuts.with(durable),
        ..persisted
    };
    Cut {
        active,
        derived,
        persisted,
        lowers_watermark: true,
        durable,
    }
}
