//! A node's data directory: whose it is, that nobody else uses it, and how its last owner stopped.
//!
//! ```text
//! <data_dir>/lock             held while a process uses the directory
//!            node.meta        identity, written once: node id u32 | cluster id string | directory id 16 bytes
//!                             | created i64 (strings: length u16, UTF-8)
//!            running          boot id of the run in progress: string | recovered u8
//!            clean-shutdown   boot id; written last at close, removed first at open
//!            journal          votes and watermarks, see journal.rs
//!            partitions/<topic id>-<partition>/
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};
use takhin_runtime::disk::Disk;
use uuid::Uuid;

use crate::entry::PreviousStop;
use crate::error::LogError;
use crate::format::{FrameError, INSTALLED, Kind, NewerFormat, STATE};
use crate::journal::{Journal, JournalError};
use crate::whole::{self, Found};

const LOCK: &str = "lock";
const META: &str = "node.meta";
const RUNNING: &str = "running";
const CLEAN: &str = "clean-shutdown";
const JOURNAL: &str = "journal";
const PARTITIONS: &str = "partitions";

/// Why a data directory cannot be used. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("{path} is in use by another process: stop it, or set node.data_dir to another directory", path = path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to another node.
    #[error("{path} belongs to node {found}, not to node {expected}: set node.id to {found} or node.data_dir to another directory", path = path.display())]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Node id in the directory.
        found: u32,
        /// Node id in the configuration.
        expected: u32,
    },
    /// It belongs to another cluster.
    #[error("{path} belongs to cluster {found:?}, not to {expected:?}: set node.data_dir to another directory", path = path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Cluster id in the directory.
        found: String,
        /// Cluster id expected.
        expected: String,
    },
    /// A file of it was written by a newer release.
    #[error("{path}: {newer}", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        newer: NewerFormat,
    },
    /// It cannot be written.
    #[error("{path} is not writable: give this user write permission or set node.data_dir to another directory", path = path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
    /// Its identity cannot be read.
    #[error("{path} is damaged: restore it from a copy, or empty the directory so that the node rejoins as a new one", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It holds files but no identity.
    #[error("{path} is not empty and not a data directory: set node.data_dir to another directory", path = path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The journal with the votes cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Some other operation failed.
    #[error(transparent)]
    Disk(#[from] LogError),
}

/// Whose a data directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeMeta {
    /// Node (broker) id.
    pub node_id: u32,
    /// Cluster id; empty until the node has joined one.
    pub cluster_id: String,
    /// Identity of this directory: with the node id, the identity of a Raft voter.
    pub directory_id: Uuid,
    /// When it was initialised, milliseconds since the epoch.
    pub created_ms: i64,
}

/// What the configuration expects of a data directory, and what to write into an empty one.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The configured node id.
    pub node_id: u32,
    /// The cluster id, if it is known already.
    pub cluster_id: Option<String>,
    /// Directory id for an empty directory; random.
    pub new_directory_id: Uuid,
    /// Now, milliseconds since the epoch.
    pub now_ms: i64,
}

/// An open data directory, locked until it is dropped.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    meta: NodeMeta,
    previous: PreviousStop,
    journal: Arc<Journal>,
    boot_id: String,
    /// Whether this open made it.
    is_new: bool,
    _lock: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataDir")
            .field("path", &self.path)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

