//! A disk in memory, driven by a seed: it forgets what was not synced, fails on demand, and replays exactly.
//!
//! ```text
//! write ──> visible bytes ──sync_data──> durable bytes        create, rename, remove ──sync_dir──> durable names
//!                │                            ▲                         │                              ▲
//!                └── power cut: kept, torn ───┘                         └── power cut: kept or lost ───┘
//!                    between sectors, or lost
//! ```

mod content;
mod fault;
mod file;
mod tree;

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::{DirEntry, Disk, File, OpenMode, Space};
use crate::rng::Rng;
use crate::sim::Trace;
use fault::FaultRules;
pub use fault::{Fault, FaultRule, Op, When};
use file::SimFile;
use tree::{Ino, Tree};

/// Reported size of a disk without a set capacity, in bytes.
const DEFAULT_TOTAL: u64 = 1 << 40;

/// What ends a simulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashMode {
    /// The process is killed. The page cache survives: readers still see every byte, durable or not.
    Process,
    /// The power fails. Bytes and names that were not synced are kept, torn or lost as the seed decides.
    Power,
}

/// A disk in memory. Clones are the same disk.
///
/// The disk itself works at any time; [`SimDisk::incarnation`] gives the view of one run of the machine, which
/// fails after the next crash, as do files opened before it.
#[derive(Debug, Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
    /// The run of the machine that this handle belongs to; `None` for the disk itself.
    generation: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    trace: Trace,
    rng: Rng,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    generation: u64,
    boot_id: String,
    locks: BTreeMap<Ino, u64>,
    faults: FaultRules,
    capacity: Option<u64>,
    cold: bool,
    latencies: BTreeMap<Op, RangeInclusive<Duration>>,
    /// Virtual time that operations took and nobody waited for yet.
    debt: Duration,
}

impl SimDisk {
    /// An empty disk with a record of its own.
    pub fn new(seed: u64) -> Self {
        Self::with_trace(seed, Trace::default())
    }

