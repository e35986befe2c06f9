//! Opening and closing.

use std::path::Path;

use parking_lot::{Mutex, RwLock};
use takhin_runtime::disk::{Disk, OpenMode};

use super::derive::{derive, load_snapshot};
use super::recover::{Recovered, Recovery, RecoveryAction, RecoveryReport};
use super::sync::Dirty;
use super::{Log, State, Writer, sync_failed};
use crate::cleaned::Mark;
use crate::entry::{Checkpoint, EntryId, LogStatus, PreviousStop};
use crate::error::LogError;
use crate::format::{
    DELETED, FrameError, INDEX, Kind, LOG, MANIFEST, SNAPSHOT, STATE, SYNC_FAILED, SegmentId, TIME_INDEX, TMP,
};
use crate::heads::HeadRing;
use crate::options::{LogOptions, StorageContext};
use crate::segment::{Active, Sealed, open_segment, remove_if_exists, remove_index, remove_segment};
use crate::snapshot::Derived;
use crate::state_file::{LogState, Manifest, SealedLen};
use crate::whole::{self, Found};

/// The names in a log's directory.
struct Listing {
    /// Ascending.
    segments: Vec<SealedLen>,
    /// Where snapshots were taken.
    snapshots: Vec<SegmentId>,
    /// Segments that have an index file.
    indexes: Vec<SegmentId>,
    /// Leftovers of interrupted operations.
    leftovers: Vec<String>,
    /// Whether there is a note that a sync failed.
    sync_failed: bool,
}

impl Log {
    /// Whether a sync of the log in `dir` failed in this boot, and it has not been opened since.
    pub(crate) fn sync_has_failed(disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
        Ok(sync_failed::noted(disk, dir)?.is_some())
    }

    /// Opens the log in `dir`, creating it if neither the directory nor `checkpoint` knows of one.
    ///
    /// `checkpoint` is the newest durable watermark that the caller stored. See [`crate::RecoveryReport`] for what
    /// recovery may do. After a clean stop no segment is read.
    ///
    /// # Errors
    ///
    /// `StateUnreadable`: the log's state file is missing or damaged; the replica must be rebuilt. Damage of segments
    /// is not an error: the log opens with [`LogStatus::Damaged`]. `Io`, `Full`: the disk; opening may be tried again.
    pub fn open(
        cx: &StorageContext,
        dir: &Path,
        options: LogOptions,
        checkpoint: Option<Checkpoint>,
        previous: PreviousStop,
    ) -> Result<(Self, RecoveryReport), LogError> {
        let options = bounded(options);
        let disk = &*cx.disk;
        disk.create_dir_all(dir)
            .map_err(|e| LogError::io("create", dir, e))?;
        let mut report = RecoveryReport::default();
        let mut listing = list(cx, dir)?;
        for name in listing.leftovers.drain(..) {
            let file = dir.join(name);
            remove_if_exists(disk, &file)?;
            report.actions.push(RecoveryAction::Removed { file });
        }
        let persisted = load_state(cx, dir, &listing, checkpoint)?;
        let noted = match listing.sync_failed {
            true => sync_failed::noted(disk, dir)?,
            false => None,
        };
        let (checkpoint, previous) = match noted {
            // Never older than what the caller stored: nothing became durable after the failure.
            Some(durable) => (Some(durable), PreviousStop::Failed),
            None => (checkpoint, previous),
        };
        let watermark = effective(checkpoint, &persisted);
        drop_replaced(cx, dir, &persisted, &mut listing.segments, &mut report)?;
        drop_below_front(cx, dir, &persisted, &mut listing.segments, &mut report)?;
        let mut recovery = Recovery {
            cx,
            dir,
            options,
            previous,
            watermark,
            manifest: load_manifest(cx, dir, persisted.generation)?,
            persisted,
            report,
        };
        if listing.segments.is_empty() && watermark.is_none() {
            let active = Active::create(cx, dir, persisted.front())?;
            disk.sync_dir(dir)
                .map_err(|e| LogError::io("sync directory", dir, e))?;
            listing.segments.push(SealedLen {
                id: active.index.id,
                bytes: 0,
            });
        }
        let (purged, persisted_end) = (recovery.persisted.purged, recovery.persisted.purged_end());
        let recovered = recovery.run(listing.segments)?;
        let report = std::mem::take(&mut recovery.report);
        if recovered.damaged.is_none() {
            recovery.remove_strays(&listing.snapshots, &listing.indexes, &recovered)?;
        }
        let log = Self::assemble(&recovery, recovered)?;
        let behind = log.end().last.is_none_or(|last| last.index + 1 < persisted_end);
        if let (Some(last), true, true) = (purged, behind, log.status() == LogStatus::Ready) {
            // A crash came between the decision to begin again and the new segment.
            log.restart_locked(&mut Writer::default(), last)?;
        }
        if listing.sync_failed {
            sync_failed::settle(disk, dir)?;
        }
        log.settle(previous)?;
        Ok((log, report))
    }

