//! A world from one seed: virtual time, disks that forget, a network that delays, tasks in one thread.
//!
//! ```
//! use std::time::Duration;
//! use takhin_runtime::sim::{CrashMode, Sim};
//! use takhin_runtime::{OpenMode, disk::Disk};
//!
//! let mut sim = Sim::new(42);
//! sim.run(|env| async move {
//!     env.disk.open("kept".as_ref(), OpenMode::CreateNew).unwrap();
//!     env.disk.sync_dir("".as_ref()).unwrap();
//!     env.clock.sleep(Duration::from_secs(3600)).await; // takes no time
//! });
//! sim.crash(CrashMode::Power);
//! sim.run(|env| async move { assert!(env.disk.exists("kept".as_ref()).unwrap()) });
//! ```
//!
//! What makes a run repeat: one thread, time that moves only when nothing else can, numbers from
//! [`Env::rng`](crate::Env) alone. What breaks it: iterating a `HashMap`, `tokio::select!` without `biased` and tokio's
//! `watch` channels (which choose by a number that the operating system seeds), threads, and clocks other than
//! [`Env::clock`](crate::Env). `clippy.toml` and `xtask tidy` look for these.

mod log;
pub(crate) mod machine;
pub(crate) mod trace;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

pub use crate::disk::sim::{CrashMode, Fault, FaultRule, Op, SimDisk, When};
use crate::env::Env;
pub use crate::net::sim::SimNet;
use crate::rng::Rng;
pub use machine::Machine;
use machine::World;
pub use trace::Trace;

/// Virtual time after which a run that has not returned counts as stuck.
const LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// A simulated world with one machine, and room for more.
#[derive(Debug)]
pub struct Sim {
    seed: u64,
    runtime: Option<Runtime>,
    world: Arc<World>,
    main: Machine,
    record_logs: bool,
}

impl Sim {
    /// A world in which everything that may vary follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let world = Arc::new(World::new(Rng::from_seed(seed)));
        let main = Machine::new(&world, "main");
        Self {
            seed,
            runtime: None,
            world,
            main,
            record_logs: false,
        }
    }

    /// Adds a machine with an empty disk; `name` is its host name on the network.
    pub fn add_machine(&mut self, name: &str) -> Machine {
        Machine::new(&self.world, name)
    }

    /// The machine whose [`Env`] the closure of [`Sim::run`] gets.
    pub fn machine(&self) -> &Machine {
        &self.main
    }

    /// The disk of [`Sim::machine`].
    pub fn disk(&self) -> &SimDisk {
        self.main.disk()
    }

    /// The network, to disturb it.
    pub fn net(&self) -> &SimNet {
        self.world.net()
    }

    /// The seed of this world.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The record of everything that happened.
    pub fn trace(&self) -> &Trace {
        self.world.trace()
    }

    /// Adds the log lines of Takhin's crates, at every level, to the record from the next run on.
    ///
    /// Not for comparing runs in a process with other tests: tracing decides once per process whether a line is wanted,
    /// and a test without a record that reaches the line first may decide for all.
    pub fn record_logs(&mut self) {
        self.record_logs = true;
    }

    /// Runs a future to its end. Tasks that it leaves behind go on in the next run, until a crash.
    ///
    /// # Panics
    /// With the seed, when the future does, when a task panicked, or when a year of virtual time went by.
    pub fn run<F, Fut>(&mut self, scenario: F) -> Fut::Output
    where
        F: FnOnce(Env) -> Fut,
        Fut: Future,
    {
        let runtime = self.runtime.get_or_insert_with(new_runtime);
        let on_panic = TellSeed(self.seed);
        let _logs = self.record_logs.then(|| log::record(self.world.trace()));
        let output = runtime.block_on(async {
            self.world.resume();
            let output = tokio::time::timeout(LIMIT, scenario(self.main.env())).await;
            self.world.pause();
            output
        });
        assert!(
            output.is_ok(),
            "stuck: nothing happened for a year of virtual time"
        );
        let panicked = self.world.panicked();
        assert!(panicked.is_empty(), "tasks panicked: {panicked:?}");
        std::mem::forget(on_panic);
        match output {
            Ok(output) => output,
            Err(_) => unreachable!("checked above"),
        }
    }

    /// Crashes every machine: all tasks end where they stand, connections break, the disks keep what `mode`
    /// leaves them. The next [`Sim::run`] is the restarted world.
    pub fn crash(&mut self, mode: CrashMode) {
        // First the crash, so that no destructor of a dropped task still reaches a disk or a peer.
        self.world.crash_all(mode);
        self.runtime = None;
    }
}

/// Prints the seed when a scenario unwinds, because its message does not know it.
struct TellSeed(u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "simulation failed with seed {}", self.0);
    }
}

fn new_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system")
}
