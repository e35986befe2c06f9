//! The directory in which a dump arrives.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use md5::{Digest as _, Md5};
use takhin_pika::info::DumpInfo;
use takhin_pika::storage::{blackwidow, nemo};
use takhin_runtime::{Disk, Env, OpenMode};

use crate::source::error::SourceError;
use crate::source::transfer::{Dump, INFO, MAX_FILES, is_plain};

/// Longest `info` file in bytes.
const MAX_INFO: u64 = 1 << 16;

/// What every database has.
const CURRENT: &str = "CURRENT";

/// Where a dump arrives, and what it consists of.
#[derive(Debug, Clone)]
pub(in crate::source) struct Folder {
    db: String,
    dir: PathBuf,
    /// Folders that the master pushes to, and expects to be there.
    types: Vec<&'static str>,
}

/// Why there is no dump.
enum Fault {
    Disk(io::Error),
    Dump(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A name that is no text.
            io::ErrorKind::InvalidData => {
                Self::Dump(format!("the master has pushed what is none of a dump: {error}"))
            }
            _ => Self::Disk(error),
        }
    }
}

impl Folder {
    /// The directory for the dump of a database of a master of this version.
    pub(in crate::source) fn new(db: &str, dir: PathBuf, version: &str) -> Self {
        // Streams are later than masters that push.
        let types = match version.starts_with("2.") {
            true => nemo::DIRECTORIES.iter().map(|(name, _)| *name).collect(),
            false => blackwidow::DIRECTORIES[..5]
                .iter()
                .map(|(name, _)| *name)
                .collect(),
        };
        Self {
            db: db.to_owned(),
            dir,
            types,
        }
    }

    /// The directory.
    pub(in crate::source) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes it an empty one.
    pub(super) async fn empty(&self, env: &Env) -> Result<(), SourceError> {
        self.remove(env).await?;
        let (disk, folder) = (Arc::clone(&env.disk), self.clone());
        let made = env.tasks.blocking(move || {
            disk.create_dir_all(&folder.dir)?;
            let make = |name: &&str| disk.create_dir_all(&folder.dir.join(name));
            folder.types.iter().try_for_each(make)
        });
        made.await.map_err(|source| self.disk(source))
    }

    /// Deletes it. What says that it is whole is gone first.
    pub(in crate::source) async fn remove(&self, env: &Env) -> Result<(), SourceError> {
        let (disk, dir) = (Arc::clone(&env.disk), self.dir.clone());
        let removed = env.tasks.blocking(move || {
            if !disk.exists(&dir)? {
                return Ok(());
            }
            match disk.remove_file(&dir.join(INFO)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => disk.sync_dir(&dir)?,
            }
            disk.remove_dir_all(&dir)
        });
        removed.await.map_err(|source| self.disk(source))
    }

    /// Has a dump that was found outlive a loss of power: what receives it syncs nothing, and a log of RocksDB that has lost its end, or
    /// all of it, is opened without a word. What says that it is whole comes last.
    pub(in crate::source) async fn sync(&self, env: &Env, dump: &Dump) -> Result<(), SourceError> {
        let (disk, folder, files) = (Arc::clone(&env.disk), self.clone(), dump.files.clone());
        let synced = env.tasks.blocking(move || {
            let sync = |name: &String| disk.open(&folder.dir.join(name), OpenMode::Write)?.sync_data();
            files.iter().filter(|name| *name != INFO).try_for_each(sync)?;
            for name in &folder.types {
                disk.sync_dir(&folder.dir.join(name))?;
            }
            disk.open(&folder.dir.join(INFO), OpenMode::Write)?.sync_data()?;
            disk.sync_dir(&folder.dir)
        });
        synced.await.map_err(|source| self.disk(source))
    }

    /// The dump, if it is whole: the master sends `info` last.
    pub(in crate::source) async fn look(&self, env: &Env) -> Result<Option<Dump>, SourceError> {
        let (disk, folder) = (Arc::clone(&env.disk), self.clone());
        let found = env.tasks.blocking(move || folder.read(&*disk)).await;
        found.map_err(|fault| match fault {
            Fault::Disk(source) => self.disk(source),
            Fault::Dump(why) => SourceError::Snapshot {
                db: self.db.clone(),
                why,
            },
        })
    }

