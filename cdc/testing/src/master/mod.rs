//! A master on loopback, for tests: it answers as Pika 3.5 and 4.0 do, or as 2.3 and 3.0, and is as strict as they are.
//!
//! What it keeps to is in the recordings and in Pika's source: sessions and windows, what closes a connection, keepalives,
//! binlog files that roll. What it has beyond a real one are faults on demand, and a memory of what it was asked.

mod binlog;
mod faults;
pub mod legacy;
pub mod push;
mod redis;
mod replication;
mod transfer;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use takhin_pika::Position;
use takhin_pika::message::InnerRequest;

pub use binlog::{Binlog, Entry};
pub use faults::Faults;
pub use transfer::DumpFiles;

/// What the replication port is above the Redis port.
const REPLICATION_ABOVE: u16 = 2000;

/// What the port of files is above it.
const TRANSFER_ABOVE: u16 = 10_001;

/// How a master is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens: loopback, unless slaves come from elsewhere.
    pub address: Ipv4Addr,
    /// `pika_version`.
    pub version: String,
    /// `requirepass`.
    pub password: Option<String>,
    /// With which it pushes dumps, if that is another one.
    pub push_password: Option<String>,
    /// Number of databases.
    pub databases: u32,
    /// Whose binlog it has.
    pub replication_id: String,
    /// `binlog-file-size`.
    pub file_size: u64,
    /// Most items without an acknowledgement.
    pub window: usize,
    /// Pause after which it shows that it is there.
    pub keepalive: Duration,
    /// Silence after which a slave is forgotten.
    pub forget: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST,
            version: "3.5.5".into(),
            password: None,
            push_password: None,
            databases: 1,
            replication_id: "7e035615492b6d81e011c233b5bbb54496c26c23304660271a".into(),
            file_size: 16_384,
            window: 9000,
            keepalive: Duration::from_secs(2),
            forget: Duration::from_secs(20),
        }
    }
}

/// A slave's place in a database.
#[derive(Debug, Clone)]
pub(crate) struct SlaveState {
    pub(crate) connection: u32,
    pub(crate) session: i32,
    /// Entries that were sent and acknowledged; the index of the next one. `None` until the stream has begun.
    pub(crate) sent: Option<usize>,
    pub(crate) acked: usize,
    pub(crate) asked: Instant,
    pub(crate) shown: Instant,
}

/// Everything that changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) binlogs: BTreeMap<String, Binlog>,
    pub(crate) run: u32,
    pub(crate) next_session: BTreeMap<String, i32>,
    /// By database and name of the slave.
    pub(crate) slaves: BTreeMap<(String, String), SlaveState>,
    /// Connections by name of their slave.
    pub(crate) nodes: BTreeMap<String, u32>,
    pub(crate) requests: Vec<InnerRequest>,
    pub(crate) faults: Faults,
    pub(crate) streams: BTreeMap<u32, TcpStream>,
    /// Furthest acknowledged end of each database, over all sessions.
    pub(crate) acked: BTreeMap<String, Position>,
    /// Asked for by TrySync: database, position, and what was acknowledged by then.
    pub(crate) tried: Vec<(String, Position, Option<Position>)>,
    pub(crate) connections: u32,
    pub(crate) dumps: BTreeMap<String, DumpFiles>,
    pub(crate) transfers: u32,
    pub(crate) legacy: legacy::State,
    pub(crate) push: push::State,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: Mutex<Settings>,
    pub(crate) state: Mutex<State>,
    pub(crate) port: u16,
    ended: AtomicBool,
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// A master that runs until it is dropped.
#[derive(Debug)]
pub struct Master(Arc<Inner>);

impl Drop for Master {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
        self.disconnect();
        for port in [
            self.0.port,
            self.0.port + REPLICATION_ABOVE,
            self.0.port + TRANSFER_ABOVE,
        ] {
            // Wakes the one that accepts.
            let address = (self.0.settings().address, port).into();
            let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        }
    }
}