impl DataDir {
    /// Locks and opens a data directory; initialises an empty one.
    ///
    /// After this the directory counts as not cleanly stopped until [`DataDir::close`].
    ///
    /// # Errors
    /// A directory in which a newer release has written (`DataDirError::Newer`, `JournalError::Newer`) is left as it is.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, expected: &Expected) -> Result<Self, DataDirError> {
        let not_writable = |source| DataDirError::NotWritable {
            path: path.to_owned(),
            source,
        };
        disk.create_dir_all(path).map_err(not_writable)?;
        let lock = disk.lock(&path.join(LOCK)).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => DataDirError::Locked {
                path: path.to_owned(),
            },
            _ => not_writable(e),
        })?;
        let boot_id = disk
            .boot_id()
            .map_err(|e| LogError::io("read the boot id for", path, e))?;
        let found = read_meta(&*disk, path)?;
        let is_new = found.is_none();
        let (meta, previous, journal) = match found {
            Some(meta) => {
                check_meta(path, &meta, expected)?;
                check_logs(&*disk, &path.join(PARTITIONS))?;
                let previous = previous_stop(&*disk, path, &boot_id)?;
                let journal = Journal::open(disk.clone(), &path.join(JOURNAL), previous)?;
                (meta, previous, journal)
            }
            None => initialise(&disk, path, expected)?,
        };
        let dir = Self {
            disk,
            path: path.to_owned(),
            meta,
            previous,
            journal: Arc::new(journal),
            boot_id,
            is_new,
            _lock: lock,
        };
        // A power loss is remembered until every log has recovered from it, also if this run is killed before.
        let recovered = previous != PreviousStop::PowerLoss;
        dir.write_running(recovered)?;
        crate::segment::remove_if_exists(&*dir.disk, &dir.path.join(CLEAN))?;
        dir.disk
            .sync_dir(path)
            .map_err(|e| LogError::io("sync directory", path, e))?;
        Ok(dir)
    }

    /// How the previous owner stopped.
    pub fn previous_stop(&self) -> PreviousStop {
        self.previous
    }

    /// Whose directory it is.
    pub fn meta(&self) -> &NodeMeta {
        &self.meta
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the logs are.
    pub fn partitions(&self) -> PathBuf {
        self.path.join(PARTITIONS)
    }

    /// The journal for votes and watermarks.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Writes the cluster id down once the node has joined; durable on return.
    ///
    /// # Errors
    ///
    /// `OtherCluster` if another one is written there already.
    pub fn set_cluster_id(&mut self, cluster_id: &str) -> Result<(), DataDirError> {
        if self.meta.cluster_id == cluster_id {
            return Ok(());
        }
        if !self.meta.cluster_id.is_empty() {
            return Err(DataDirError::OtherCluster {
                path: self.path.clone(),
                found: self.meta.cluster_id.clone(),
                expected: cluster_id.to_owned(),
            });
        }
        let meta = NodeMeta {
            cluster_id: cluster_id.to_owned(),
            ..self.meta.clone()
        };
        whole::write_durable(
            &*self.disk,
            &self.path.join(META),
            Kind::NodeMeta,
            &encode_meta(&meta),
        )?;
        self.meta = meta;
        Ok(())
    }

    /// Every log has been opened: a kill from now on is only a kill, whatever came before this run.
    pub fn recovered(&self) -> Result<(), DataDirError> {
        Ok(self.write_running(true)?)
    }

    /// Empties a directory that this open has made and in which nothing has been promised, so that it is not taken for
    /// this node's later; any other stays as it is. Nothing else may use it any more.
    ///
    /// Invariant: what was promised stands in the journal before anybody hears of it (votes, and with them every entry that
    /// was accepted), so a journal that is empty means that nobody counts on this directory. The identity goes when
    /// no partition is left, so that a crash in between leaves a directory that the next start takes.
    pub fn discard(self) -> Result<(), LogError> {
        if !self.is_new || !self.journal.iter(&[]).is_empty() {
            return Ok(());
        }
        let failed = |e| LogError::io("empty", &self.path, e);
        let partitions = self.path.join(PARTITIONS);
        for entry in self.disk.read_dir(&partitions).map_err(failed)? {
            let path = partitions.join(entry.name);
            self.disk.remove_dir_all(&path).map_err(failed)?;
        }
        self.disk.sync_dir(&partitions).map_err(failed)?;
        for file in [RUNNING, META, JOURNAL, LOCK] {
            crate::segment::remove_if_exists(&*self.disk, &self.path.join(file))?;
            self.disk.sync_dir(&self.path).map_err(failed)?;
        }
        self.disk.remove_dir_all(&partitions).map_err(failed)
    }

    /// Marks the directory as cleanly stopped. Every log must be closed and its watermark be in the journal.
    pub fn close(self) -> Result<(), DataDirError> {
        self.journal.put(&[], true)?;
        let path = self.path.join(CLEAN);
        Ok(whole::write_durable(
            &*self.disk,
            &path,
            Kind::Run,
            self.boot_id.as_bytes(),
        )?)
    }

    fn write_running(&self, recovered: bool) -> Result<(), LogError> {
        let mut body = Vec::new();
        body.put_u8(u8::from(recovered));
        body.put_slice(self.boot_id.as_bytes());
        whole::write_durable(&*self.disk, &self.path.join(RUNNING), Kind::Run, &body)
    }
}

/// Reads the identity; `None` for a directory that holds nothing but perhaps our lock and leftovers of a first start.
fn read_meta(disk: &dyn Disk, path: &Path) -> Result<Option<NodeMeta>, DataDirError> {
    let file = path.join(META);
    let damaged = || DataDirError::Damaged { path: file.clone() };
    match whole::read(disk, &file, Kind::NodeMeta)? {
        Found::Body(body) => decode_meta(&body).map(Some).ok_or_else(damaged),
        Found::Bad(FrameError::Newer(newer)) => Err(DataDirError::Newer { path: file, newer }),
        Found::Bad(FrameError::Damaged) => Err(damaged()),
        Found::Missing => {
            let entries = disk.read_dir(path).map_err(|e| LogError::io("list", path, e))?;
            let ours = [LOCK, JOURNAL, PARTITIONS, "lost+found"];
            let foreign = entries
                .iter()
                .any(|e| !ours.contains(&e.name.as_str()) && !e.name.ends_with(".tmp"));
            let used = disk
                .read_dir(&path.join(PARTITIONS))
                .is_ok_and(|partitions| !partitions.is_empty());
            if foreign || used {
                return Err(DataDirError::Foreign {
                    path: path.to_owned(),
                });
            }
            Ok(None)
        }
    }
}