    fn assemble(recovery: &Recovery<'_>, recovered: Recovered) -> Result<Self, LogError> {
        let Recovery {
            cx,
            dir,
            options,
            persisted,
            ..
        } = recovery;
        let Recovered {
            sealed,
            active,
            damaged,
        } = recovered;
        let end = active.index.end();
        let derived = match load_snapshot(cx, dir, end)? {
            Some(derived) => derived,
            None => {
                let mut segments = sealed.clone();
                segments.push(SealedLen {
                    id: active.index.id,
                    bytes: active.index.bytes,
                });
                derive(cx, dir, options, &segments)?
            }
        };
        let first = sealed.first().map_or(active.index.id, |s| s.id);
        let durable = recovery.durable(first, &derived);
        let dirty = recovery.unsynced(&sealed, &active, &durable, damaged.is_some())?;
        let mut state = State {
            status: damaged.map_or(LogStatus::Ready, LogStatus::Damaged),
            persisted: *persisted,
            sealed: sealed.iter().map(|s| Sealed::new(s.id, s.bytes)).collect(),
            active,
            derived,
            heads: HeadRing::default(),
            durable,
            swaps: 0,
            cuts: 0,
            dirty,
        };
        if state.status != LogStatus::Ready {
            // Where the readable prefix ends may be below what is recorded; the watermarks keep their order.
            if state.durable.next_index() > state.next_index() {
                // Not the last entry ever held, which may be purged and lie behind the damage.
                let last = state.next_index().checked_sub(1).map(|index| EntryId {
                    term: state.derived.epochs.epoch_at(index).unwrap_or(0),
                    index,
                });
                state.durable = Checkpoint {
                    last,
                    ..state.end_checkpoint()
                };
            }
            state.persisted.log_start_offset = state.persisted.log_start_offset.min(state.end_offset());
        }
        state.assert_order();
        Ok(Self {
            cx: (*cx).clone(),
            dir: dir.to_path_buf(),
            options: RwLock::new(*options),
            writer: Mutex::new(Writer::default()),
            state: RwLock::new(state),
            cleaner: Mutex::default(),
        })
    }

    /// Makes everything durable and writes down what lets the next open read no segment.
    ///
    /// Returns the final watermark, to be stored before the data directory is marked clean. The log may still be
    /// read, and even appended to: then the next open after a clean mark scans from the returned watermark.
    pub fn close(&self) -> Result<Checkpoint, LogError> {
        let mut writer = self.writer.lock();
        let (end, manifest) = {
            let state = self.state.read();
            self.check_writable(&state)?;
            (state.active.index.end(), state.manifest())
        };
        self.save_caches(end);
        self.save_manifest(&mut writer, &manifest);
        self.flush()
    }
}