impl Master {
    /// Starts one on free ports.
    ///
    /// # Errors
    ///
    /// There are none.
    pub fn start(settings: Settings) -> Result<Self> {
        let (port, [redis, replication, files]) = listeners(settings.address)?;
        let mut state = State::default();
        for number in 0..settings.databases {
            let binlog = Binlog::new(settings.file_size);
            state.binlogs.insert(format!("db{number}"), binlog);
        }
        state.legacy = legacy::State::new(&settings);
        let inner = Arc::new(Inner {
            settings: Mutex::new(settings),
            state: Mutex::new(state),
            port,
            ended: AtomicBool::new(false),
        });
        accept(&inner, redis, redis::serve);
        // What listens there before 3.1 takes signs of life.
        accept(&inner, replication, |inner, stream| {
            match legacy::is_legacy(&inner.settings().version) {
                true => legacy::serve_life(inner, &stream),
                false => replication::serve(inner, stream),
            }
        });
        accept(&inner, files, transfer::serve);
        Ok(Self(inner))
    }

    /// The Redis port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Changes the settings; connections that are there go on as they were.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.0.settings.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Executes a command: appends it to the binlog.
    pub fn execute(&self, db: &str, words: &[&[u8]]) -> Position {
        let mut state = self.0.state();
        let binlog = state
            .binlogs
            .entry(db.to_owned())
            .or_insert_with(|| Binlog::new(16_384));
        binlog.append(words)
    }

    /// Puts recorded items in; those of one group are sent in one message.
    pub fn load(&self, db: &str, entries: Vec<Entry>) {
        let mut state = self.0.state();
        let binlog = state
            .binlogs
            .entry(db.to_owned())
            .or_insert_with(|| Binlog::new(16_384));
        binlog.load(entries);
    }

    /// Has the binlog of a database begin at a position, with nothing in it.
    pub fn begin_at(&self, db: &str, position: Position) {
        let mut state = self.0.state();
        state
            .binlogs
            .insert(db.to_owned(), Binlog::at(position, self.0.settings().file_size));
    }

    /// Where the binlog of a database begins.
    pub fn begin(&self, db: &str) -> Position {
        self.0
            .state()
            .binlogs
            .get(db)
            .map(|binlog| binlog.begin)
            .unwrap_or_default()
    }

    /// Where the binlog of a database ends.
    pub fn end(&self, db: &str) -> Position {
        self.0
            .state()
            .binlogs
            .get(db)
            .map(Binlog::end)
            .unwrap_or_default()
    }

    /// Has the next item of a database have a number so much higher: another history than the one of before.
    pub fn number_on(&self, db: &str, by: u64) {
        if let Some(binlog) = self.0.state().binlogs.get_mut(db) {
            binlog.number_on(by);
        }
    }

    /// Deletes the files of a binlog before this one.
    pub fn purge(&self, db: &str, filenum: u32) {
        if let Some(binlog) = self.0.state().binlogs.get_mut(db) {
            binlog.first_file = filenum;
        }
    }

