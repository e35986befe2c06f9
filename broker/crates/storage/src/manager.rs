//! All logs of a node: opening, creating, closing, deleting, and their watermarks in the journal.

mod take_in;

pub use self::take_in::Replaced;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use takhin_protocol::{PartitionIndex, TopicId, TopicPartition};
use uuid::Uuid;

use crate::entry::{Checkpoint, LogStatus, PreviousStop};
use crate::error::LogError;
use crate::format::{DELETED, INSTALLED};
use crate::incoming::INCOMING;
use crate::journal::{Change, Journal, JournalError};
use crate::log::{Log, LogStats, RecoveryReport};
use crate::options::{LogOptions, StorageContext};

/// Begins the journal keys of watermarks.
const WATERMARK: &[u8] = b"watermark/";

/// Why a log could not be managed.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The journal with its watermark.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The watermark in the journal cannot be decoded.
    #[error("the stored watermark of {partition} cannot be decoded")]
    BadWatermark {
        /// Whose it is.
        partition: TopicPartition,
    },
}

/// The logs of one data directory.
#[derive(Debug)]
pub struct LogManager {
    cx: StorageContext,
    dir: PathBuf,
    journal: Arc<Journal>,
    previous: PreviousStop,
    slots: Mutex<BTreeMap<TopicPartition, Slot>>,
    opened: Condvar,
}

/// What is known of a log in this run.
#[derive(Debug, Clone)]
enum Slot {
    Open {
        log: Arc<Log>,
        stored: Option<Checkpoint>,
        /// What it was opened by, to be judged by the same again if it is damaged.
        by: (Option<Checkpoint>, PreviousStop),
    },
    /// Being opened by some thread.
    Opening,
    /// Closed in order since the start.
    Closed,
}

impl LogManager {
    /// Manages the logs in `dir` (see [`crate::DataDir::partitions`]); opens none. Removes copies that are not whole, and logs
    /// that a copy has replaced; for interrupted deletions see [`Self::half_deleted`].
    ///
    /// # Errors
    ///
    /// `Io` if the directory cannot be listed or a leftover not removed.
    pub fn new(
        cx: StorageContext,
        dir: PathBuf,
        journal: Arc<Journal>,
        previous: PreviousStop,
    ) -> Result<Self, LogError> {
        cx.disk
            .create_dir_all(&dir)
            .map_err(|e| LogError::io("create", &dir, e))?;
        for entry in cx
            .disk
            .read_dir(&dir)
            .map_err(|e| LogError::io("list", &dir, e))?
        {
            let is_cut_short = entry.name.ends_with(INCOMING)
                && !cx
                    .disk
                    .exists(&dir.join(&entry.name).join(INSTALLED))
                    .map_err(|e| LogError::io("list", &dir, e))?;
            if is_cut_short {
                let leftover = dir.join(&entry.name);
                cx.disk
                    .remove_dir_all(&leftover)
                    .map_err(|e| LogError::io("remove", &leftover, e))?;
            }
        }
        let manager = Self {
            cx,
            dir,
            journal,
            previous,
            slots: Mutex::default(),
            opened: Condvar::new(),
        };
        let there = manager.on_disk()?;
        for replaced in manager.set_aside()?.iter().filter(|log| there.contains(log)) {
            manager.aside(*replaced)?;
        }
        Ok(manager)
    }

