//! Anything that ends an attempt to follow a master.

use crate::checkpoint::CheckpointError;
use crate::sink::SinkError;
use crate::source::SourceError;
use crate::wal::WalError;

/// Why it was not possible to go on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// With the master.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// With the brokers.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// With positions.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// With the log of what was received.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// What is shown cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] std::io::Error),
}