    /// The dump of a database, as a directory has it.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn dump(&self, db: &str, dir: &std::path::Path) -> Result<()> {
        self.dump_files(db, DumpFiles::read(dir)?);
        Ok(())
    }

    /// The dump of a database, file by file.
    pub fn dump_files(&self, db: &str, dump: DumpFiles) {
        self.0.state().dumps.insert(db.to_owned(), dump);
    }

    /// Bytes of the dump of a database.
    pub fn dump_size(&self, db: &str) -> usize {
        self.0.state().dumps.get(db).map_or(0, DumpFiles::size)
    }

    /// Number of connections over which files were asked for.
    pub fn transfers(&self) -> u32 {
        self.0.state().transfers
    }

    /// What was asked over replication connections, in order.
    pub fn requests(&self) -> Vec<InnerRequest> {
        self.0.state().requests.clone()
    }

    /// Up to where a database was acknowledged.
    pub fn acked(&self, db: &str) -> Option<Position> {
        self.0.state().acked.get(db).copied()
    }

    /// What TrySync asked for: database, position, and what had been acknowledged of the database by then.
    pub fn tried(&self) -> Vec<(String, Position, Option<Position>)> {
        self.0.state().tried.clone()
    }

    /// Number of replication connections that there have been.
    pub fn connections(&self) -> u32 {
        self.0.state().connections
    }

    /// Slaves that are there: database and name.
    pub fn slaves(&self) -> Vec<(String, String)> {
        self.0.state().slaves.keys().cloned().collect()
    }

    /// Faults to come.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.state().faults);
    }

    /// Forgets the slaves of one database, and tells nobody: as after 20 s in which it has not heard of it.
    pub fn forget(&self, db: &str) {
        self.0.state().slaves.retain(|(of, _), _| of != db);
    }

    /// Breaks all connections, and forgets all slaves, as a restart does.
    pub fn restart(&self) {
        self.disconnect();
        let mut state = self.0.state();
        state.run += 1;
        state.slaves.clear();
        state.nodes.clear();
        state.next_session.clear();
    }

    /// Changes what it is and was as a master before 3.1, or looks at it.
    pub fn legacy<T>(&self, with: impl FnOnce(&mut legacy::State) -> T) -> T {
        with(&mut self.0.state().legacy)
    }

    /// Changes what it pushes, or looks at how that went.
    pub fn push<T>(&self, with: impl FnOnce(&mut push::State) -> T) -> T {
        with(&mut self.0.state().push)
    }

    /// Breaks all connections.
    pub fn disconnect(&self) {
        self.0.state().legacy.disconnect();
        for stream in std::mem::take(&mut self.0.state().streams).into_values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A Redis port such that the ports above it are free as well.
fn listeners(address: Ipv4Addr) -> Result<(u16, [TcpListener; 3])> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let spread = std::process::id().wrapping_mul(7919);
    for _ in 0..2000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Below what the kernel hands out to connections.
        let port = 10_100 + u16::try_from(spread.wrapping_add(step.wrapping_mul(101)) % 9800)?;
        let bind = |port| TcpListener::bind((address, port));
        let all = bind(port).and_then(|redis| {
            let replication = bind(port + REPLICATION_ABOVE)?;
            Ok([redis, replication, bind(port + TRANSFER_ABOVE)?])
        });
        if let Ok(all) = all {
            return Ok((port, all));
        }
    }
    anyhow::bail!("no free ports")
}

type Serve = fn(&Arc<Inner>, TcpStream) -> io::Result<()>;

fn accept(inner: &Arc<Inner>, listener: TcpListener, serve: Serve) {
    let inner = Arc::clone(inner);
    thread::spawn(move || {
        for stream in listener.incoming() {
            if inner.has_ended() {
                return;
            }
            let Ok(stream) = stream else { continue };
            let inner = Arc::clone(&inner);
            thread::spawn(move || drop(serve(&inner, stream)));
        }
    });
}

/// The recorded items of a session, by database, as [`Master::load`] takes them; each message is a group.
///
/// # Errors
///
/// The recording makes no sense.
pub fn recorded(connection: &crate::recording::Connection) -> Result<BTreeMap<String, Vec<Entry>>> {
    let mut found: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for (group, response) in connection.responses()?.into_iter().enumerate() {
        for sent in response.binlog_sync {
            if sent.binlog.is_empty() {
                continue;
            }
            let entries = found.entry(sent.slot.db_name).or_default();
            let end = Position::new(sent.binlog_offset.filenum, sent.binlog_offset.offset);
            // A slave that cannot apply an item asks for it again.
            if entries.last().is_some_and(|last| last.end >= end) {
                continue;
            }
            entries.push(Entry {
                end,
                index: sent.binlog_offset.index.context("an item without number")?,
                bytes: Bytes::clone(&sent.binlog),
                group: Some(group),
            });
        }
    }
    Ok(found)
}
