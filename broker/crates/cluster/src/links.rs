//! The other brokers, as this one reaches them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use takhin_runtime::Published;
use uuid::Uuid;

/// Which of a node pair's streams a request takes, so that a large one never stands in the way of an urgent one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Votes, leadership, metadata: small and urgent.
    Control,
    /// Log entries.
    Data,
    /// Segment files.
    Bulk,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Append entries to a group's log.
    Append = 1,
    /// Vote for a candidate of a group.
    Vote = 2,
    /// Say whether a vote would be given.
    PreVote = 3,
    /// Take over a group's leadership.
    Transfer = 4,
    /// Say how you stand to the cluster.
    Standing = 5,
    /// Hear what I lead.
    Leaders = 6,
    /// Carry out a change of the metadata.
    Command = 7,
    /// Forget entries of a group's log that all replicas have.
    Purge = 8,
    /// Pass a group's leadership on.
    Pass = 9,
    /// Take a copy of segment files.
    Copy = 10,
    /// Say who keeps the cluster's metadata, if you lead them.
    Quorum = 11,
    /// Say how you are.
    Report = 12,
    /// Park a group where its leader is about to.
    Park = 13,
    /// Give room for throttled bytes.
    Room = 14,
    /// Say where a group's log ends, to a replica that may have forgotten what it has answered for.
    Recall = 15,
}

impl Kind {
    /// The kind of this number; `None` if only a newer release knows it.
    pub fn of(number: u16) -> Option<Self> {
        let all = [
            Self::Append,
            Self::Vote,
            Self::PreVote,
            Self::Transfer,
            Self::Standing,
            Self::Leaders,
            Self::Command,
            Self::Purge,
            Self::Pass,
            Self::Copy,
            Self::Quorum,
            Self::Report,
            Self::Park,
            Self::Room,
            Self::Recall,
        ];
        all.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// Why a request got no answer. It may have been carried out all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// There is no link, or it broke.
    #[error("broker {node} cannot be reached: {reason}")]
    Unreachable {
        /// The broker.
        node: u32,
        /// What is known.
        reason: String,
    },
    /// No answer in time.
    #[error("broker {node} did not answer within {} ms", .after.as_millis())]
    Timeout {
        /// The broker.
        node: u32,
        /// How long was waited.
        after: Duration,
    },
    /// The two brokers cannot be of one cluster as they are: time does not mend it.
    #[error("broker {node} and this one have no link: {reason}")]
    NotWanted {
        /// The broker.
        node: u32,
        /// Why, and what can be done.
        reason: String,
    },
    /// The broker answered that it cannot do this.
    #[error("broker {node} refused: {reason}")]
    Refused {
        /// The broker.
        node: u32,
        /// Its words.
        reason: String,
    },
}

/// Links to the other brokers.
pub trait Links: Send + Sync + 'static {
    /// Sends a request and resolves to its answer.
    ///
    /// The request is queued when this returns: of two calls with the same broker, class and lane the first is handed to
    /// the broker's service first, or not at all.
    ///
    /// # Cancel safety
    /// A dropped call may or may not be carried out.
    fn call(
        &self,
        node: u32,
        class: Class,
        lane: u64,
        kind: Kind,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, LinkError>>;

    /// Where some more brokers are reached, or are reached now.
    fn add_peers(&self, peers: BTreeMap<u32, String>);

    /// This broker is none any more; the link to it is closed.
    fn forget_peer(&self, node: u32);

    /// The brokers that links are kept to.
    fn peers(&self) -> Vec<u32>;

    /// Who answers at an address: its node id and its data directory.
    fn hello(&self, address: &str, timeout: Duration) -> BoxFuture<'static, Result<(u32, Uuid), LinkError>>;

    /// A number that grows whenever a link stands, ends, or cannot be made.
    fn changes(&self) -> Published<u64>;

    /// Whether there is a link to `node` right now.
    fn is_linked(&self, node: u32) -> bool;

    /// Whether `node` does not answer, asked now: `true` if there is no link to it, the link breaks over the question, or the
    /// time passes. Who cannot even be asked, because too much waits to be sent, counts as one that answers.
    ///
    /// # Cancel safety
    /// Safe.
    fn is_mute(&self, node: u32, timeout: Duration) -> BoxFuture<'static, bool>;

    /// Time since `node` was heard of last, or more if it is known to be gone; `None` if it was never heard of since this
    /// process began.
    fn silence(&self, node: u32) -> Option<Duration>;

    /// Whether `node` is known to be gone: where it was, connections are refused.
    fn is_gone(&self, node: u32) -> bool;

    /// Time since `node` was heard of last; `None` if it was never heard of since this process began.
    fn last_heard(&self, node: u32) -> Option<Duration>;

    /// What `node` drew at random when its process began, as was heard last; `None` if it was never heard of since this
    /// one began.
    fn incarnation(&self, node: u32) -> Option<Uuid>;
}