fn check_meta(path: &Path, meta: &NodeMeta, expected: &Expected) -> Result<(), DataDirError> {
    if meta.node_id != expected.node_id {
        let (found, expected) = (meta.node_id, expected.node_id);
        return Err(DataDirError::OtherNode {
            path: path.to_owned(),
            found,
            expected,
        });
    }
    match &expected.cluster_id {
        Some(id) if !meta.cluster_id.is_empty() && *id != meta.cluster_id => {
            Err(DataDirError::OtherCluster {
                path: path.to_owned(),
                found: meta.cluster_id.clone(),
                expected: id.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// Looks for logs that a newer release has written: all are refused before anything in any of them is changed, whoever
/// opens them, and when.
///
/// Indexes and lists of segments are not looked at: those that cannot be read are made anew.
fn check_logs(disk: &dyn Disk, partitions: &Path) -> Result<(), DataDirError> {
    let entries = match disk.read_dir(partitions) {
        Ok(entries) => entries,
        // Whatever is wrong with it, opening the logs will say.
        Err(_) => return Ok(()),
    };
    for entry in entries.iter().filter(|entry| entry.is_dir) {
        let dir = partitions.join(&entry.name);
        for (name, kind) in [(STATE, Kind::State), (INSTALLED, Kind::Installed)] {
            let path = dir.join(name);
            // One that cannot be read is the trouble of its own log, when that is opened.
            if let Ok(Found::Bad(FrameError::Newer(newer))) = whole::read(disk, &path, kind) {
                return Err(DataDirError::Newer { path, newer });
            }
        }
    }
    Ok(())
}

/// Makes a data directory of an empty one. The identity comes last: a crash before it leaves an empty directory.
fn initialise(
    disk: &Arc<dyn Disk>,
    path: &Path,
    expected: &Expected,
) -> Result<(NodeMeta, PreviousStop, Journal), DataDirError> {
    let partitions = path.join(PARTITIONS);
    disk.create_dir_all(&partitions)
        .map_err(|e| LogError::io("create", &partitions, e))?;
    let journal = Journal::create(disk.clone(), &path.join(JOURNAL))?;
    let meta = NodeMeta {
        node_id: expected.node_id,
        cluster_id: expected.cluster_id.clone().unwrap_or_default(),
        directory_id: expected.new_directory_id,
        created_ms: expected.now_ms,
    };
    whole::write_durable(&**disk, &path.join(META), Kind::NodeMeta, &encode_meta(&meta))?;
    Ok((meta, PreviousStop::Clean, journal))
}

fn previous_stop(disk: &dyn Disk, path: &Path, boot_id: &str) -> Result<PreviousStop, DataDirError> {
    if let Found::Body(_) = whole::read(disk, &path.join(CLEAN), Kind::Run)? {
        return Ok(PreviousStop::Clean);
    }
    let Found::Body(body) = whole::read(disk, &path.join(RUNNING), Kind::Run)? else {
        // Stopped between its first identity and its first run: nothing was written yet that a power loss could tear.
        return Ok(PreviousStop::PowerLoss);
    };
    let same_boot = body.get(1..) == Some(boot_id.as_bytes());
    let recovered = body.first() == Some(&1);
    Ok(if same_boot && recovered {
        PreviousStop::Killed
    } else {
        PreviousStop::PowerLoss
    })
}

fn encode_meta(meta: &NodeMeta) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(meta.node_id);
    out.put_u16(u16::try_from(meta.cluster_id.len()).unwrap_or(u16::MAX));
    out.put_slice(meta.cluster_id.as_bytes());
    out.put_slice(meta.directory_id.as_bytes());
    out.put_i64(meta.created_ms);
    out
}

fn decode_meta(mut b: &[u8]) -> Option<NodeMeta> {
    let node_id = b.try_get_u32().ok()?;
    let len = usize::from(b.try_get_u16().ok()?);
    let cluster_id = String::from_utf8(b.split_off(..len)?.to_vec()).ok()?;
    let directory_id = Uuid::from_slice(b.split_off(..16)?).ok()?;
    let created_ms = b.try_get_i64().ok()?;
    b.is_empty().then_some(NodeMeta {
        node_id,
        cluster_id,
        directory_id,
        created_ms,
    })
}

/// Reads whose directory it is without locking it, for offline tools.
pub fn read_node_meta(disk: &dyn Disk, path: &Path) -> Result<Option<NodeMeta>, DataDirError> {
    read_meta(disk, path)
}

#[cfg(test)]
#[path = "data_dir/tests.rs"]
mod tests;
