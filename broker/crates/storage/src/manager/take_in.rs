//! Copies of other replicas' logs: receiving one, and having it take a log's place.

use std::path::PathBuf;
use std::sync::Arc;

use takhin_protocol::TopicPartition;

use super::{LogManager, ManagerError, Slot, dir_name, watermark_key};
use crate::error::LogError;
use crate::format::{FrameError, INSTALLED, Kind};
use crate::incoming::{CheckedCopy, INCOMING, Incoming};
use crate::log::Export;
use crate::whole::{self, Found};

/// What became of a copy that was to take a log's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It has.
    ByCopy,
    /// The log has all that the copy has, and stays.
    CaughtUp,
}

impl LogManager {
    /// Begins to receive a copy that is to take the place of a partition's log.
    ///
    /// # Errors
    ///
    /// `Io`, `Full`: the disk.
    pub fn receive(&self, partition: TopicPartition, export: Export) -> Result<Incoming, LogError> {
        Incoming::begin(&self.cx, self.incoming(partition), export)
    }

    /// Has a copy take the place of a log that lacks the copy's last entry; the copy goes if the log has it. The next `open`
    /// opens the copy then, and every holder of the old log must let go of it. `note` is kept with the copy, see
    /// [`Self::note`].
    ///
    /// Nothing may be appended to the log meanwhile: what the copy lacks of it is lost.
    ///
    /// # Errors
    ///
    /// `Io`, `Full`: the disk. The old log is the log still.
    pub fn replace(
        &self,
        partition: TopicPartition,
        copy: CheckedCopy,
        note: &[u8],
    ) -> Result<Replaced, LogError> {
        let mut slots = self.slots.lock();
        let log = match slots.get(&partition) {
            Some(Slot::Open { log, .. }) => Some(Arc::clone(log)),
            _ => None,
        };
        if log.as_ref().is_some_and(|log| log.has(copy.last())) {
            copy.discard()?;
            return Ok(Replaced::CaughtUp);
        }
        copy.install(note)?;
        slots.remove(&partition);
        if let Some(log) = log {
            log.retire();
        }
        Ok(Replaced::ByCopy)
    }

    /// The note that a copy was finished with, if the log is a copy whose note was not cleared yet.
    ///
    /// # Errors
    ///
    /// `StateUnreadable`: it is damaged. `Newer`: a newer release wrote it. `Io`: the disk.
    pub fn note(&self, partition: TopicPartition) -> Result<Option<Vec<u8>>, LogError> {
        let path = self.path(partition).join(INSTALLED);
        match whole::read(&*self.cx.disk, &path, Kind::Installed)? {
            Found::Body(note) => Ok(Some(note)),
            Found::Missing => Ok(None),
            Found::Bad(FrameError::Newer(newer)) => Err(LogError::Newer { path, newer }),
            Found::Bad(FrameError::Damaged) => Err(LogError::StateUnreadable {
                path,
                reason: "it fails its check",
            }),
        }
    }

    /// Clears the note; durable on return.
    ///
    /// # Errors
    ///
    /// `Io`: the disk.
    pub fn clear_note(&self, partition: TopicPartition) -> Result<(), LogError> {
        let (disk, dir) = (&*self.cx.disk, self.path(partition));
        let path = dir.join(INSTALLED);
        disk.remove_file(&path)
            .map_err(|e| LogError::io("remove", &path, e))?;
        disk.sync_dir(&dir)
            .map_err(|e| LogError::io("sync directory", &dir, e))
    }

    pub(super) fn incoming(&self, partition: TopicPartition) -> PathBuf {
        self.dir.join(format!("{}.{INCOMING}", dir_name(partition)))
    }