impl Recovery<'_> {
    /// What the first flush must sync: everything above the watermark.
    fn unsynced(
        &self,
        sealed: &[SealedLen],
        active: &Active,
        durable: &Checkpoint,
        damaged: bool,
    ) -> Result<Dirty, LogError> {
        let mut dirty = Dirty::default();
        // Names may be unsynced even where all bytes are durable: a roll, or a segment that recovery began.
        let behind = durable.next_index() < active.index.next_index;
        if damaged || !(behind || self.previous != PreviousStop::Clean) {
            return Ok(dirty);
        }
        for segment in sealed
            .iter()
            .filter(|s| s.id.first_index >= durable.segment.first_index)
        {
            let path = segment.id.path(self.dir, LOG);
            dirty.file(&open_segment(&*self.cx.disk, &path, OpenMode::Write)?);
        }
        dirty.file(&active.file);
        dirty.names();
        Ok(dirty)
    }

    /// Removes caches of segments and points that the log does not have (any more).
    ///
    /// Durable on return: entries that are appended from here on may lead to the same lengths and the same points with
    /// another content, and a power loss must not bring a cache of the old one back.
    fn remove_strays(
        &self,
        snapshots: &[SegmentId],
        indexes: &[SegmentId],
        recovered: &Recovered,
    ) -> Result<(), LogError> {
        let Recovered { sealed, active, .. } = recovered;
        let (disk, dir) = (&*self.cx.disk, self.dir);
        let mut removed = false;
        for id in snapshots
            .iter()
            .filter(|id| id.first_index > active.index.next_index)
        {
            remove_if_exists(disk, &id.path(dir, SNAPSHOT))?;
            removed = true;
        }
        let kept_active = (self.previous == PreviousStop::Clean).then_some(active.index.id);
        for id in indexes {
            if Some(*id) != kept_active && sealed.binary_search_by_key(id, |s| s.id).is_err() {
                remove_index(disk, dir, *id)?;
                removed = true;
            }
        }
        let first = sealed.first().map_or(active.index.id, |s| s.id);
        let listed = self
            .manifest
            .iter()
            .flat_map(|m| &m.segments)
            .filter(|s| s.id >= first);
        if listed
            .clone()
            .any(|s| sealed.binary_search_by_key(&s.id, |s| s.id).map(|i| sealed[i]) != Ok(*s))
        {
            remove_if_exists(disk, &dir.join(MANIFEST))?;
            removed = true;
        }
        if removed {
            disk.sync_dir(dir)
                .map_err(|e| LogError::io("sync directory", dir, e))?;
        }
        Ok(())
    }

    /// The watermark that the opened log begins with.
    fn durable(&self, first: SegmentId, derived: &Derived) -> Checkpoint {
        let generation = self.persisted.generation;
        if let Some(watermark) = self.watermark {
            return Checkpoint {
                generation,
                ..watermark
            };
        }
        let last = first.first_index.checked_sub(1).map(|index| {
            let term = self.persisted.purged.filter(|p| p.index == index).map(|p| p.term);
            EntryId {
                term: term.or_else(|| derived.epochs.epoch_at(index)).unwrap_or(0),
                index,
            }
        });
        Checkpoint {
            generation,
            last,
            next_offset: first.base_offset,
            segment: first,
            position: 0,
        }
    }
}

/// Keeps positions within a segment below 4 GiB, whatever the settings say.
fn bounded(options: LogOptions) -> LogOptions {
    LogOptions {
        segment_bytes: options.segment_bytes.min(i32::MAX.unsigned_abs()),
        max_batch_bytes: options.max_batch_bytes.min(i32::MAX.unsigned_abs()),
        ..options
    }
}

fn list(cx: &StorageContext, dir: &Path) -> Result<Listing, LogError> {
    let entries = cx.disk.read_dir(dir).map_err(|e| LogError::io("list", dir, e))?;
    let mut listing = Listing {
        segments: vec![],
        snapshots: vec![],
        indexes: vec![],
        leftovers: vec![],
        sync_failed: false,
    };
    for entry in entries.into_iter().filter(|e| !e.is_dir) {
        let extension = entry.name.rsplit('.').next();
        if extension.is_some_and(|e| e == TMP || e == DELETED) {
            listing.leftovers.push(entry.name);
            continue;
        }
        match SegmentId::parse(&entry.name) {
            Some((id, LOG)) => listing.segments.push(SealedLen { id, bytes: entry.len }),
            Some((id, SNAPSHOT)) => listing.snapshots.push(id),
            Some((id, INDEX | TIME_INDEX)) => listing.indexes.push(id),
            _ => listing.sync_failed |= entry.name == SYNC_FAILED,
        }
    }
    listing.segments.sort_unstable_by_key(|s| s.id);
    Ok(listing)
}

