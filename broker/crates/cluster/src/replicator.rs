//! The seam between a partition and whatever replicates it.
//!
//! A partition proposes batches in order and hears, in order, what was appended and what was committed. openraft
//! stands behind this trait today; no handler, and no partition, can tell.

use takhin_protocol::record::Batch;

/// A replication group as its partition sees it.
pub trait Replicator: Send + Sync + 'static {
    /// Proposes a batch whose base offset and leader epoch are filled in, under `term`.
    ///
    /// Returns at once. Proposals of one caller enter the log in call order; a proposal under a term that is over
    /// never enters it. The outcome arrives at the group's [`ProposalSink`].
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was proposed then.
    fn propose(&self, term: u64, batch: Batch) -> Result<(), ProposeError>;

    /// Proposes to move the log start to `offset`.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was proposed then.
    fn propose_log_start(&self, term: u64, offset: i64) -> Result<(), ProposeError>;
}

/// Why nothing was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The group's queue is full.
    #[error("the replication group's queue is full")]
    Busy,
}

/// Where a group reports on proposals. Calls come from the group's own task: no blocking, no waiting.
pub trait ProposalSink: Send + Sync + 'static {
    /// Everything below `end` is in the local log, readable, not yet durable. `term` is that of the last entry.
    fn appended(&self, term: u64, end: i64);
    /// Everything below `next_offset` is committed. `term` is that of the last entry.
    fn committed(&self, term: u64, next_offset: i64);
    /// A proposal did not commit under `term`; its fate is unknown if it was appended. It may be one of many, and may
    /// come long after that term.
    fn rejected(&self, term: u64);
}