    /// The partitions that have a directory, ascending, whether open or not.
    pub fn on_disk(&self) -> Result<Vec<TopicPartition>, LogError> {
        let entries = self
            .cx
            .disk
            .read_dir(&self.dir)
            .map_err(|e| LogError::io("list", &self.dir, e))?;
        let mut found: Vec<_> = entries
            .iter()
            .filter(|e| e.is_dir)
            // A crash may have come between the old log and the copy that takes its place.
            .filter_map(|e| parse_dir_name(e.name.strip_suffix(".incoming").unwrap_or(&e.name)))
            .collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The log, if it is open.
    pub fn get(&self, partition: TopicPartition) -> Option<Arc<Log>> {
        match self.slots.lock().get(&partition) {
            Some(Slot::Open { log, .. }) => Some(log.clone()),
            _ => None,
        }
    }

    /// The log, opened or created if it is not open; several partitions may be opened at once. One that has failed is
    /// opened again, cut to its durable watermark, and so is one that was found damaged, to see whether it still is: a disk
    /// that fails may show less than it has. Every holder of the one before must let go of it.
    ///
    /// # Errors
    ///
    /// As [`Log::open`].
    pub fn open(
        &self,
        partition: TopicPartition,
        options: LogOptions,
    ) -> Result<(Arc<Log>, RecoveryReport), ManagerError> {
        let mut slots = self.slots.lock();
        while matches!(slots.get(&partition), Some(Slot::Opening)) {
            self.opened.wait(&mut slots);
        }
        let before = slots.get(&partition).cloned();
        let (checkpoint, previous) = match &before {
            Some(Slot::Open { log, by, .. }) => match log.status() {
                LogStatus::Failed { .. } => (Some(log.checkpoint()), PreviousStop::Failed),
                LogStatus::Damaged(_) => *by,
                LogStatus::Ready => return Ok((log.clone(), RecoveryReport::default())),
            },
            Some(Slot::Closed) => (self.stored(partition)?, PreviousStop::Clean),
            Some(Slot::Opening) | None => (self.stored(partition)?, self.previous),
        };
        // Recovery may take long; other logs are not to wait for it.
        slots.insert(partition, Slot::Opening);
        drop(slots);
        let opened = self.open_newest(partition, options, checkpoint, previous);
        let mut slots = self.slots.lock();
        self.opened.notify_all();
        match opened {
            Ok((log, report)) => {
                let log = Arc::new(log);
                slots.insert(
                    partition,
                    Slot::Open {
                        log: log.clone(),
                        stored: checkpoint,
                        by: (checkpoint, previous),
                    },
                );
                Ok((log, report))
            }
            Err(error) => {
                match before {
                    Some(before) => drop(slots.insert(partition, before)),
                    None => drop(slots.remove(&partition)),
                }
                Err(error)
            }
        }
    }

    /// Whether opening the log cuts what a failed write or sync may have lost; `false` for one that is not there.
    ///
    /// # Errors
    ///
    /// `Io` if the note of a failed sync cannot be read.
    pub fn has_failed(&self, partition: TopicPartition) -> Result<bool, LogError> {
        match self.slots.lock().get(&partition) {
            Some(Slot::Open { log, by, .. }) => {
                return Ok(match log.status() {
                    LogStatus::Failed { .. } => true,
                    LogStatus::Damaged(_) => by.1 == PreviousStop::Failed,
                    LogStatus::Ready => false,
                });
            }
            Some(Slot::Opening | Slot::Closed) | None => {}
        }
        Log::sync_has_failed(&*self.cx.disk, &self.path(partition))
    }

    /// Opens a log, or the copy that is to take its place.
    fn open_newest(
        &self,
        partition: TopicPartition,
        options: LogOptions,
        checkpoint: Option<Checkpoint>,
        previous: PreviousStop,
    ) -> Result<(Log, RecoveryReport), ManagerError> {
        let path = self.path(partition);
        let taken_in = self.take_in(partition)?;
        let checkpoint = checkpoint.filter(|_| !taken_in);
        Ok(Log::open(&self.cx, &path, options, checkpoint, previous)?)
    }

    /// A free name to rename a log to before it is deleted; what was left there goes.
    fn aside(&self, partition: TopicPartition) -> Result<PathBuf, LogError> {
        let disk = &*self.cx.disk;
        let gone = self.dir.join(format!("{}.{DELETED}", dir_name(partition)));
        if disk
            .exists(&gone)
            .map_err(|e| LogError::io("look for", &gone, e))?
        {
            disk.remove_dir_all(&gone)
                .map_err(|e| LogError::io("remove", &gone, e))?;
        }
        Ok(gone)
    }

    /// Makes a log durable, stores its watermark and forgets it; a later `open` reads no segment.
    pub fn close(&self, partition: TopicPartition) -> Result<(), ManagerError> {
        let Some(log) = self.get(partition) else {
            return Ok(());
        };
        let end = log.close()?;
        self.journal.put(&[watermark(partition, &end)], true)?;
        self.slots.lock().insert(partition, Slot::Closed);
        Ok(())
    }

    /// Closes every log that takes appends; failed and damaged ones stay for the next start to recover.
    ///
    /// Returns whether all were closed: only then may the data directory be marked clean.
    pub fn close_all(&self) -> Result<bool, ManagerError> {
        let mut all = true;
        for (partition, log) in self.open_logs() {
            if log.status() == LogStatus::Ready {
                self.close(partition)?;
            } else {
                all = false;
            }
        }
        Ok(all)
    }

    /// Stores the watermarks that have moved since they were last stored, in one journal entry.
    ///
    /// Without `sync` they become durable with the journal's next synced put. Older stored watermarks are always safe:
    /// recovery only has more to verify.
    pub fn store_watermarks(&self, sync: bool) -> Result<usize, JournalError> {
        let mut changes = Vec::new();
        let mut slots = self.slots.lock();
        for (partition, slot) in slots.iter_mut() {
            if let Slot::Open { log, stored, .. } = slot {
                let now = log.checkpoint();
                // A failed log's watermark is still right; a damaged log's is what the caller gave.
                if *stored != Some(now) && !matches!(log.status(), LogStatus::Damaged(_)) {
                    *stored = Some(now);
                    changes.push(watermark(*partition, &now));
                }
            }
        }
        if changes.is_empty() {
            return Ok(0);
        }
        // With the slots locked: a log's place may be taken meanwhile, and what is known of the old one must not be written
        // down after `take_in` has deleted it.
        self.journal.put(&changes, sync)?;
        drop(slots);
        Ok(changes.len())
    }

    /// Deletes a log with everything in it, and what the journal holds of it; `keys` are those of others than the manager.
    ///
    /// By rename first, so that a crash leaves all of it or nothing; and the journal forgets it before the last file goes,
    /// so that a crash in between shows ([`Self::half_deleted`]). A log that is made anew later must not be taken for one
    /// that has lost what the journal knows of the old one.
    pub fn delete(&self, partition: TopicPartition, keys: &[Vec<u8>]) -> Result<(), ManagerError> {
        let mut slots = self.slots.lock();
        slots.remove(&partition);
        let (path, incoming) = (self.path(partition), self.incoming(partition));
        let disk = &*self.cx.disk;
        if disk
            .exists(&incoming)
            .map_err(|e| LogError::io("look for", &incoming, e))?
        {
            disk.remove_dir_all(&incoming)
                .map_err(|e| LogError::io("remove", &incoming, e))?;
        }
        if disk
            .exists(&path)
            .map_err(|e| LogError::io("look for", &path, e))?
        {
            let gone = self.aside(partition)?;
            disk.rename(&path, &gone)
                .map_err(|e| LogError::io("rename", &path, e))?;
            disk.sync_dir(&self.dir)
                .map_err(|e| LogError::io("sync directory", &self.dir, e))?;
        }
        let keys = keys.iter().cloned().chain([watermark_key(partition)]);
        let forgotten: Vec<_> = keys.map(|key| (key, None)).collect();
        self.journal.put(&forgotten, true)?;
        // Removes what is there.
        self.aside(partition)?;
        Ok(())
    }

    /// The logs whose deletion a crash has interrupted: it is to be repeated before they are opened.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn half_deleted(&self) -> Result<Vec<TopicPartition>, ManagerError> {
        let there = self.on_disk()?;
        let aside = self.set_aside()?.into_iter();
        // Where there is a log or a copy, what lies aside is the log that the copy replaces.
        Ok(aside.filter(|log| !there.contains(log)).collect())
    }

