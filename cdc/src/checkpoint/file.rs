//! The position file: whole or not at all, and on the medium before anybody is told.
//!
//! It is two files that are written in turns, each in place: whatever becomes of the one that is being written, the other has what was
//! saved before, and a save waits for the medium once. A name that changes would wait for the file system's journal too, and with it
//! for what others have written. A file comes into being whole, under another name.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use takhin_runtime::{Disk, Env, File, OpenMode};
use tracing::warn;

use super::{Checkpoint, Checkpoints};
use crate::wal::checksum;

/// Version of the format; a newer one is refused. Of version 1 there was one file, which was replaced.
const VERSION: u32 = 2;

/// The names of the two.
const NAMES: [&str; 2] = ["checkpoint.json", "checkpoint-2.json"];

/// One that is new, until it is whole.
const NEXT: &str = "checkpoint.json.next";

/// What files are filled up to in bytes, so that they hardly ever grow: a new length is noted by the file system, which takes as long
/// as a new name.
const FILLED: usize = 4096;

/// Held by the process that uses the directory.
const LOCK: &str = "lock";

/// Longest file in bytes: many times what all databases take.
const MAX_LEN: u64 = 1 << 20;

/// Why positions cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk says no.
    #[error("checkpoint.dir: cannot {what} {}: {source}{}", path.display(), hint(source))]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Somebody else has the directory.
    #[error("checkpoint.dir: another process uses {}; each needs a directory of its own", .0.display())]
    Locked(PathBuf),
    /// The file was not written by this program.
    #[error("checkpoint.dir: {} is damaged ({why}); remove it to go on from the topic of positions", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer build has written it.
    #[error(
        "checkpoint.dir: {} has version {found}, and this takhin-cdc knows {VERSION} at most; start a newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A newer build has written one in the topic.
    #[error(
        "sink.topic_offsets: the position of {db} in {topic} has version {found}, and this takhin-cdc knows {} at most; start a \
         newer one, or choose another source.id to begin anew",
        super::VERSION
    )]
    NewerInTopic {
        /// The topic.
        topic: String,
        /// The database.
        db: String,
        /// Its version.
        found: u32,
    },
    /// It is of another source.
    #[error(
        "checkpoint.dir: {} is of the source {found}, not {wanted}; choose another directory, or set source.id",
        path.display()
    )]
    OtherSource {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
}

