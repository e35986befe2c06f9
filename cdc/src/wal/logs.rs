//! The logs of a master's databases, each in a directory of its own: `wal.dir/db0` and so on.
//!
//! There are those of all databases that are followed, or they are about to be: whoever finds some of them writes what is in
//! them first, and begins anew.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use takhin_pika::Position;
use takhin_runtime::Disk;

use super::format::Base;
use super::{END, Origin, REPLICATION, Wal, WalError};

/// The logs of a source.
pub struct Logs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    max: u64,
    open: Mutex<BTreeMap<String, Arc<Wal>>>,
}

/// Where the log of a database begins.
#[derive(Debug, Clone)]
pub struct Begin {
    /// The database.
    pub db: String,
    /// Its changes go on there.
    pub at: Position,
    /// Whose they are.
    pub origin: Origin,
}

impl Logs {
    /// The logs in a directory, as the last process has left them; all of them together have `max` bytes.
    ///
    /// # Errors
    ///
    /// [`WalError`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, max: u64) -> Result<Self, WalError> {
        let listing = |source| WalError::Disk {
            what: "list",
            path: dir.to_owned(),
            source,
        };
        let names = match disk.exists(dir).map_err(listing)? {
            false => Vec::new(),
            true => disk.read_dir(dir).map_err(listing)?,
        };
        let names: Vec<String> = names.into_iter().map(|entry| entry.name).collect();
        let logs = Self {
            disk,
            dir: dir.to_owned(),
            max,
            open: Mutex::default(),
        };
        let dbs: Vec<&String> = names.iter().filter(|name| is_database(name)).collect();
        let begun = |db: &&String| logs.has_begun(db).map_err(listing);
        // Those of databases that are gone are empty, and take no share.
        let mut count = 0;
        for db in &dbs {
            count += usize::from(begun(db)?);
        }
        for db in &dbs {
            logs.one(db, count)?;
        }
        Ok(logs)
    }

    /// Whether there is anything in the directory of a database.
    fn has_begun(&self, db: &str) -> io::Result<bool> {
        let entries = self.disk.read_dir(&self.dir.join(db))?;
        Ok(entries.iter().any(|entry| entry.name.ends_with(END)))
    }

    /// The log of one of so many databases.
    fn one(&self, db: &str, of: usize) -> Result<Arc<Wal>, WalError> {
        let mut open = self.open.lock();
        if let Some(wal) = open.get(db) {
            return Ok(Arc::clone(wal));
        }
        let share = self.max / (of.max(1) as u64);
        let wal = Wal::open(Arc::clone(&self.disk), &self.dir.join(db), (db, share))?;
        let wal = Arc::new(wal);
        open.insert(db.to_owned(), Arc::clone(&wal));
        Ok(wal)
    }

    /// Those that have begun, by database.
    pub fn begun(&self) -> BTreeMap<String, Arc<Wal>> {
        let open = self.open.lock();
        let begun = open.iter().filter(|(_, wal)| wal.position().is_some());
        begun.map(|(db, wal)| (db.clone(), Arc::clone(wal))).collect()
    }

    /// Begins all of them, with nothing kept.
    ///
    /// # Errors
    ///
    /// [`WalError`].
    pub fn begin(&self, master: &str, begins: Vec<Begin>) -> Result<(), WalError> {
        // Others may have been there, of which there was less.
        self.open.lock().clear();
        let count = begins.len();
        for begin in begins {
            let wal = self.one(&begin.db, count)?;
            let base = Base {
                end: begin.at,
                last: None,
                master: master.to_owned(),
                origin: Some(begin.origin),
            };
            wal.begin(base, false)?;
        }
        Ok(())
    }

    /// Forgets all of them.
    ///
    /// # Errors
    ///
    /// [`WalError::Disk`]; what is left has no gap.
    pub fn clear(&self) -> Result<(), WalError> {
        self.open.lock().values().try_for_each(|wal| wal.clear())
    }
}

impl Origin {
    /// Of a master that does not say whose its binlog is.
    pub fn unnamed(epoch: u32) -> Self {
        Self {
            replication_id: String::new(),
            epoch,
        }
    }

    /// Whether there is room for it.
    pub fn fits(&self) -> bool {
        self.replication_id.len() <= REPLICATION
    }
}

/// Whether a name is one of Pika's databases: it is part of a path.
pub fn is_database(name: &str) -> bool {
    let number = name.strip_prefix("db").unwrap_or_default();
    (1..=5).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Logs({})", self.dir.display())
    }
}
