//! The openraft types of a group, aliased once.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use openraft::impls::{Entry, Vote, leader_id_std};
use openraft::raft::responder::Responder;
use openraft::{EntryPayload, LogId, Membership, StoredMembership};
use openraft_rt::deterministic_rng::DeterministicRng;
use takhin_protocol::record::Batch;
use uuid::Uuid;

use super::ordered::Ordered;
use crate::replicator::ProposalSink;

/// A group as openraft sees it.
///
/// `leader_id_std` allows one leader per term, so that a term is a Kafka leader epoch. The runtime draws its
/// randomness from a task-local seed and wakes tasks in their order, so that a simulated node replays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Data;
    type R = Applied;
    type NodeId = u64;
    type Node = Voter;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = Vote<Self::LeaderId>;
    type Payload = EntryPayload<Data, u64, Voter>;
    type Entry = Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = DeterministicRng<Ordered>;
    type Responder<T>
        = Notice<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

pub(crate) type RaftLogId = LogId<CommittedLeaderId>;
pub(crate) type CommittedLeaderId =
    <leader_id_std::LeaderId<u64, u64> as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type RaftEntry = <TypeConfig as openraft::RaftTypeConfig>::Entry;
pub(crate) type RaftVote = <TypeConfig as openraft::RaftTypeConfig>::Vote;
pub(crate) type RaftMembership = Membership<u64, Voter>;
pub(crate) type RaftStoredMembership = StoredMembership<CommittedLeaderId, u64, Voter>;
pub(crate) type Runtime = <TypeConfig as openraft::RaftTypeConfig>::AsyncRuntime;

/// Builds a log id from its parts.
pub(crate) fn log_id(term: u64, index: u64) -> RaftLogId {
    LogId::new(term.into(), index)
}

/// What a voter is besides its broker id: the directory that holds its vote, or, if it was added to a group later, a number
/// drawn for it then. A replica that has forgotten what it voted or acknowledged is another voter, or its vote and its
/// acknowledgement could count twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Voter {
    pub(crate) directory: Uuid,
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.directory)
    }
}

/// What is proposed to a group, and what its log gives back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    /// A record batch whose base offset and leader epoch are filled in.
    Batch(Batch),
    /// A record batch of which only the end is known: the log gives this to readers that need no payload.
    Head {
        /// Offset after the batch.
        next_offset: i64,
    },
    /// Moves the log start; never back.
    LogStart {
        /// First offset that stays readable.
        offset: i64,
    },
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(batch) => write!(
                f,
                "batch at {} of {} bytes",
                batch.header.base_offset,
                batch.header.total_len()
            ),
            Self::Head { next_offset } => write!(f, "batch up to {next_offset}"),
            Self::LogStart { offset } => write!(f, "log start {offset}"),
        }
    }
}

/// The answer of the state machine: nothing, since replies are given at commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied;

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("applied")
    }
}

/// Tells a partition how its proposal ended.
///
/// openraft calls `on_commit` in log order from its core task and `on_complete` once at the end; a proposal that
/// completes without having committed failed.
pub(crate) struct Notice<T> {
    pub(crate) sink: Arc<dyn ProposalSink>,
    pub(crate) term: u64,
    pub(crate) next_offset: i64,
    pub(crate) committed: bool,
    pub(crate) result: PhantomData<fn() -> T>,
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Notice<T> {
    fn on_commit(&mut self, log_id: RaftLogId) {
        self.committed = true;
        let term = *log_id.committed_leader_id();
        self.sink.committed(*term, self.next_offset);
    }

    fn on_complete(self, _result: T) {}
}

impl<T> Drop for Notice<T> {
    // A group that stops drops its responders without completing them, so failure is told here for both cases.
    fn drop(&mut self) {
        if !self.committed {
            self.sink.rejected(self.term);
        }
    }
}