impl CheckpointError {
    /// Refuses positions of a topic that a newer build has written.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NewerInTopic`].
    pub fn check(topic: &str, checkpoints: &Checkpoints) -> Result<(), Self> {
        match checkpoints.iter().find(|(_, checkpoint)| !checkpoint.is_known()) {
            Some((db, newer)) => Err(Self::NewerInTopic {
                topic: topic.to_owned(),
                db: db.clone(),
                found: newer.version,
            }),
            None => Ok(()),
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match is_full(error) {
        true => "; nothing is acknowledged to the master until there is room",
        false => "",
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// What a file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Form {
    version: u32,
    source_id: String,
    databases: Checkpoints,
    /// The file with the higher one was written last; 0 before version 2.
    #[serde(default)]
    sequence: u64,
    /// CRC-32C of the three before it, before version 2 without the sequence; none where somebody has written the file by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32c: Option<u32>,
}

impl Form {
    /// The checksum that it should have, whatever its white space.
    fn checksum(&self) -> u32 {
        // Strings and numbers always serialize.
        let bytes = match self.version {
            0 | 1 => serde_json::to_vec(&(&self.source_id, &self.databases)),
            _ => serde_json::to_vec(&(&self.source_id, &self.databases, self.sequence)),
        };
        checksum(&bytes.unwrap_or_default())
    }

    /// Which of two was written later. By hand is later than anything.
    fn order(&self) -> (bool, u64) {
        (self.crc32c.is_none(), self.sequence)
    }

    /// A file of at least so many bytes. One that is cut off anywhere has no end.
    fn to_bytes(&self, least: usize) -> Vec<u8> {
        // Strings and numbers always serialize.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.pop();
        let wanted = (bytes.len() + 2).next_multiple_of(FILLED).max(least);
        bytes.resize(wanted - 2, b' ');
        bytes.extend(b"}\n");
        bytes
    }
}

/// The file, and the directory that it is in.
pub struct PositionFile {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    source_id: String,
    /// What is on the medium.
    saved: Mutex<Checkpoints>,
    /// Held while it is read or replaced: an attempt that has ended may still be at it.
    using: Mutex<Turns>,
    _lock: Box<dyn Send + Sync>,
}

/// Which of the two is written next.
#[derive(Default)]
struct Turns {
    /// Whether it is known what is there.
    are_known: bool,
    /// The one that was written last, which stays as it is until the other one is on the medium.
    last: usize,
    /// The number of that.
    sequence: u64,
}

impl PositionFile {
    /// Takes the directory for this process.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`].
    pub fn open(env: &Env, dir: &Path, source_id: &str) -> Result<Self, CheckpointError> {
        let disk = Arc::clone(&env.disk);
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| CheckpointError::Disk { what, path, source }
        };
        disk.create_dir_all(dir).map_err(failed("create", dir))?;
        let path = dir.join(LOCK);
        let lock = match disk.lock(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(CheckpointError::Locked(dir.to_owned()));
            }
            Err(error) => return Err(failed("lock", &path)(error)),
        };
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            source_id: source_id.to_owned(),
            saved: Mutex::default(),
            using: Mutex::default(),
            _lock: lock,
        })
    }

    /// What was saved last; nothing if there is no file. On the medium when it returns, whoever has written it.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`].
    pub fn load(&self) -> Result<Checkpoints, CheckpointError> {
        self.read_in(&mut self.using.lock())
    }

    fn read_in(&self, turns: &mut Turns) -> Result<Checkpoints, CheckpointError> {
        // Of one that ends amid this nothing is known: the next one looks again.
        *turns = Turns::default();
        let Some(Whole { index, form, bytes }) = newest(&*self.disk, &self.dir, &self.source_id)? else {
            (turns.last, turns.are_known) = (1, true);
            self.saved.lock().clear();
            return Ok(Checkpoints::new());
        };
        // It may be in the page cache only, of whoever was killed amid a save, or of a sync that has failed, which one that does not
        // fail makes good for nothing but what is written again, its name too.
        self.write_again(index, &bytes)?;
        (turns.last, turns.sequence) = (index, form.sequence);
        if form.crc32c.is_none() || form.version < VERSION {
            // By hand it would be later than all that follows it, and a build of before would go on from its own.
            self.write(turns, &form.databases)?;
            self.write(turns, &form.databases)?;
        }
        turns.are_known = true;
        self.saved.lock().clone_from(&form.databases);
        Ok(form.databases)
    }

    /// What is on the medium of a database.
    pub fn saved(&self, db: &str) -> Option<Checkpoint> {
        self.saved.lock().get(db).cloned()
    }

    /// Replaces what was saved. On the medium when it returns.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Disk`]; what was saved before is there still.
    pub fn save(&self, databases: &Checkpoints) -> Result<(), CheckpointError> {
        let mut turns = self.using.lock();
        if !turns.are_known {
            self.read_in(&mut turns)?;
        }
        self.write(&mut turns, databases)?;
        self.saved.lock().clone_from(databases);
        Ok(())
    }

    /// Writes the file whose turn it is.
    fn write(&self, turns: &mut Turns, databases: &Checkpoints) -> Result<(), CheckpointError> {
        let index = 1 - turns.last;
        let mut form = Form {
            version: VERSION,
            source_id: self.source_id.clone(),
            databases: databases.clone(),
            sequence: turns.sequence + 1,
            crc32c: None,
        };
        form.crc32c = Some(form.checksum());
        self.replace(index, &form)?;
        (turns.last, turns.sequence) = (index, form.sequence);
        Ok(())
    }

    /// Writes in place, or a new file where there is none, or it is too short. On the medium when it returns; nobody knows what the file
    /// has otherwise.
    fn replace(&self, index: usize, form: &Form) -> Result<(), CheckpointError> {
        let path = self.dir.join(NAMES[index]);
        // By its name each time: whoever has removed it, or the directory, would find nothing of what goes to an open one.
        let opened = match self.disk.open(&path, OpenMode::Write) {
            Ok(file) => file.len().map(|len| Some((file, len))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let opened = opened.map_err(|source| not_written(path.clone(), source))?;
        let len = opened.as_ref().map_or(0, |(_, len)| *len);
        let bytes = form.to_bytes(usize::try_from(len.min(MAX_LEN)).unwrap_or(0));
        match opened.filter(|(_, len)| bytes.len() as u64 == *len) {
            Some((file, _)) => write(&*file, &bytes).map_err(|source| not_written(path, source)),
            None => self.create(index, &bytes),
        }
    }

    /// Writes a file anew that has these bytes; in place where there is no room for another one, which nothing can tear.
    fn write_again(&self, index: usize, bytes: &[u8]) -> Result<(), CheckpointError> {
        match self.create(index, bytes) {
            Err(CheckpointError::Disk { source, .. }) if is_full(&source) => {
                let path = self.dir.join(NAMES[index]);
                let again = || {
                    write(&*self.disk.open(&path, OpenMode::Write)?, bytes)?;
                    self.disk.sync_dir(&self.dir)
                };
                again().map_err(|source| not_written(path.clone(), source))
            }
            created => created,
        }
    }

    /// Writes a new file: there is all of it, or what was there before.
    fn create(&self, index: usize, bytes: &[u8]) -> Result<(), CheckpointError> {
        let (path, next) = (self.dir.join(NAMES[index]), self.dir.join(NEXT));
        let create = || {
            let file = self.disk.open(&next, OpenMode::CreateOrWrite)?;
            file.set_len(0)?;
            write(&*file, bytes)?;
            self.disk.rename(&next, &path)?;
            self.disk.sync_dir(&self.dir)
        };
        create().map_err(|source| not_written(path.clone(), source))
    }
}

fn write(file: &dyn File, bytes: &[u8]) -> io::Result<()> {
    file.write_at(&mut [IoSlice::new(bytes)], 0)?;
    file.sync_data()
}

fn not_written(path: PathBuf, source: io::Error) -> CheckpointError {
    let what = "write";
    CheckpointError::Disk { what, path, source }
}

/// What was saved last in a directory, whoever uses it; nothing if there is no file.
///
/// # Errors
///
/// [`CheckpointError`].
pub fn peek(env: &Env, dir: &Path, source_id: &str) -> Result<Checkpoints, CheckpointError> {
    let newest = newest(&*env.disk, dir, source_id)?;
    Ok(newest.map(|newest| newest.form.databases).unwrap_or_default())
}

/// A file, as it was found.
enum Found {
    Nothing,
    Whole(Form, Vec<u8>),
    /// It was being written when the process or the machine ended, or is damaged.
    Torn(CheckpointError),
}

/// One of the two that is whole.
struct Whole {
    index: usize,
    form: Form,
    bytes: Vec<u8>,
}

/// The one of the two that was written last. What one that is torn was to say was told to nobody.
fn newest(disk: &dyn Disk, dir: &Path, source_id: &str) -> Result<Option<Whole>, CheckpointError> {
    let (mut found, mut torn) = (Vec::new(), None);
    for (index, name) in NAMES.iter().enumerate() {
        match read(disk, &dir.join(name), source_id)? {
            Found::Nothing => {}
            Found::Whole(form, bytes) => found.push(Whole { index, form, bytes }),
            Found::Torn(error) => torn = Some(error),
        }
    }
    match (found.into_iter().max_by_key(|whole| whole.form.order()), torn) {
        (None, Some(error)) => Err(error),
        (Some(whole), Some(error)) => {
            warn!(
                "{error}; the positions of {} count, which were saved before",
                NAMES[whole.index]
            );
            Ok(Some(whole))
        }
        (newest, None) => Ok(newest),
    }
}

fn read(disk: &dyn Disk, path: &Path, source_id: &str) -> Result<Found, CheckpointError> {
    let path = path.to_owned();
    let failed = |source| CheckpointError::Disk {
        what: "read",
        path: path.clone(),
        source,
    };
    let damaged = |why: String| CheckpointError::Damaged {
        path: path.clone(),
        why,
    };
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(failed(error)),
    };
    let len = file.len().map_err(failed)?;
    if len > MAX_LEN {
        return Err(damaged(format!("it has {len} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    // What was written in place has this length, torn or not. Of any other somebody has written it.
    let torn = |why: String| match bytes.len() {
        len if len > 0 && len.is_multiple_of(FILLED) => Ok(Found::Torn(damaged(why))),
        _ => Err(damaged(why)),
    };
    // The version first: a newer form may have other fields.
    let value: serde_json::Value = match serde_json::from_slice(&bytes) {
        Ok(value) => value,
        Err(error) => return torn(error.to_string()),
    };
    let version = value["version"].as_u64().unwrap_or(0);
    if version > u64::from(VERSION) {
        return Err(CheckpointError::Newer {
            path,
            found: u32::try_from(version).unwrap_or(u32::MAX),
        });
    }
    let form: Form = match serde_json::from_value(value) {
        Ok(form) => form,
        Err(error) => return torn(error.to_string()),
    };
    if form.crc32c.is_some_and(|sum| sum != form.checksum()) {
        let why = "its checksum is not that of its positions; whoever changes them takes the line crc32c out";
        return torn(why.to_owned());
    }
    if form.source_id != source_id {
        return Err(CheckpointError::OtherSource {
            path,
            found: form.source_id,
            wanted: source_id.to_owned(),
        });
    }
    Ok(Found::Whole(form, bytes))
}

impl std::fmt::Debug for PositionFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PositionFile({})", self.dir.display())
    }
}

#[cfg(test)]
mod tests {
    use takhin_pika::Position;
    use takhin_runtime::disk::sim::{CrashMode, Fault, FaultRule, Op, SimDisk, When};

    use super::*;

    fn open(dir: &Path) -> Result<PositionFile, CheckpointError> {
        PositionFile::open(&Env::real(), dir, "10.0.0.1:9221")
    }

    fn at(offset: u64) -> Checkpoints {
        let checkpoint = Checkpoint::new("s", "db0", "", Position::new(0, offset), 5);
        Checkpoints::from([("db0".to_owned(), checkpoint)])
    }

    fn offset_of(file: &PositionFile) -> Option<u64> {
        file.saved("db0").map(|saved| saved.offset)
    }

    fn on(disk: &SimDisk) -> PositionFile {
        let env = Env {
            disk: Arc::new(disk.incarnation()),
            ..Env::real()
        };
        PositionFile::open(&env, Path::new("/cdc"), "s").unwrap()
    }

    /// What was received is deleted up to what is said here: fails if that is said before it is so.
    #[test]
    fn what_is_said_to_be_saved_outlives_a_loss_of_power() {
        let created = [Op::Write, Op::SyncData, Op::Rename, Op::SyncDir];
        let in_place = [Op::Write, Op::SyncData];
        for seed in 0..300_u64 {
            let disk = SimDisk::new(seed);
            let file = on(&disk);
            assert_eq!(
                (offset_of(&file), file.load().unwrap()),
                (None, Checkpoints::new())
            );
            let before = 1 + seed % 4;
            for offset in 1..=before {
                file.save(&at(offset)).unwrap();
            }
            let turn = usize::try_from(seed / 4).unwrap();
            let op = match before {
                1 => created[turn % 4],
                _ => in_place[turn % 2],
            };
            disk.arm(FaultRule {
                op,
                path: String::new(),
                when: When::Nth(1),
                fault: Fault::Eio,
            });
            assert!(file.save(&at(10)).is_err(), "{seed} {op:?}");
            assert_eq!(offset_of(&file), Some(before));
            // The next attempt reads what is there, and goes on.
            if turn % 3 > 0 {
                file.load().unwrap();
            }
            if turn % 3 > 1 {
                file.save(&at(20)).unwrap();
            }
            let mut saved = offset_of(&file);
            for mode in [CrashMode::Process, CrashMode::Power, CrashMode::Power] {
                disk.crash(mode);
                let file = on(&disk);
                file.load().unwrap();
                assert!(offset_of(&file) >= saved, "{seed} {op:?} {mode:?}");
                saved = offset_of(&file);
            }
        }
    }

    /// Whatever was being read when the disk failed, the file that was written last is not the one that is written next.
    #[test]
    fn a_load_that_fails_does_not_take_positions_back() {
        for op in [
            Op::Open,
            Op::Read,
            Op::Write,
            Op::SyncData,
            Op::Rename,
            Op::SyncDir,
        ] {
            for before in 1..=4 {
                let disk = SimDisk::new(before);
                let file = on(&disk);
                for offset in 1..=before {
                    file.save(&at(offset)).unwrap();
                }
                disk.arm(FaultRule {
                    op,
                    path: String::new(),
                    when: When::Nth(1),
                    fault: Fault::Eio,
                });
                assert!(file.load().is_err(), "{op:?}");
                for offset in [before, before + 1] {
                    file.save(&at(offset)).unwrap();
                    let found = file.load().unwrap();
                    assert_eq!(found, at(offset), "{op:?} after {before}");
                }
                drop(file);
                disk.crash(CrashMode::Power);
                assert_eq!(on(&disk).load().unwrap(), at(before + 1), "{op:?} after {before}");
            }
        }
    }

    /// The file system's journal is waited for where names and lengths change.
    #[test]
    fn a_save_waits_for_the_medium_once() {
        let disk = SimDisk::new(0);
        let file = on(&disk);
        file.load().unwrap();
        for offset in 1..=2 {
            file.save(&at(offset)).unwrap();
        }
        for op in [Op::SetLen, Op::Rename, Op::SyncDir] {
            let (path, when, fault) = (String::new(), When::Always, Fault::Eio);
            disk.arm(FaultRule {
                op,
                path,
                when,
                fault,
            });
        }
        for offset in 3..100 {
            file.save(&at(offset * 1_000_000_000)).unwrap();
        }
    }

    /// Whoever was killed or lost power amid a save left half of it.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "it damages the file")]
    fn what_is_torn_gives_way_to_what_was_saved_before() {
        let dir = tempfile::tempdir().unwrap();
        let of = |offset| {
            let checkpoint = Checkpoint::new("10.0.0.1:9221", "db0", "r", Position::new(3, offset), 5);
            Checkpoints::from([("db0".to_owned(), checkpoint)])
        };
        let file = open(dir.path()).unwrap();
        for offset in 1..=5 {
            file.save(&of(offset)).unwrap();
        }
        let paths = NAMES.map(|name| dir.path().join(name));
        let whole = std::fs::read(&paths[0]).unwrap();
        let mut torn = std::fs::read(&paths[1]).unwrap();
        torn[..300].copy_from_slice(&whole[..300]);
        for (offset, torn) in [(5, torn), (5, vec![0; whole.len()])] {
            std::fs::write(&paths[1], torn).unwrap();
            assert_eq!(file.load().unwrap(), of(offset));
            // Nothing was written over what is whole.
            assert_eq!(std::fs::read(&paths[0]).unwrap(), whole);
        }
        file.save(&of(6)).unwrap();
        assert_eq!(std::fs::read(&paths[0]).unwrap(), whole);
        assert_eq!(file.load().unwrap(), of(6));
        // What somebody has written is no half of a save, wherever it is wrong.
        std::fs::write(&paths[0], "{\"version\": 2,").unwrap();
        assert!(matches!(file.load(), Err(CheckpointError::Damaged { .. })));
        // Nor is it passed over for a number.
        let by_hand = String::from_utf8(whole).unwrap();
        let line = by_hand.lines().find(|line| line.contains("crc32c")).unwrap();
        let by_hand = by_hand.replace(&format!(",\n{line}"), "");
        std::fs::write(&paths[0], by_hand).unwrap();
        assert_eq!(file.load().unwrap(), of(5));
        file.save(&of(4)).unwrap();
        assert_eq!(file.load().unwrap(), of(4));
        // Longer ones are made anew.
        let many = |offset| -> Checkpoints {
            let of = |db: u32| (format!("db{db}"), of(offset)["db0"].clone());
            (0..64).map(of).collect()
        };
        for offset in 1..=3 {
            file.save(&many(offset)).unwrap();
            assert_eq!(file.load().unwrap(), many(offset));
        }
    }

    /// A digit that has changed is another position, from which the master might well send what it has.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "it damages the file")]
    fn no_byte_can_be_spoiled_unnoticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(dir.path()).unwrap();
        let mut checkpoint = Checkpoint::new("10.0.0.1:9221", "db0", "r", Position::new(3, 4567), 5);
        (checkpoint.epoch, checkpoint.partitions) = (1, 4);
        let saved = Checkpoints::from([("db0".to_owned(), checkpoint)]);
        file.save(&saved).unwrap();
        let path = dir.path().join(NAMES[0]);
        let peek = || peek(&Env::real(), dir.path(), "10.0.0.1:9221");
        let whole = std::fs::read(&path).unwrap();
        let mut refused = 0;
        let is_filling = |at: usize| whole[..at].ends_with(b"    ") && whole[at..].starts_with(b"    ");
        for at in (0..whole.len()).filter(|at| !is_filling(*at)) {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, &bytes).unwrap();
                match peek() {
                    Ok(loaded) => assert_eq!(loaded, saved, "{}", String::from_utf8_lossy(&bytes)),
                    Err(_) => refused += 1,
                }
            }
            // The last byte ends a line.
            std::fs::write(&path, &whole[..at.min(whole.len() - 2)]).unwrap();
            assert!(peek().is_err(), "cut after {at} bytes");
        }
        assert!(refused > 1000, "{refused}");
        let by_hand = String::from_utf8(whole).unwrap();
        let line = by_hand.lines().find(|line| line.contains("crc32c")).unwrap();
        let by_hand = by_hand.replace("4567", "4568").replace(&format!(",\n{line}"), "");
        std::fs::write(&path, by_hand).unwrap();
        assert_eq!(file.load().unwrap()["db0"].offset, 4568);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "it damages the file")]
    fn what_is_saved_is_loaded_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(dir.path()).unwrap();
        assert!(file.load().unwrap().is_empty());
        let checkpoint = Checkpoint::new("10.0.0.1:9221", "db0", "r", Position::new(3, 4), 5);
        let saved = Checkpoints::from([("db0".to_owned(), checkpoint)]);
        file.save(&saved).unwrap();
        assert_eq!(file.load().unwrap(), saved);
        // As builds of before have it, for whom the sum is of less.
        let sum = checksum(&serde_json::to_vec(&("10.0.0.1:9221", &saved)).unwrap());
        let old = serde_json::json!({ "version": 1, "source_id": "10.0.0.1:9221", "databases": saved, "crc32c": sum });
        std::fs::write(dir.path().join(NAMES[0]), old.to_string()).unwrap();
        assert_eq!(file.load().unwrap(), saved);
        // Those refuse what they would go on from.
        let now = std::fs::read(dir.path().join(NAMES[0])).unwrap();
        let now: serde_json::Value = serde_json::from_slice(&now).unwrap();
        assert_eq!(now["version"], VERSION);
        file.save(&saved).unwrap();
        assert_eq!(file.load().unwrap(), saved);
        assert!(matches!(open(dir.path()), Err(CheckpointError::Locked(_))));
        drop(file);
        let other = PositionFile::open(&Env::real(), dir.path(), "other:1").unwrap();
        assert!(matches!(other.load(), Err(CheckpointError::OtherSource { .. })));
        drop(other);

        let file = open(dir.path()).unwrap();
        let path = dir.path().join(NAMES[0]);
        std::fs::write(&path, "{\"version\": 3}").unwrap();
        assert!(matches!(
            file.load(),
            Err(CheckpointError::Newer { found: 3, .. })
        ));
        std::fs::write(&path, "{\"version\": 1").unwrap();
        assert!(matches!(file.load(), Err(CheckpointError::Damaged { .. })));
    }
}