    /// The logs that something lies aside of, to be deleted.
    fn set_aside(&self) -> Result<Vec<TopicPartition>, LogError> {
        let entries = self.cx.disk.read_dir(&self.dir);
        let entries = entries.map_err(|e| LogError::io("list", &self.dir, e))?;
        let names = entries
            .iter()
            .filter_map(|entry| entry.name.strip_suffix(DELETED));
        let logs = names.filter_map(|name| parse_dir_name(name.strip_suffix('.')?));
        Ok(logs.collect())
    }

    /// All open logs, ascending.
    pub fn open_logs(&self) -> Vec<(TopicPartition, Arc<Log>)> {
        let slots = self.slots.lock();
        let open = slots.iter().filter_map(|(partition, slot)| match slot {
            Slot::Open { log, .. } => Some((*partition, log.clone())),
            Slot::Opening | Slot::Closed => None,
        });
        open.collect()
    }

    /// Sizes of all open logs, by log and segment.
    pub fn stats(&self) -> BTreeMap<TopicPartition, LogStats> {
        self.open_logs()
            .into_iter()
            .map(|(partition, log)| (partition, log.stats()))
            .collect()
    }

    /// Bytes of all open logs, by topic.
    pub fn bytes_by_topic(&self) -> BTreeMap<TopicId, u64> {
        let mut topics = BTreeMap::new();
        for (partition, log) in self.open_logs() {
            *topics.entry(partition.topic_id).or_default() += log.stats().bytes;
        }
        topics
    }

