//! The position file: whole or not at all, and on the medium before anybody is told.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use takhin_runtime::{Disk, Env, OpenMode};

use super::{Checkpoint, Checkpoints, VERSION};
use crate::wal::checksum;

/// Its name.
const NAME: &str = "checkpoint.json";

/// The next one, until it is whole.
const NEXT: &str = "checkpoint.json.next";

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

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; nothing is acknowledged to the master until there is room"
        }
        _ => "",
    }
}

#[derive(Serialize, Deserialize)]
struct Form {
    version: u32,
    source_id: String,
    databases: Checkpoints,
    /// CRC-32C of the two before it; none where somebody has written the file by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32c: Option<u32>,
}

impl Form {
    /// The checksum that it should have, whatever its white space.
    fn checksum(&self) -> u32 {
        // Strings and numbers always serialize.
        let bytes = serde_json::to_vec(&(&self.source_id, &self.databases)).unwrap_or_default();
        checksum(&bytes)
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
    using: Mutex<()>,
    _lock: Box<dyn Send + Sync>,
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

    /// What was saved last; nothing if there is no file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`].
    pub fn load(&self) -> Result<Checkpoints, CheckpointError> {
        let _using = self.using.lock();
        let databases = peek_in(&*self.disk, &self.dir, &self.source_id)?;
        self.saved.lock().clone_from(&databases);
        Ok(databases)
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
        let mut form = Form {
            version: VERSION,
            source_id: self.source_id.clone(),
            databases: databases.clone(),
            crc32c: None,
        };
        form.crc32c = Some(form.checksum());
        // Strings and numbers always serialize.
        let mut bytes = serde_json::to_vec_pretty(&form).unwrap_or_default();
        bytes.push(b'\n');
        let (next, path) = (self.dir.join(NEXT), self.dir.join(NAME));
        let _using = self.using.lock();
        let write = || {
            let file = self.disk.open(&next, OpenMode::CreateOrWrite)?;
            file.set_len(0)?;
            file.write_at(&mut [IoSlice::new(&bytes)], 0)?;
            file.sync_data()?;
            self.disk.rename(&next, &path)?;
            self.disk.sync_dir(&self.dir)
        };
        write().map_err(|source| CheckpointError::Disk {
            what: "write",
            path: path.clone(),
            source,
        })?;
        self.saved.lock().clone_from(databases);
        Ok(())
    }
}

/// What was saved last in a directory, whoever uses it; nothing if there is no file.
///
/// # Errors
///
/// [`CheckpointError`].
pub fn peek(env: &Env, dir: &Path, source_id: &str) -> Result<Checkpoints, CheckpointError> {
    peek_in(&*env.disk, dir, source_id)
}

fn peek_in(disk: &dyn Disk, dir: &Path, source_id: &str) -> Result<Checkpoints, CheckpointError> {
    let path = dir.join(NAME);
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Checkpoints::new()),
        Err(error) => return Err(failed(error)),
    };
    let len = file.len().map_err(failed)?;
    if len > MAX_LEN {
        return Err(damaged(format!("it has {len} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    // The version first: a newer form may have other fields.
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let version = value["version"].as_u64().unwrap_or(0);
    if version > u64::from(VERSION) {
        return Err(CheckpointError::Newer {
            path,
            found: u32::try_from(version).unwrap_or(u32::MAX),
        });
    }
    let form: Form = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    if form.source_id != source_id {
        return Err(CheckpointError::OtherSource {
            path,
            found: form.source_id,
            wanted: source_id.to_owned(),
        });
    }
    if form.crc32c.is_some_and(|sum| sum != form.checksum()) {
        let why = "its checksum is not that of its positions; whoever changes them takes the line crc32c out";
        return Err(damaged(why.to_owned()));
    }
    Ok(form.databases)
}

impl std::fmt::Debug for PositionFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PositionFile({})", self.dir.display())
    }
}

impl Checkpoint {
    /// Whether it may be used: of this source, and of a version that is known.
    pub(super) fn is_of(&self, source_id: &str) -> bool {
        self.source_id == source_id && self.is_known()
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

    /// What was received is deleted up to what is said here: fails if that is said before it is so.
    #[test]
    fn what_is_said_to_be_saved_outlives_a_loss_of_power() {
        let at = |offset| {
            let checkpoint = Checkpoint::new("s", "db0", "", Position::new(0, offset), 5);
            Checkpoints::from([("db0".to_owned(), checkpoint)])
        };
        for (seed, op) in (0..60).zip(
            [Op::Write, Op::SyncData, Op::Rename, Op::SyncDir]
                .into_iter()
                .cycle(),
        ) {
            let disk = SimDisk::new(seed);
            let open = || {
                let env = Env {
                    disk: Arc::new(disk.incarnation()),
                    ..Env::real()
                };
                PositionFile::open(&env, Path::new("/cdc"), "s").unwrap()
            };
            let file = open();
            assert_eq!(file.saved("db0"), None);
            file.save(&at(1)).unwrap();
            disk.arm(FaultRule {
                op,
                path: String::new(),
                when: When::Nth(1),
                fault: Fault::Eio,
            });
            assert!(file.save(&at(2)).is_err());
            let saved = || file.saved("db0").map(|saved| saved.position());
            assert_eq!(saved(), Some(Position::new(0, 1)));
            // Half of the times with each fault.
            if (seed / 4) % 2 == 0 {
                file.save(&at(3)).unwrap();
            }
            let saved = saved();
            disk.crash(CrashMode::Power);
            let file = open();
            file.load().unwrap();
            let found = file.saved("db0").map(|saved| saved.position());
            assert!(found >= saved, "{seed} {op:?}");
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
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        let mut refused = 0;
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, &bytes).unwrap();
                match file.load() {
                    Ok(loaded) => assert_eq!(loaded, saved, "{}", String::from_utf8_lossy(&bytes)),
                    Err(_) => refused += 1,
                }
            }
            // The last byte ends a line.
            std::fs::write(&path, &whole[..at.min(whole.len() - 2)]).unwrap();
            assert!(file.load().is_err(), "cut after {at} bytes");
        }
        assert!(refused > whole.len(), "{refused}");
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
        assert!(matches!(open(dir.path()), Err(CheckpointError::Locked(_))));
        drop(file);
        let other = PositionFile::open(&Env::real(), dir.path(), "other:1").unwrap();
        assert!(matches!(other.load(), Err(CheckpointError::OtherSource { .. })));
        drop(other);

        let file = open(dir.path()).unwrap();
        let path = dir.path().join(NAME);
        std::fs::write(&path, "{\"version\": 2}").unwrap();
        assert!(matches!(
            file.load(),
            Err(CheckpointError::Newer { found: 2, .. })
        ));
        std::fs::write(&path, "{\"version\": 1").unwrap();
        assert!(matches!(file.load(), Err(CheckpointError::Damaged { .. })));
    }
}