fn load_state(
    cx: &StorageContext,
    dir: &Path,
    listing: &Listing,
    checkpoint: Option<Checkpoint>,
) -> Result<LogState, LogError> {
    let path = dir.join(STATE);
    let reason = match whole::read(&*cx.disk, &path, Kind::State)? {
        Found::Body(body) => match LogState::decode(&body) {
            Some(state) => return Ok(state),
            None => "its content is not that of a state file",
        },
        Found::Missing if listing.segments.is_empty() && checkpoint.is_none() => {
            let state = LogState::default();
            whole::write_durable(&*cx.disk, &path, Kind::State, &state.encode())?;
            return Ok(state);
        }
        Found::Missing => "the file is missing from a log that has been used",
        Found::Bad(FrameError::Damaged) => "it fails its check",
        Found::Bad(FrameError::Newer(newer)) => return Err(LogError::Newer { path, newer }),
    };
    Err(LogError::StateUnreadable { path, reason })
}

/// The list of sealed segments, unless it is missing, damaged or from before a truncation.
fn load_manifest(cx: &StorageContext, dir: &Path, generation: u64) -> Result<Option<Manifest>, LogError> {
    Ok(
        match whole::read(&*cx.disk, &dir.join(MANIFEST), Kind::Manifest)? {
            Found::Body(body) => Manifest::decode(&body).filter(|m| m.generation == generation),
            Found::Missing | Found::Bad(_) => None,
        },
    )
}

/// The caller's watermark, lowered by truncations that it does not know of and raised to the floor; `None` if nothing
/// held is durable.
fn effective(checkpoint: Option<Checkpoint>, persisted: &LogState) -> Option<Checkpoint> {
    let lowered = checkpoint.map(|checkpoint| persisted.cuts.lower(checkpoint));
    let floor = persisted.floor;
    let watermark = match (lowered, floor) {
        (Some(lowered), Some(floor)) if floor.next_index() < lowered.next_index() => lowered,
        (lowered, floor) => floor.or(lowered)?,
    };
    let front = persisted.front();
    let deleted = watermark.next_index() < front.first_index && watermark.next_offset < front.base_offset;
    (!deleted).then_some(watermark)
}

/// Finishes the replacement of segments by a cleaned one: those that begin within it go (see `log/clean/swap.rs`).
///
/// Durable on return: when the cleaned segment is deleted some day, they must not come back.
fn drop_replaced(
    cx: &StorageContext,
    dir: &Path,
    persisted: &LogState,
    segments: &mut Vec<SealedLen>,
    report: &mut RecoveryReport,
) -> Result<(), LogError> {
    let disk = &*cx.disk;
    let floor = persisted.floor_index();
    let mut kept = Vec::with_capacity(segments.len());
    let (mut covered, mut removed) = (0, false);
    for segment in segments.drain(..) {
        let path = segment.id.path(dir, LOG);
        if segment.id.first_index < covered {
            remove_segment(disk, dir, segment.id)?;
            report.actions.push(RecoveryAction::Removed { file: path });
            removed = true;
            continue;
        }
        if segment.id.first_index < floor {
            let file = open_segment(disk, &path, OpenMode::Read)?;
            // One that fails its check is damage, which the walk over the segments will find.
            let mark = Mark::read(&*file, segment.id).map_err(|e| LogError::io("read", &path, e))?;
            if let Ok(Some(mark)) = mark {
                covered = mark.end.first_index;
            }
        }
        kept.push(segment);
    }
    *segments = kept;
    if removed {
        disk.sync_dir(dir)
            .map_err(|e| LogError::io("sync directory", dir, e))?;
    }
    Ok(())
}

/// Finishes the deletion of segments below the log start and the purge point.
fn drop_below_front(
    cx: &StorageContext,
    dir: &Path,
    persisted: &LogState,
    segments: &mut Vec<SealedLen>,
    report: &mut RecoveryReport,
) -> Result<(), LogError> {
    let front = persisted.front();
    let unused = segments
        .windows(2)
        .take_while(|w| w[1].id.base_offset <= front.base_offset && w[1].id.first_index <= front.first_index);
    let unused = unused.count();
    for segment in segments.drain(..unused) {
        let file = segment.id.path(dir, LOG);
        remove_segment(&*cx.disk, dir, segment.id)?;
        report.actions.push(RecoveryAction::Removed { file });
    }
    Ok(())
}