    /// Directory of a partition's log.
    pub fn path(&self, partition: TopicPartition) -> PathBuf {
        self.dir.join(dir_name(partition))
    }

    fn stored(&self, partition: TopicPartition) -> Result<Option<Checkpoint>, ManagerError> {
        match self.journal.get(&watermark_key(partition)) {
            Some(bytes) => Checkpoint::decode(&bytes)
                .map(Some)
                .ok_or(ManagerError::BadWatermark { partition }),
            None => Ok(None),
        }
    }
}

fn watermark(partition: TopicPartition, checkpoint: &Checkpoint) -> Change {
    (watermark_key(partition), Some(checkpoint.encode().to_vec()))
}

fn watermark_key(partition: TopicPartition) -> Vec<u8> {
    let mut key = WATERMARK.to_vec();
    key.extend_from_slice(partition.topic_id.0.as_bytes());
    key.extend_from_slice(&partition.partition.0.to_be_bytes());
    key
}

/// `<uuid>-<partition>`; the plain form of the id, since file systems may not tell upper from lower case.
fn dir_name(partition: TopicPartition) -> String {
    format!("{}-{}", partition.topic_id.0, partition.partition)
}

/// The partition whose log a directory of this name holds.
pub fn parse_dir_name(name: &str) -> Option<TopicPartition> {
    let (id, partition) = name.rsplit_once('-')?;
    let topic_id = TopicId(Uuid::parse_str(id).ok()?);
    let partition = PartitionIndex(partition.parse().ok()?);
    let parsed = TopicPartition { topic_id, partition };
    (dir_name(parsed) == name).then_some(parsed)
}

