//! A simulated machine: a disk that outlives it, and the tasks of its current run.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::Trace;
use crate::clock::{Clock, Instant};
use crate::disk::sim::{CrashMode, SimDisk};
use crate::env::Env;
use crate::net::{Net, sim::SimNet};
use crate::rng::Rng;
use crate::task::Tasks;

/// Wall time at which every simulation starts, in milliseconds since 1970: 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;

/// What all machines of a simulation share.
#[derive(Debug)]
pub(crate) struct World {
    rng: Rng,
    trace: Trace,
    net: SimNet,
    time: Mutex<Timeline>,
    machines: Mutex<Vec<Machine>>,
    panicked: Mutex<Vec<&'static str>>,
}

/// Virtual time across the runtimes of a simulation, each of which starts its own at an arbitrary instant.
#[derive(Debug, Default)]
struct Timeline {
    /// Instant of the current runtime at which `before` had passed.
    origin: Option<Instant>,
    before: Duration,
}

impl World {
    pub(super) fn new(rng: Rng) -> Self {
        let trace = Trace::default();
        Self {
            net: SimNet::new(rng.fork(), trace.clone()),
            rng,
            trace,
            time: Mutex::default(),
            machines: Mutex::default(),
            panicked: Mutex::default(),
        }
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    pub(super) fn net(&self) -> &SimNet {
        &self.net
    }

    /// Continues virtual time inside a runtime.
    pub(super) fn resume(&self) {
        self.time.lock().origin.get_or_insert_with(Instant::now);
    }

    /// Notes how much virtual time has passed, for a runtime that may not run again.
    pub(super) fn pause(&self) {
        let mut time = self.time.lock();
        if let Some(origin) = time.origin {
            let now = Instant::now();
            time.before += now - origin;
            time.origin = Some(now);
        }
    }

    pub(super) fn panicked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.panicked.lock())
    }

    pub(super) fn crash_all(&self, mode: CrashMode) {
        self.time.lock().origin = None;
        for machine in self.machines.lock().iter() {
            machine.stop(mode);
        }
    }

    fn clock(&self, jumped_ms: &Arc<AtomicI64>) -> Clock {
        let time = self.time.lock();
        let origin = time
            .origin
            .expect("an Env of a simulation is made inside Sim::run");
        let before_ms = i64::try_from(time.before.as_millis()).unwrap_or(i64::MAX);
        Clock::simulated_from(origin, START_MS + before_ms, Arc::clone(jumped_ms))
    }
}

/// A simulated machine. Clones are the same machine.
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

struct Inner {
    name: String,
    /// The world owns the machine, not the other way round.
    world: std::sync::Weak<World>,
    disk: SimDisk,
    rng: Rng,
    jumped_ms: Arc<AtomicI64>,
    tasks: Mutex<MachineTasks>,
}

impl Machine {
    pub(super) fn new(world: &Arc<World>, name: &str) -> Self {
        world.net.add_host(name);
        let disk = SimDisk::with_trace(world.rng.next_u64(), world.trace.clone());
        let machine = Self(Arc::new(Inner {
            name: name.to_owned(),
            world: Arc::downgrade(world),
            rng: world.rng.fork(),
            jumped_ms: Arc::default(),
            tasks: Mutex::new(MachineTasks::new(world, &disk)),
            disk,
        }));
        world.machines.lock().push(machine.clone());
        machine
    }

    /// Host name on the simulated network.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The disk, to inspect it or to arm faults.
    pub fn disk(&self) -> &SimDisk {
        &self.0.disk
    }

    /// Moves the machine's wall clock by `ms`, forwards or backwards.
    pub fn jump_clock(&self, ms: i64) {
        self.0.jumped_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sets the machine's wall clock right.
    pub fn heal_clock(&self) {
        self.0.jumped_ms.store(0, Ordering::Relaxed);
    }

    /// The handles of the machine's current run; after a crash, of the next one.
    ///
    /// # Panics
    /// Outside of [`Sim::run`](super::Sim::run).
    pub fn env(&self) -> Env {
        let world = self.world();
        Env {
            clock: world.clock(&self.0.jumped_ms),
            disk: Arc::new(self.0.disk.incarnation()),
            net: Net::simulated(world.net.boot(&self.0.name)),
            tasks: Tasks::simulated(self.0.tasks.lock().clone()),
            rng: self.0.rng.clone(),
        }
    }

    /// Crashes this machine: aborts its tasks, breaks its connections, and leaves the disk as `mode` says. Its
    /// old handles fail from now on; [`Machine::env`] gives those of the next run.
    ///
    /// Tasks that were not started through [`Tasks`] go on, with dead handles.
    pub fn crash(&self, mode: CrashMode) {
        self.stop(mode);
    }

    /// Crashes this machine, and empties its disk.
    pub fn wipe(&self, mode: CrashMode) {
        self.stop(mode);
        self.0.disk.wipe(mode);
    }

    fn stop(&self, mode: CrashMode) {
        let world = self.world();
        // Before its tasks end, whose last acts would otherwise still reach a disk or a peer.
        world.net.crash(&self.0.name, mode);
        self.0.disk.crash(mode);
        let next = MachineTasks::new(&world, &self.0.disk);
        std::mem::replace(&mut *self.0.tasks.lock(), next).abort_all();
    }

    fn world(&self) -> Arc<World> {
        self.0
            .world
            .upgrade()
            .expect("the simulation outlives its machines")
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({})", self.0.name)
    }
}

/// The tasks of one run of a machine.
#[derive(Clone)]
pub(crate) struct MachineTasks {
    world: std::sync::Weak<World>,
    disk: SimDisk,
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    crashed: bool,
    tasks: Vec<AbortHandle>,
}

impl MachineTasks {
    fn new(world: &Arc<World>, disk: &SimDisk) -> Self {
        Self {
            world: Arc::downgrade(world),
            disk: disk.clone(),
            running: Arc::default(),
        }
    }

    pub(crate) fn started(&self, task: AbortHandle) {
        let mut running = self.running.lock();
        if running.crashed {
            task.abort();
            return;
        }
        if running.tasks.len() == running.tasks.capacity() {
            running.tasks.retain(|task| !task.is_finished());
        }
        running.tasks.push(task);
    }

    pub(crate) fn panicked(&self, name: &'static str) {
        if let Some(world) = self.world.upgrade() {
            world.panicked.lock().push(name);
        }
    }

    /// Runs `work` inline; before it passes the time that the request waits in a queue, after it the time that
    /// its own disk operations took.
    pub(crate) async fn blocking<T>(&self, work: impl FnOnce() -> T) -> T {
        let queued = self.disk.queue_delay() + self.disk.take_debt();
        if queued.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(queued).await;
        }
        let output = work();
        let took = self.disk.take_debt();
        if !took.is_zero() {
            tokio::time::sleep(took).await;
        }
        output
    }

    fn abort_all(self) {
        let tasks = {
            let mut running = self.running.lock();
            running.crashed = true;
            std::mem::take(&mut running.tasks)
        };
        for task in tasks {
            task.abort();
        }
    }
}

impl fmt::Debug for MachineTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineTasks")
    }
}
