//! A copy of another replica's log on its way in.
//!
//! It is built in a directory beside the log's (`<log>.incoming`), checked and made durable there, and then takes the
//! log's place:
//!
//! ```text
//! write ... ─▶ check: checksums, continuity, indexes, state file, all synced ─▶ install: `installed` appears
//! take_in:  forget the old log's watermark ─▶ log aside ─▶ incoming becomes the log ─▶ old log deleted
//! ```
//! Invariant: until `installed` is durable the old log is the log; from then on the incoming one is, whatever crash comes
//! between the steps of `take_in`, all of which can be repeated.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use takhin_runtime::disk::{File, OpenMode};

use crate::cuts::Cuts;
use crate::entry::{Checkpoint, EntryId};
use crate::error::LogError;
use crate::format::{INSTALLED, Kind, LOG, SNAPSHOT, STATE, SegmentId};
use crate::log::{Export, check_copied};
use crate::options::{LogOptions, StorageContext};
use crate::segment::{Active, save_index};
use crate::state_file::{LogState, SealedLen};
use crate::whole;

/// Extension of the directory.
pub(crate) const INCOMING: &str = "incoming";

/// A copy that is being received.
#[derive(Debug)]
pub struct Incoming {
    cx: StorageContext,
    dir: PathBuf,
    export: Export,
    /// The segment that is being written, and where.
    at: (usize, u64),
    file: Option<Arc<dyn File>>,
}

impl Incoming {
    /// Begins with an empty directory; what an earlier attempt left there goes.
    pub(crate) fn begin(cx: &StorageContext, dir: PathBuf, export: Export) -> Result<Self, LogError> {
        let disk = &*cx.disk;
        let io = |what, e| LogError::io(what, &dir, e);
        if disk.exists(&dir).map_err(|e| io("look for", e))? {
            disk.remove_dir_all(&dir).map_err(|e| io("remove", e))?;
        }
        disk.create_dir_all(&dir).map_err(|e| io("create", e))?;
        Ok(Self {
            cx: cx.clone(),
            dir,
            export,
            at: (0, 0),
            file: None,
        })
    }

    /// What it is a copy of.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Takes the next bytes of segment file `segment`, which must begin at `pos`: files come in order, whole.
    ///
    /// # Errors
    ///
    /// `Unexpected`: other bytes are next. `Io`, `Full`: the disk.
    pub fn write(&mut self, segment: usize, pos: u64, bytes: &[u8]) -> Result<(), LogError> {
        self.skip_complete()?;
        let expected = self.export.segments.get(self.at.0);
        let fits = |s: &&SealedLen| (segment, pos) == self.at && bytes.len() as u64 <= s.bytes - pos;
        let Some(id) = expected.filter(fits).map(|s| s.id) else {
            return Err(LogError::Unexpected {
                dir: self.dir.clone(),
                segment: self.at.0,
                position: self.at.1,
            });
        };
        let path = id.path(&self.dir, LOG);
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => self.create(&path)?,
        };
        file.write_at(&mut [IoSlice::new(bytes)], pos)
            .map_err(|e| LogError::io("write", &path, e))?;
        self.at.1 += bytes.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    /// Steps over the end of a complete file.
    fn skip_complete(&mut self) -> Result<(), LogError> {
        while let Some(segment) = self.export.segments.get(self.at.0).copied() {
            if self.at.1 < segment.bytes {
                break;
            }
            let path = segment.id.path(&self.dir, LOG);
            let file = match self.file.take() {
                Some(file) => file,
                None => self.create(&path)?,
            };
            file.sync_data().map_err(|e| LogError::io("sync", &path, e))?;
            self.at = (self.at.0 + 1, 0);
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn File>, LogError> {
        let opened = self.cx.disk.open(path, OpenMode::CreateOrWrite);
        opened.map_err(|e| LogError::io("create", path, e))
    }

    /// Checks the copy and makes it durable; the old log is the log still. `generation` must be above the old log's.
    ///
    /// # Errors
    ///
    /// `Unexpected`: something is missing. `Corrupt`: the copy is damaged, or mixed from before and after a compaction.
    /// `Io`, `Full`: the disk.
    pub fn check(mut self, options: &LogOptions, generation: u64) -> Result<CheckedCopy, LogError> {
        self.skip_complete()?;
        if self.at.0 != self.export.segments.len() {
            return Err(LogError::Unexpected {
                dir: self.dir,
                segment: self.at.0,
                position: self.at.1,
            });
        }
        self.check_segments(options)?;
        let (disk, end) = (&*self.cx.disk, self.export.end);
        let snapshot = end.path(&self.dir, SNAPSHOT);
        if !self.export.derived.is_empty() {
            whole::write_durable(disk, &snapshot, Kind::Snapshot, &self.export.derived)?;
        }
        Active::create(&self.cx, &self.dir, end)?;
        let state = self.state(generation).encode();
        whole::write_durable(disk, &self.dir.join(STATE), Kind::State, &state)?;
        let parent = self.dir.parent().unwrap_or(&self.dir);
        disk.sync_dir(parent)
            .map_err(|e| LogError::io("sync directory", parent, e))?;
        Ok(CheckedCopy {
            cx: self.cx,
            dir: self.dir,
            last: self.export.last,
        })
    }

    /// Each segment must be valid throughout and end where the next one begins.
    fn check_segments(&self, options: &LogOptions) -> Result<(), LogError> {
        let mut ids: Vec<SegmentId> = self.export.segments.iter().map(|s| s.id).collect();
        ids.push(self.export.end);
        let mut epoch = 0;
        for (segment, next) in self.export.segments.iter().zip(&ids[1..]) {
            let (index, last) = check_copied(&self.cx, &self.dir, *segment, *next, epoch, options)?;
            save_index(&self.cx, &self.dir, &index)?;
            epoch = last;
        }
        Ok(())
    }

    fn state(&self, generation: u64) -> LogState {
        let Export { last, end, .. } = self.export;
        let begins = Checkpoint {
            generation,
            last: Some(last),
            next_offset: end.base_offset,
            segment: end,
            position: 0,
        };
        LogState {
            log_start_offset: self.export.log_start_offset,
            purged: Some(last),
            generation,
            cuts: Cuts::only(begins),
            // Entries of the copy cannot be told by index: the leader may have compacted them.
            floor: Some(begins),
            first_dirty: self.export.first_dirty,
        }
    }
}

/// A copy that is whole and durable, and could take the log's place: see [`crate::LogManager::replace`].
#[derive(Debug)]
pub struct CheckedCopy {
    cx: StorageContext,
    pub(crate) dir: PathBuf,
    last: EntryId,
}

impl CheckedCopy {
    /// The last entry that it covers.
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// Makes it the log from the next open on.
    pub(crate) fn install(self, note: &[u8]) -> Result<(), LogError> {
        let installed = self.dir.join(INSTALLED);
        whole::write_durable(&*self.cx.disk, &installed, Kind::Installed, note)
    }

    pub(crate) fn discard(self) -> Result<(), LogError> {
        let removed = self.cx.disk.remove_dir_all(&self.dir);
        removed.map_err(|e| LogError::io("remove", &self.dir, e))
    }
}