/// The partition of a log's path, for offline tools.
pub fn partition_of_path(path: &Path) -> Option<TopicPartition> {
    parse_dir_name(path.file_name()?.to_str()?)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use takhin_runtime::sim::{Fault, FaultRule, Op, SimDisk, When};

    use super::*;
    use crate::NewEntry;
    use crate::testing::data_batch;

    fn partition(n: i32) -> TopicPartition {
        TopicPartition {
            topic_id: TopicId(Uuid::from_u128(7)),
            partition: PartitionIndex(n),
        }
    }

    fn manager(disk: &SimDisk, previous: PreviousStop) -> LogManager {
        let shared: Arc<dyn takhin_runtime::Disk> = Arc::new(disk.incarnation());
        let path = Path::new("/journal");
        let journal = match previous {
            PreviousStop::Clean if !shared.exists(path).unwrap() => Journal::create(shared.clone(), path),
            _ => Journal::open(shared.clone(), path, previous),
        };
        LogManager::new(
            StorageContext::new(shared),
            "/p".into(),
            Arc::new(journal.unwrap()),
            previous,
        )
        .unwrap()
    }

    fn append(log: &Log, count: u64) {
        for _ in 0..count {
            let end = log.end();
            let raft_index = end.last.map_or(0, |l| l.index + 1);
            log.append(&[NewEntry {
                term: 1,
                raft_index,
                batch: data_batch(end.log_end_offset, 1, 1, 0),
            }])
            .unwrap();
        }
    }

    #[test]
    fn watermarks_follow_the_logs_and_deletion_leaves_nothing() {
        let disk = SimDisk::new(3);
        let logs = manager(&disk, PreviousStop::Clean);
        for n in 0..3 {
            append(&logs.open(partition(n), LogOptions::default()).unwrap().0, 5);
        }
        logs.get(partition(0)).unwrap().flush().unwrap();
        assert_eq!(logs.store_watermarks(true).unwrap(), 3);
        assert_eq!(logs.store_watermarks(true).unwrap(), 0, "nothing moved since");
        logs.delete(partition(1), &[]).unwrap();
        assert!(logs.get(partition(1)).is_none());
        disk.crash(takhin_runtime::sim::CrashMode::Power);
        let logs = manager(&disk, PreviousStop::PowerLoss);
        assert_eq!(logs.on_disk().unwrap(), [partition(0), partition(2)]);
        let (log, _) = logs.open(partition(0), LogOptions::default()).unwrap();
        assert_eq!(log.end().log_end_offset, 5);
        assert_eq!(log.checkpoint().next_offset, 5);
        let (fresh, _) = logs.open(partition(1), LogOptions::default()).unwrap();
        assert_eq!(
            fresh.end().log_end_offset,
            0,
            "a deleted log's watermark is gone too"
        );
    }

    /// Wherever it was interrupted, the journal's part goes with the log, before another one may get its name.
    #[test]
    fn a_deletion_that_was_interrupted_shows_until_it_is_repeated() {
        for op in [Op::Rename, Op::SyncDir, Op::Write, Op::SyncData, Op::Remove] {
            let disk = SimDisk::new(3);
            let logs = manager(&disk, PreviousStop::Clean);
            append(&logs.open(partition(1), LogOptions::default()).unwrap().0, 5);
            let key = b"of others".to_vec();
            logs.journal.put(&[(key.clone(), Some(vec![1]))], true).unwrap();
            disk.arm(FaultRule {
                op,
                path: String::new(),
                when: When::Always,
                fault: Fault::Eio,
            });
            assert!(
                logs.delete(partition(1), slice::from_ref(&key)).is_err(),
                "{op:?}"
            );
            disk.clear_faults();
            disk.crash(takhin_runtime::sim::CrashMode::Power);
            let logs = manager(&disk, PreviousStop::PowerLoss);
            for half in logs.half_deleted().unwrap() {
                logs.delete(half, slice::from_ref(&key)).unwrap();
            }
            assert_eq!(logs.half_deleted().unwrap(), [], "{op:?}");
            let is_there = !logs.on_disk().unwrap().is_empty();
            assert_eq!(logs.journal.get(&key).is_some(), is_there, "{op:?}");
        }
    }

    #[test]
    fn a_failed_log_reopens_cut_to_its_watermark() {
        let disk = SimDisk::new(3);
        let logs = manager(&disk, PreviousStop::Clean);
        let (log, _) = logs.open(partition(0), LogOptions::default()).unwrap();
        append(&log, 5);
        log.flush().unwrap();
        append(&log, 5);
        disk.arm(FaultRule {
            op: Op::SyncData,
            path: ".log".into(),
            when: When::Nth(1),
            fault: Fault::Eio,
        });
        log.flush().unwrap_err();
        assert!(
            matches!(log.flush(), Err(LogError::Failed { .. })),
            "never synced again"
        );
        let (reopened, report) = logs.open(partition(0), LogOptions::default()).unwrap();
        assert_eq!(reopened.end().log_end_offset, 5);
        assert_eq!(report.actions.len(), 1);
        append(&reopened, 1);
        assert!(logs.close_all().unwrap());
        let (again, _) = logs.open(partition(0), LogOptions::default()).unwrap();
        assert_eq!(again.end().log_end_offset, 6);
    }
}
