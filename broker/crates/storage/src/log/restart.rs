//! Beginning again after an entry that this log does not hold, because the state machine already covers it.

use super::{Log, Writer};
use crate::cuts::Cuts;
use crate::entry::{Checkpoint, EntryId};
use crate::error::LogError;
use crate::format::{LOG, SNAPSHOT, SegmentId};
use crate::segment::{Active, remove_if_exists, remove_index};
use crate::state_file::LogState;

impl Log {
    /// Drops every entry and continues after `last`; the offset of the next record does not change. Durable on return.
    ///
    /// For a replica whose state machine is ahead of its log. A crash in between is finished by the next open.
    ///
    /// # Errors
    ///
    /// `IndexOutOfRange`: the log holds `last` or more; nothing happened. An error of the disk leaves the log `Failed`.
    pub fn restart_after(&self, last: EntryId) -> Result<(), LogError> {
        // The new front is this log's end, so that end must not be lost with unsynced entries.
        self.flush()?;
        let mut writer = self.writer.lock();
        self.restart_locked(&mut writer, last)
    }

    pub(super) fn restart_locked(&self, writer: &mut Writer, last: EntryId) -> Result<(), LogError> {
        let persisted = {
            let state = self.state.read();
            self.check_writable(&state)?;
            if last.index < state.next_index() {
                let (first, end) = (state.first_index(), state.next_index());
                return Err(LogError::IndexOutOfRange {
                    requested: last.index,
                    first,
                    end,
                });
            }
            let generation = state.persisted.generation + 1;
            let next_offset = state.end_offset();
            let segment = SegmentId {
                base_offset: next_offset,
                first_index: last.index + 1,
            };
            let cut = Checkpoint {
                generation,
                last: Some(last),
                next_offset,
                segment,
                position: 0,
            };
            LogState {
                log_start_offset: next_offset,
                purged: Some(last),
                generation,
                cuts: Cuts::only(cut),
                ..LogState::default()
            }
        };
        // From here on the old segments lie below the front and may go without looking like damage.
        self.write_state(&persisted)?;
        self.begin_again(writer, persisted).map_err(|e| self.fail(e))
    }

    fn begin_again(&self, writer: &mut Writer, persisted: LogState) -> Result<(), LogError> {
        let disk = &*self.cx.disk;
        let active = Active::create(&self.cx, &self.dir, persisted.front())?;
        disk.sync_dir(&self.dir)
            .map_err(|e| LogError::io("sync directory", &self.dir, e))?;
        let new = active.index.id;
        let removed: Vec<SegmentId> = {
            let mut guard = self.state.write();
            let state = &mut *guard;
            let mut removed: Vec<SegmentId> = state.sealed.drain(..).map(|s| s.id).collect();
            let old = std::mem::replace(&mut state.active, active);
            state.dirty.forget(&old.file);
            removed.push(old.index.id);
            state.heads.truncate(0);
            state.derived.epochs.truncate(0);
            state.persisted = persisted;
            if let Some(cut) = persisted.cuts.newest() {
                state.durable = cut;
            }
            state.assert_order();
            removed
        };
        for id in removed.into_iter().filter(|id| *id != new) {
            remove_if_exists(disk, &id.path(&self.dir, LOG))?;
            remove_index(disk, &self.dir, id)?;
            remove_if_exists(disk, &id.path(&self.dir, SNAPSHOT))?;
        }
        let manifest = self.state.read().manifest();
        self.save_manifest(writer, &manifest);
        Ok(())
    }
}
