//! Sealing the active segment and beginning a new one.

use super::{Log, State, Writer};
use crate::error::LogError;
use crate::format::{Kind, LOG, MANIFEST, SNAPSHOT, SegmentId};
use crate::metrics::METRICS;
use crate::options::LogOptions;
use crate::segment::{Active, Sealed, remove_if_exists, save_index};
use crate::state_file::{Manifest, SealedLen};
use crate::{snapshot, whole};

/// Snapshots kept; older ones would only serve a truncation across as many segments.
const SNAPSHOTS_KEPT: usize = 3;

impl Log {
    /// Begins a new segment if the active one has entries and its first is older than `segment_ms` at `now_ms`.
    ///
    /// Returns whether it did. Retention needs this: only sealed segments can expire.
    pub fn roll_if_expired(&self, now_ms: i64) -> Result<bool, LogError> {
        let options = self.options();
        let mut writer = self.writer.lock();
        let expired = {
            let state = self.state.read();
            self.check_writable(&state)?;
            let index = &state.active.index;
            index.first_timestamp >= 0 && now_ms.saturating_sub(index.first_timestamp) > options.segment_ms
        };
        if expired {
            self.roll(&mut writer, &options)?;
        }
        Ok(expired)
    }

    /// Begins a new segment if the active one has entries; returns whether it had.
    pub fn roll_now(&self) -> Result<bool, LogError> {
        let options = self.options();
        let mut writer = self.writer.lock();
        let has_entries = {
            let state = self.state.read();
            self.check_writable(&state)?;
            state.active.index.bytes > 0
        };
        if has_entries {
            self.roll(&mut writer, &options)?;
        }
        Ok(has_entries)
    }

    /// Seals the active segment, which has entries, and begins the next.
    pub(super) fn roll(&self, writer: &mut Writer, _options: &LogOptions) -> Result<(), LogError> {
        let at = {
            let state = self.state.read();
            SegmentId {
                base_offset: state.end_offset(),
                first_index: state.next_index(),
            }
        };
        let next = match Active::create(&self.cx, &self.dir, at) {
            Ok(next) => next,
            Err(error @ LogError::Full { .. }) => return Err(error),
            Err(error) => return Err(self.fail(error)),
        };
        self.save_caches(at);
        let mut guard = self.state.write();
        let state = &mut *guard;
        let old = std::mem::replace(&mut state.active, next);
        let sealed = Sealed::from_open(&self.cx, old.file, old.index);
        state.sealed.push(sealed);
        state.dirty.names();
        let stale = state
            .sealed
            .len()
            .checked_sub(SNAPSHOTS_KEPT)
            .map(|i| state.sealed[i].id);
        writer.rolls_since_manifest += 1;
        // Rewriting the list at every roll would be quadratic; what it lacks, the next open learns from indexes.
        let manifest = (writer.rolls_since_manifest > state.sealed.len() / 64).then(|| state.manifest());
        drop(guard);
        METRICS.segments_rolled.add(1);
        tracing::debug!(dir = %self.dir.display(), base_offset = at.base_offset, "rolled");
        if let Some(id) = stale {
            self.note_cache(remove_if_exists(&*self.cx.disk, &id.path(&self.dir, SNAPSHOT)));
        }
        if let Some(manifest) = manifest {
            self.save_manifest(writer, &manifest);
        }
        Ok(())
    }

    /// Writes the active segment's index and the snapshot of the log's end.
    ///
    /// Both are caches: a failure costs time at the next start and nothing else.
    pub(super) fn save_caches(&self, at: SegmentId) {
        let (index, body) = {
            let state = self.state.read();
            let body = snapshot::encode(at, &state.derived.epochs, &state.derived.producers);
            (state.active.index.clone(), body)
        };
        self.note_cache(save_index(&self.cx, &self.dir, &index));
        let path = at.path(&self.dir, SNAPSHOT);
        match whole::write_cache(&*self.cx.disk, &path, Kind::Snapshot, &body) {
            // With the next flush round the snapshot becomes durable, so that a power loss costs no long scan.
            Ok(file) => self.state.write().dirty.file(&file),
            Err(error) => self.note_cache(Err(error)),
        }
    }

    pub(super) fn save_manifest(&self, writer: &mut Writer, manifest: &Manifest) {
        let path = self.dir.join(MANIFEST);
        let written = whole::write_cache(&*self.cx.disk, &path, Kind::Manifest, &manifest.encode());
        writer.rolls_since_manifest = 0;
        self.note_cache(written.map(drop));
    }

    fn note_cache(&self, result: Result<(), LogError>) {
        if let Err(error) = result {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot keep a cache file; the next start rebuilds it");
        }
    }

    /// Path of the active segment.
    pub(super) fn active_path(&self) -> std::path::PathBuf {
        self.state.read().active.index.id.path(&self.dir, LOG)
    }
}

impl State {
    /// The list of sealed segments as it is now, from the floor on.
    pub(super) fn manifest(&self) -> Manifest {
        let floor = self.persisted.floor_index();
        Manifest {
            generation: self.persisted.generation,
            segments: self
                .sealed
                .iter()
                .filter(|s| s.id.first_index >= floor)
                .map(|s| SealedLen {
                    id: s.id,
                    bytes: s.bytes,
                })
                .collect(),
            end: self.active.index.id,
        }
    }
}
