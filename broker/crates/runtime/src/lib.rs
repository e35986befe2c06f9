//! The outside world has one room, and this is it.
//!
//! Clock, disk, network, tasks and randomness reach the rest of Takhin only through this crate, so that a test
//! can replace every one of them: [`Env`] bundles the handles, and the simulated twin (`sim`, with feature
//! `test-util`) provides the same handles backed by one seed.
//!
//! ```
//! use takhin_runtime::{Disk, Env, OpenMode};
//!
//! async fn first_bytes(env: Env) -> std::io::Result<Vec<u8>> {
//!     let file = env.disk.open("log".as_ref(), OpenMode::Read)?;
//!     env.tasks.blocking(move || {
//!         let mut bytes = vec![0; 61];
//!         file.read_exact_at(&mut bytes, 0).map(|()| bytes)
//!     }).await
//! }
//! ```
//!
//! - [`Disk`] and [`File`] say what is durable when; [`RealDisk`] and `sim::SimDisk` keep that promise, and
//!   `testing::disk_conformance` checks both.
//! - [`Net`] gives [`Stream`]s that gather-write many buffers and send file ranges without copying them.
//! - [`Tasks`] notices every panic; [`Shutdown`] carries the order to stop.
//! - Logs, metrics and health leave the process through [`telemetry`].
//! - `sim::Sim` runs a whole world from one seed; a seed replays byte for byte as long as nothing reaches around
//!   this crate.
//!
//! Invariants: the layers above call no clock, socket, file, thread or random source of the operating system, and
//! nothing here knows what a topic is. Start reading at `disk/mod.rs`, then `env.rs`.

pub mod clock;
pub mod disk;
pub mod env;
mod late;
pub mod memory;
pub mod net;
mod published;
pub mod rng;
pub mod shutdown;
#[cfg(feature = "test-util")]
pub mod sim;
pub mod task;
pub mod telemetry;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod thread;
pub mod watch;

pub use clock::Clock;
pub use disk::real::RealDisk;
pub use disk::{Disk, DiskWatch, File, OpenMode};
pub use env::Env;
pub use late::Late;
pub use net::{ListenError, Listener, Net, ReadHalf, Stream, WriteHalf};
pub use published::Published;
pub use rng::Rng;
pub use shutdown::Shutdown;
pub use task::{JoinHandle, TaskError, Tasks};
