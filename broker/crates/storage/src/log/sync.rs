//! What must be synced, and what is durable once it was.

use std::path::PathBuf;
use std::sync::Arc;

use takhin_runtime::disk::{Disk, File};

use super::{Log, sync_failed};
use crate::entry::Checkpoint;
use crate::error::LogError;

/// Files with unsynced bytes. A file stays here until a sync that began after its last write has succeeded.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    files: Vec<Arc<dyn File>>,
    /// Taken by a sync that has not ended; a second sync that begins meanwhile must cover them too.
    in_flight: Vec<Arc<dyn File>>,
    names: bool,
    names_in_flight: bool,
}

impl Dirty {
    /// Bytes were written to `file`.
    pub(super) fn file(&mut self, file: &Arc<dyn File>) {
        if !self.files.iter().rev().any(|f| Arc::ptr_eq(f, file)) {
            self.files.push(file.clone());
        }
    }

    /// Names in the directory changed.
    pub(super) fn names(&mut self) {
        self.names = true;
    }

    /// Forgets a file that is going away.
    pub(super) fn forget(&mut self, file: &Arc<dyn File>) {
        self.files.retain(|f| !Arc::ptr_eq(f, file));
        self.in_flight.retain(|f| !Arc::ptr_eq(f, file));
    }
}

/// Everything that one log needs synced, and the watermark it then has.
#[derive(Debug)]
pub struct SyncTarget {
    files: Vec<Arc<dyn File>>,
    dir: Option<PathBuf>,
    end: Checkpoint,
    cuts: u64,
}

impl SyncTarget {
    /// Files to sync.
    pub fn files(&self) -> &[Arc<dyn File>] {
        &self.files
    }

    /// The directory to sync after the files, if names changed.
    pub fn dir(&self) -> Option<&std::path::Path> {
        self.dir.as_deref()
    }

    /// Whether everything is durable already.
    pub fn is_clean(&self) -> bool {
        self.files.is_empty() && self.dir.is_none()
    }

    /// Syncs the files, then the directory. Never called again after it failed.
    pub fn sync(&self, disk: &dyn Disk) -> std::io::Result<()> {
        for file in &self.files {
            file.sync_data()?;
        }
        self.dir.as_ref().map_or(Ok(()), |dir| disk.sync_dir(dir))
    }
}

impl Log {
    /// What a sync that begins now must cover. Must be followed by [`Log::sync_finished`].
    ///
    /// # Errors
    ///
    /// `Failed` or `Damaged`: what such a log wrote cannot be made durable any more.
    pub fn sync_target(&self) -> Result<SyncTarget, LogError> {
        let mut guard = self.state.write();
        let state = &mut *guard;
        self.check_writable(state)?;
        let end = state.end_checkpoint();
        let dirty = &mut state.dirty;
        for file in dirty.files.drain(..) {
            if !dirty.in_flight.iter().any(|f| Arc::ptr_eq(f, &file)) {
                dirty.in_flight.push(file);
            }
        }
        dirty.names_in_flight |= std::mem::take(&mut dirty.names);
        let dir = dirty.names_in_flight.then(|| self.dir.clone());
        Ok(SyncTarget {
            files: dirty.in_flight.clone(),
            dir,
            end,
            cuts: state.cuts,
        })
    }

    /// Takes note of how a sync of `target` ended; success advances the durable watermark.
    ///
    /// # Errors
    ///
    /// A failed sync fails the log for good (nothing may be assumed about the disk, and a retry proves nothing).
    pub fn sync_finished(
        &self,
        target: &SyncTarget,
        result: std::io::Result<()>,
    ) -> Result<Checkpoint, LogError> {
        if let Err(source) = result {
            // Not `LogError::io`: a full disk at sync time has lost bytes too and is no `Full`.
            let error = LogError::Io {
                operation: "sync",
                path: self.dir.clone(),
                source,
            };
            let error = self.fail(error);
            // Nothing more can be done about a disk that takes not even this.
            if let Err(error) = sync_failed::note(&*self.cx.disk, &self.dir, &self.checkpoint()) {
                tracing::error!(
                    dir = %self.dir.display(), %error,
                    "the failed sync cannot be noted; do not kill this process before the log is open again"
                );
            }
            return Err(error);
        }
        let mut guard = self.state.write();
        let state = &mut *guard;
        self.check_writable(state)?;
        state
            .dirty
            .in_flight
            .retain(|f| !target.files.iter().any(|t| Arc::ptr_eq(f, t)));
        if target.dir.is_some() {
            state.dirty.names_in_flight = false;
        }
        // After a truncation the bytes that this sync covered may not be the log's any more.
        if target.cuts == state.cuts && target.end.next_index() >= state.durable.next_index() {
            state.durable = target.end;
        }
        state.assert_order();
        Ok(state.durable)
    }

    /// Bytes above the durable watermark: what a sync that begins now would have to write, at most.
    pub fn unsynced_bytes(&self) -> u64 {
        let state = self.state.read();
        let sealed = state.sealed.iter().rev();
        let unsynced_sealed = sealed.take_while(|segment| segment.id >= state.durable.segment);
        let bytes = unsynced_sealed.map(|segment| segment.bytes).sum::<u64>() + state.active.index.bytes;
        bytes.saturating_sub(state.durable.position)
    }

    /// Makes everything appended so far durable, on this thread; returns the new watermark.
    ///
    /// Flush rounds do this for many logs at once; this is for the few callers that must wait for one log.
    pub fn flush(&self) -> Result<Checkpoint, LogError> {
        let target = self.sync_target()?;
        self.sync_finished(&target, target.sync(&*self.cx.disk))
    }
}