    /// Has a finished copy take the place of the log; whether there was one. Can be repeated after a crash.
    pub(super) fn take_in(&self, partition: TopicPartition) -> Result<bool, ManagerError> {
        let (disk, incoming) = (&*self.cx.disk, self.incoming(partition));
        let installed = incoming.join(INSTALLED);
        let found = disk.exists(&installed);
        if !found.map_err(|e| LogError::io("look for", &installed, e))? {
            return Ok(false);
        }
        // What is known to be durable of the old log says nothing about the new one.
        self.journal.put(&[(watermark_key(partition), None)], true)?;
        let (path, gone) = (self.path(partition), self.aside(partition)?);
        if disk
            .exists(&path)
            .map_err(|e| LogError::io("look for", &path, e))?
        {
            disk.rename(&path, &gone)
                .map_err(|e| LogError::io("rename", &path, e))?;
        }
        disk.rename(&incoming, &path)
            .map_err(|e| LogError::io("rename", &incoming, e))?;
        disk.sync_dir(&self.dir)
            .map_err(|e| LogError::io("sync directory", &self.dir, e))?;
        self.aside(partition)?;
        tracing::info!(%partition, "the log is a copy of another replica's from here on");
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use takhin_protocol::{PartitionIndex, TopicId};
    use takhin_runtime::sim::{CrashMode, SimDisk};
    use uuid::Uuid;

    use super::*;
    use crate::options::{LogOptions, StorageContext};
    use crate::testing::{data_batch, hidden_batch};
    use crate::{EntryId, Journal, Log, NewEntry, PreviousStop};

    const P: TopicPartition = TopicPartition {
        topic_id: TopicId(Uuid::from_u128(7)),
        partition: PartitionIndex(0),
    };

    fn options() -> LogOptions {
        LogOptions {
            segment_bytes: 1 << 10,
            ..LogOptions::default()
        }
    }

    fn manager(disk: &SimDisk, previous: PreviousStop) -> LogManager {
        let shared: Arc<dyn takhin_runtime::Disk> = Arc::new(disk.incarnation());
        let path = Path::new("/journal");
        let journal = match shared.exists(path).unwrap() {
            false => Journal::create(shared.clone(), path),
            true => Journal::open(shared.clone(), path, previous),
        };
        let cx = StorageContext::new(shared);
        LogManager::new(cx, "/p".into(), Arc::new(journal.unwrap()), previous).unwrap()
    }

    fn append(log: &Log, term: u32, count: u64) {
        for i in 0..count {
            let end = log.end();
            let raft_index = end.last.map_or(0, |l| l.index + 1);
            let epoch = i32::try_from(term).unwrap();
            let batch = match i % 5 {
                4 => hidden_batch(end.log_end_offset, epoch, b"hidden"),
                _ => data_batch(end.log_end_offset, epoch, 3, 1000),
            };
            let entry = NewEntry {
                term,
                raft_index,
                batch,
            };
            log.append(&[entry]).unwrap();
        }
    }

    /// Everything readable, as bytes.
    fn content(log: &Log) -> Vec<u8> {
        let end = log.end();
        let mut all = Vec::new();
        let mut next = end.log_start_offset;
        while next < end.log_end_offset {
            let ranges = log.read(next, end.log_end_offset, 1 << 20, true).unwrap();
            next = ranges.next_offset;
            all.extend(ranges.read_all().unwrap());
        }
        all
    }

    /// A leader's log whose first segments are gone, purged to where a segment ends.
    fn leader(disk: &SimDisk) -> Arc<Log> {
        let (log, _) = manager(disk, PreviousStop::Clean).open(P, options()).unwrap();
        append(&log, 2, 60);
        append(&log, 5, 60);
        let stats = log.stats().segments;
        assert!(stats.len() > 8, "{} segments", stats.len());
        let purged = stats[stats.len() - 3].id.first_index - 1;
        let term = log.epoch_history().epoch_at(purged).unwrap();
        log.purge_to(EntryId { term, index: purged }).unwrap();
        log.set_log_start(stats[3].id.base_offset + 1).unwrap();
        log
    }

    fn copy(log: &Log, logs: &LogManager) -> Incoming {
        let export = log.export(log.end().purged.unwrap()).unwrap();
        let export = Export::decode(&export.encode()).unwrap();
        let mut incoming = logs.receive(P, export.clone()).unwrap();
        for (i, (id, bytes)) in export.segments().enumerate() {
            let mut pos = 0;
            while pos < bytes {
                let part = log.read_export(id, bytes, pos, 100).unwrap();
                incoming.write(i, pos, &part).unwrap();
                pos += part.len() as u64;
            }
        }
        incoming
    }

    /// Gives the copy what comes after it.
    fn follow(leader: &Log, copy: &Log) {
        let last = copy.end().last.unwrap();
        for entry in leader
            .entries(last.index + 1..leader.end().last.unwrap().index + 1, 1 << 20)
            .unwrap()
        {
            let entry = NewEntry {
                term: entry.term,
                raft_index: entry.index,
                batch: entry.batch,
            };
            copy.append(&[entry]).unwrap();
        }
    }

    #[test]
    fn a_copy_takes_the_logs_place_and_goes_on_like_its_original() {
        let original = leader(&SimDisk::new(1));
        for crash in [None, Some(CrashMode::Process), Some(CrashMode::Power)] {
            let disk = SimDisk::new(2);
            let mut logs = manager(&disk, PreviousStop::Clean);
            let (old, _) = logs.open(P, options()).unwrap();
            append(&old, 1, 200);
            logs.store_watermarks(true).unwrap();
            let generation = old.checkpoint().generation + 1;
            let checked = copy(&original, &logs).check(&options(), generation).unwrap();
            assert_eq!(logs.replace(P, checked, b"note").unwrap(), Replaced::ByCopy);
            if let Some(mode) = crash {
                disk.crash(mode);
                logs = manager(&disk, PreviousStop::Killed);
            } else {
                assert!(old.append(&[]).is_err() || old.truncate_after(None).is_err());
            }
            assert_eq!(logs.on_disk().unwrap(), [P]);
            let (log, report) = logs.open(P, options()).unwrap();
            // Indexes are caches, which a power loss may take.
            let is_cache = |action: &_| matches!(action, crate::RecoveryAction::IndexRebuilt { .. });
            assert!(
                report.actions.iter().all(is_cache),
                "{crash:?}: {:?}",
                report.actions
            );
            assert_eq!(logs.note(P).unwrap().unwrap(), b"note");
            logs.clear_note(P).unwrap();
            assert_eq!(logs.note(P).unwrap(), None);
            assert_eq!(log.end().last, original.end().purged);
            follow(&original, &log);
            assert_eq!(
                log.end(),
                crate::LogEnd {
                    first_index: log.end().first_index,
                    ..original.end()
                }
            );
            assert_eq!(content(&log), content(&original));
            assert_eq!(log.end_offset_for(2), original.end_offset_for(2));
            assert!(logs.close_all().unwrap());
            let (again, report) = manager(&disk, PreviousStop::Clean).open(P, options()).unwrap();
            assert_eq!((content(&again), report.actions), (content(&original), vec![]));
        }
    }

    #[test]
    fn a_log_that_caught_up_meanwhile_stays() {
        let original = leader(&SimDisk::new(1));
        let purged = original.end().purged.unwrap();
        let disk = SimDisk::new(2);
        let logs = manager(&disk, PreviousStop::Clean);
        let (old, _) = logs.open(P, options()).unwrap();
        append(&old, 1, 40);
        let checked = copy(&original, &logs).check(&options(), 7).unwrap();
        // It has an entry at the copy's last index, and later it has that very entry.
        append(&old, 1, purged.index + 5 - 40);
        assert!(!old.has(purged));
        old.truncate_after(None).unwrap();
        append(&old, purged.term, purged.index + 5);
        assert!(old.has(purged));
        let before = (content(&old), old.end());
        assert_eq!(logs.replace(P, checked, b"note").unwrap(), Replaced::CaughtUp);
        append(&old, purged.term, 1);
        assert!(logs.close_all().unwrap());
        let (log, _) = manager(&disk, PreviousStop::Clean).open(P, options()).unwrap();
        assert!(content(&log).starts_with(&before.0));
        assert_eq!(log.end().last.unwrap().index, before.1.last.unwrap().index + 1);
    }

    #[test]
    fn an_unfinished_copy_leaves_the_log_as_it_was() {
        let original = leader(&SimDisk::new(1));
        let disk = SimDisk::new(2);
        let logs = manager(&disk, PreviousStop::Clean);
        let (old, _) = logs.open(P, options()).unwrap();
        append(&old, 1, 20);
        old.flush().unwrap();
        let export = original.export(original.end().purged.unwrap()).unwrap();
        let mut incoming = logs.receive(P, export.clone()).unwrap();
        assert!(matches!(
            incoming.write(1, 0, b"x"),
            Err(LogError::Unexpected { segment: 0, .. })
        ));
        assert!(matches!(
            incoming.write(0, u64::MAX, b"xy"),
            Err(LogError::Unexpected { segment: 0, .. })
        ));
        assert!(matches!(
            incoming.check(&options(), 1),
            Err(LogError::Unexpected { .. })
        ));
        // Whole, but not what was written there: a byte has turned over on the way.
        let mut incoming = logs.receive(P, export.clone()).unwrap();
        for (i, (id, bytes)) in export.segments().enumerate() {
            let mut part = original.read_export(id, bytes, 0, usize::MAX).unwrap();
            let last = part.len() - 1;
            part[last] ^= u8::from(i == 2);
            incoming.write(i, 0, &part).unwrap();
        }
        assert!(matches!(
            incoming.check(&options(), 1),
            Err(LogError::Corrupt { .. })
        ));
        let before = (content(&old), old.end().last);
        disk.crash(CrashMode::Process);
        let logs = manager(&disk, PreviousStop::Killed);
        let (log, _) = logs.open(P, options()).unwrap();
        assert_eq!((content(&log), log.end().last), before);
    }

    #[test]
    fn a_copy_ends_where_a_segment_ends_and_notices_other_files() {
        let original = leader(&SimDisk::new(1));
        let purged = original.end().purged.unwrap();
        let inside = EntryId {
            index: purged.index + 1,
            ..purged
        };
        assert!(matches!(
            original.export(inside),
            Err(LogError::IndexOutOfRange { .. })
        ));
        let export = original.export(purged).unwrap();
        let (id, bytes) = export.segments().next().unwrap();
        assert!(original.read_export(id, bytes + 1, 0, 10).is_err());
        let stats = original.stats().segments;
        original.set_log_start(stats[2].id.base_offset).unwrap();
        assert!(
            original.read_export(id, bytes, 0, 10).is_err(),
            "deleted by retention"
        );
    }
}
