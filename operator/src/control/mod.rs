//! The controllers: they observe, have decided by value, and do.

pub mod apply;
mod claims;
mod cluster;
pub mod context;
mod error;
pub mod lease;
mod metrics;
mod passes;
mod pika;
mod pods;
#[cfg(test)]
mod testing;
mod topics;
mod written;

pub use cluster::run as run_clusters;
pub use context::{Context, Options};
pub use error::Error;
pub use metrics::leads;
pub use pika::run as run_pika_sources;
pub use topics::run as run_topics;