    /// An empty disk that records its operations in `trace`.
    pub fn with_trace(seed: u64, trace: Trace) -> Self {
        let rng = Rng::from_seed(seed);
        let state = State {
            tree: Tree::new(),
            generation: 0,
            boot_id: boot_id(&rng),
            locks: BTreeMap::new(),
            faults: FaultRules::default(),
            capacity: None,
            cold: false,
            latencies: BTreeMap::new(),
            debt: Duration::ZERO,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                trace,
                rng,
            }),
            generation: None,
        }
    }

    /// The disk as the current run of the machine sees it: it and its files fail after the next crash.
    #[must_use]
    pub fn incarnation(&self) -> Self {
        let generation = self.shared.state.lock().generation;
        Self {
            shared: Arc::clone(&self.shared),
            generation: Some(generation),
        }
    }

    /// Crashes the machine: open files and [`incarnation`](Self::incarnation)s fail from now on, locks are free.
    /// Armed faults, capacity and latencies stay.
    pub fn crash(&self, mode: CrashMode) {
        let mut state = self.shared.state.lock();
        state.generation += 1;
        state.locks.clear();
        state.debt = Duration::ZERO;
        match mode {
            CrashMode::Process => state.tree.close_all(),
            CrashMode::Power => {
                state.boot_id = boot_id(&self.shared.rng);
                state
                    .tree
                    .power_cut(&self.shared.rng)
                    .expect("every queued change names a live directory");
            }
        }
        self.shared.trace.event(
            "crash",
            if mode == CrashMode::Power {
                "power"
            } else {
                "process"
            },
            &[],
        );
    }

    /// Crashes the machine, and takes everything that is on the disk: it is as empty as a new one.
    pub fn wipe(&self, mode: CrashMode) {
        self.crash(mode);
        self.shared.state.lock().tree = Tree::new();
        self.shared.trace.event("wipe", "", &[]);
    }

    /// Makes operations fail from now on. The first rule that fires decides.
    pub fn arm(&self, rule: FaultRule) {
        self.shared.state.lock().faults.arm(rule);
    }

    /// Takes all armed faults back.
    pub fn clear_faults(&self) {
        self.shared.state.lock().faults.clear();
    }

    /// Limits the sum of all file lengths; a write beyond it keeps what fits and fails with `ENOSPC`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.state.lock().capacity = bytes;
    }

    /// Whether [`File::is_cached`] says no from now on.
    pub fn set_cold(&self, cold: bool) {
        self.shared.state.lock().cold = cold;
    }

    /// Flips one bit of the byte at `pos`, on the medium and in the cache.
    ///
    /// # Errors
    /// `NotFound` for a missing file, `InvalidInput` for a position past its end.
    pub fn corrupt(&self, path: impl AsRef<Path>, pos: u64) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        let ino = state.tree.lookup(path.as_ref())?;
        let pos = usize::try_from(pos).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.shared
            .trace
            .event("corrupt", &path.as_ref().to_string_lossy(), &[pos as u64]);
        if state.tree.file(ino)?.corrupt(pos) {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    /// How long an operation takes in virtual time: the seed draws from this range each time.
    pub fn set_latency(&self, op: Op, range: RangeInclusive<Duration>) {
        self.shared.state.lock().latencies.insert(op, range);
    }

    /// Draws how long one operation takes now.
    pub fn latency(&self, op: Op) -> Duration {
        self.shared.draw_latency(&self.shared.state.lock(), op)
    }

    /// Virtual time that the operations so far took and that nobody waited for yet; now somebody does.
    pub(crate) fn take_debt(&self) -> Duration {
        std::mem::take(&mut self.shared.state.lock().debt)
    }

    /// How long a request waits before a thread takes it up: up to the longest latency of this disk, so that a
    /// crash may fall before the effect of a slow operation as well as after it.
    pub(crate) fn queue_delay(&self) -> Duration {
        let longest = self
            .shared
            .state
            .lock()
            .latencies
            .values()
            .map(|range| *range.end())
            .max();
        longest.map_or(Duration::ZERO, |longest| longest.mul_f64(self.shared.rng.unit()))
    }

    /// The record of this disk's operations.
    pub fn trace(&self) -> &Trace {
        &self.shared.trace
    }

    /// Starts an operation: refuses a dead handle, charges latency, draws faults.
    fn begin(&self, state: &mut State, op: Op, path: &Path) -> io::Result<Option<Fault>> {
        if self
            .generation
            .is_some_and(|generation| generation != state.generation)
        {
            return Err(crashed());
        }
        let delay = self.shared.draw_latency(state, op);
        state.debt += delay;
        let path = path.to_string_lossy();
        let fault = state.faults.fire(op, &path, &self.shared.rng);
        self.shared
            .trace
            .event(op.name(), &path, &[u64::from(fault.is_some())]);
        Ok(fault)
    }

    /// Starts an operation that either fails as a whole or not at all.
    fn begin_whole(&self, state: &mut State, op: Op, path: &Path) -> io::Result<()> {
        match self.begin(state, op, path)? {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }
}

impl Shared {
    fn draw_latency(&self, state: &State, op: Op) -> Duration {
        let Some(range) = state.latencies.get(&op) else {
            return Duration::ZERO;
        };
        *range.start()
            + range
                .end()
                .saturating_sub(*range.start())
                .mul_f64(self.rng.unit())
    }
}

/// What a handle from before a crash answers.
fn crashed() -> io::Error {
    io::Error::other("the simulated machine has crashed since this was opened")
}

fn boot_id(rng: &Rng) -> String {
    format!("{:032x}", u128::from_be_bytes(rng.uuid()))
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.shared.state.lock();
        self.begin_whole(&mut state, Op::Open, path)?;
        let ino = match state.tree.lookup(path) {
            Ok(_) if mode == OpenMode::CreateNew => return Err(io::ErrorKind::AlreadyExists.into()),
            Ok(ino) => ino,
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Err(e) if matches!(mode, OpenMode::Read | OpenMode::Write) => return Err(e),
            Err(_) => state.tree.create_file(path)?,
        };
        state.tree.file(ino)?;
        state.tree.opened(ino);
        let disk = Self {
            shared: Arc::clone(&self.shared),
            generation: Some(state.generation),
        };
        Ok(Arc::new(SimFile {
            disk,
            ino,
            path: path.to_owned(),
            writable: mode != OpenMode::Read,
        }))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.shared.state.lock();
        self.begin_whole(&mut state, Op::ReadDir, path)?;
        let names = state.tree.read_dir(path)?;
        let entry = |(name, len): (String, Option<u64>)| DirEntry {
            name,
            is_dir: len.is_none(),
            len: len.unwrap_or(0),
        };
        Ok(names.into_iter().map(entry).collect())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        self.begin_whole(&mut state, Op::CreateDir, path)?;
        state.tree.create_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.shared.state.lock();
        if self
            .generation
            .is_some_and(|generation| generation != state.generation)
        {
            return Err(crashed());
        }
        match state.tree.lookup(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        self.begin_whole(&mut state, Op::Remove, path)?;
        state.tree.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        self.begin_whole(&mut state, Op::Remove, path)?;
        state.tree.remove_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        self.begin_whole(&mut state, Op::Rename, to)?;
        state.tree.rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        match self.begin(&mut state, Op::SyncDir, path)? {
            None => state.tree.sync_dir(path),
            Some(fault) => {
                state.tree.drop_dir_changes(path)?;
                Err(fault.error())
            }
        }
    }

    fn sync_fs(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        match self.begin(&mut state, Op::SyncFs, path)? {
            None => {
                state.tree.lookup(path)?;
                state.tree.sync_all()
            }
            Some(fault) => {
                state.tree.drop_all_dirty();
                Err(fault.error())
            }
        }
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut state = self.shared.state.lock();
        state.tree.lookup(path)?;
        let total = state.capacity.unwrap_or(DEFAULT_TOTAL);
        Ok(Space {
            total,
            free: total.saturating_sub(state.tree.used()),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = self.open(path, OpenMode::CreateOrWrite)?;
        let mut state = self.shared.state.lock();
        let ino = state.tree.lookup(path)?;
        if state.locks.contains_key(&ino) {
            return Err(Errno::WOULDBLOCK.into());
        }
        let generation = state.generation;
        state.locks.insert(ino, generation);
        Ok(Box::new(LockGuard {
            shared: Arc::clone(&self.shared),
            ino,
            generation,
            _file: file,
        }))
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(Path::new("/").join(path))
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(self.shared.state.lock().boot_id.clone())
    }
}

/// Frees a lock on drop, unless a crash did.
struct LockGuard {
    shared: Arc<Shared>,
    ino: Ino,
    generation: u64,
    /// Keeps the file alive while it is locked, even if its name goes.
    _file: Arc<dyn File>,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if state.locks.get(&self.ino) == Some(&self.generation) {
            state.locks.remove(&self.ino);
        }
    }
}
