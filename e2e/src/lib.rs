//! Real processes, stock clients, faults: what the end-to-end suites are made of.
//!
//! A suite starts a [`Broker`] (takhin, or Apache Kafka to prove the suite itself), lets clients that others wrote work
//! against it, hurts it, and compares every byte that comes back. [`broker`] starts and kills, [`process`] runs the
//! clients, [`wire`] speaks the protocol by hand where a stock client is too well-behaved, [`disk`] makes file systems
//! that fill up or lose power, [`checker`] decides what a crash may and may not do to acknowledged records, and
//! [`kubernetes`] runs a real API server.
//!
//! Invariants: nothing here sleeps for a fixed time, it polls a condition until a deadline; a missing tool is a failure
//! and never a skipped test; every process and mount is gone when its value is dropped.
//!
//! The tools come from `e2e/setup/install.sh`. `E2E_BROKER=kafka` runs the suites against Apache Kafka, the default
//! is `takhin`; `E2E_SEED` repeats the random moments of an earlier run.

pub mod broker;
pub mod cdc;
pub mod checker;
pub mod cluster;
pub mod committer;
pub mod disk;
pub mod kcat;
pub mod kubernetes;
pub mod process;
pub mod pulse;
pub mod reader;
pub mod records;
pub mod replicas;
pub mod rng;
pub mod session;
pub mod stage;
pub mod tools;
pub mod trace;
pub mod wait;
pub mod wire;
pub mod writer;

pub use broker::{Broker, Kind};
pub use cluster::Cluster;