    fn read(&self, disk: &dyn Disk) -> Result<Option<Dump>, Fault> {
        let path = self.dir.join(INFO);
        if !disk.exists(&path)? {
            return Ok(None);
        }
        let mut files = Vec::new();
        for entry in disk.read_dir(&self.dir)? {
            let strange = || {
                Fault::Dump(format!(
                    "the master has pushed {}, which is none of a dump",
                    entry.name.escape_default()
                ))
            };
            match (entry.is_dir, entry.name.as_str()) {
                (false, INFO) => files.push(entry.name),
                (true, name) if self.types.contains(&name) => files.extend(self.database(disk, name)?),
                _ => return Err(strange()),
            }
        }
        for folder in &self.types {
            let current = format!("{folder}/{CURRENT}");
            if !files.contains(&current) {
                return Err(Fault::Dump(format!("the master has pushed no {current}")));
            }
        }
        let text = read_info(disk, &path)?;
        let info = std::str::from_utf8(&text).ok().and_then(DumpInfo::parse);
        let info = info.ok_or_else(|| {
            Fault::Dump("the master has pushed an info file that makes no sense".to_owned())
        })?;
        let uuid = Md5::digest(&text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let dir = self.dir.clone();
        Ok(Some(Dump {
            dir,
            files,
            info,
            uuid,
        }))
    }

    /// The files of one database.
    fn database(&self, disk: &dyn Disk, folder: &str) -> Result<Vec<String>, Fault> {
        let mut files = Vec::new();
        for entry in disk.read_dir(&self.dir.join(folder))? {
            if entry.is_dir || !is_plain(&entry.name) || files.len() >= MAX_FILES {
                let name = entry.name.escape_default();
                return Err(Fault::Dump(format!(
                    "the master has pushed {folder}/{name}, which is none of a dump"
                )));
            }
            files.push(format!("{folder}/{}", entry.name));
        }
        Ok(files)
    }

    fn disk(&self, source: io::Error) -> SourceError {
        SourceError::SnapshotDisk {
            dir: self.dir.display().to_string(),
            source,
        }
    }
}

fn read_info(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?.min(MAX_INFO)).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use takhin_runtime::disk::sim::{CrashMode, SimDisk};

    use super::*;

    const INFO_TEXT: &[u8] = b"0s\nhost\n9221\n3\n4\n";

    fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
        let file = disk.open(path, OpenMode::CreateOrWrite).unwrap();
        file.write_at(&mut [IoSlice::new(bytes)], 0).unwrap();
    }

    fn content(disk: &dyn Disk, path: &Path) -> Vec<u8> {
        let file = disk.open(path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Fails without any one of the syncs: a start after a loss of power relies on the dump that it finds.
    #[tokio::test]
    async fn a_dump_outlives_a_loss_of_power() {
        for seed in 0..40 {
            let disk = SimDisk::new(seed);
            let env = Env {
                disk: Arc::new(disk.incarnation()),
                ..Env::real()
            };
            let folder = Folder::new("db0", "/cdc/rsync/db0".into(), "3.0.16");
            folder.empty(&env).await.unwrap();
            let log = vec![b'x'; 9000];
            for name in &folder.types {
                let dir = folder.dir.join(name);
                write(&*env.disk, &dir.join(CURRENT), b"MANIFEST-000001\n");
                write(&*env.disk, &dir.join("000003.log"), &log);
            }
            write(&*env.disk, &folder.dir.join(INFO), INFO_TEXT);
            let dump = folder.look(&env).await.unwrap().unwrap();
            folder.sync(&env, &dump).await.unwrap();
            disk.crash(CrashMode::Power);
            let env = Env {
                disk: Arc::new(disk.incarnation()),
                ..Env::real()
            };
            let found = folder.look(&env).await.unwrap().expect("the dump is gone");
            assert_eq!(found.files.len(), dump.files.len());
            for name in &folder.types {
                let path = folder.dir.join(name).join("000003.log");
                assert_eq!(content(&*env.disk, &path), log, "seed {seed}: {name}");
            }
        }
    }
}
