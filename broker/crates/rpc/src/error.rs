//! Why a call failed, and why there is no link.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Refusal;

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// There is no link, or it broke before the answer came. Whether the call was carried out is not known.
    #[error("the peer cannot be reached")]
    Unreachable(#[source] LinkError),
    /// The time of the call passed. It was sent, or is about to be, and may still be carried out.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The time of the call passed while too much else waited. It was never sent.
    #[error("too much waits to be sent to the peer")]
    Busy,
    /// The body is larger than a frame may be. It was never sent.
    #[error("a call of {bytes} bytes is larger than the {limit} that may be sent")]
    TooLarge {
        /// Length of the body.
        bytes: usize,
        /// Largest that is sent.
        limit: usize,
    },
    /// The peer carried the call out; its answer is larger than a frame may be.
    #[error("the peer's answer is larger than what may be sent")]
    AnswerTooLarge,
    /// The peer took the call and gave it up.
    #[error("the peer gave the call up without an answer")]
    Dropped,
}

/// Why there is no link to a peer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The first attempt is under way.
    #[error("no connection was made yet")]
    Connecting,
    /// The address does not take connections.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Nobody answered there within [`Settings::connect_timeout`](crate::Settings::connect_timeout).
    #[error("{address} does not answer")]
    NoAnswer {
        /// The address.
        address: String,
    },
    /// The peer does not want the link.
    #[error("{address} refuses the link")]
    Refused {
        /// The address.
        address: String,
        /// What it said.
        #[source]
        reason: Refusal,
    },
    /// This node does not want a link to whom it found there.
    #[error("whom {address} belongs to is not acceptable")]
    NotAcceptable {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        reason: Refusal,
    },
    /// Another node answers there.
    #[error("{address} is node {found}, not node {wanted}")]
    OtherNode {
        /// The address.
        address: String,
        /// Node that was looked for.
        wanted: u32,
        /// Node that answers.
        found: u32,
    },
    /// Nothing was heard for this long.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// The connection broke, or the peer broke the protocol.
    #[error("the link broke: {0}")]
    Broken(Arc<str>),
    /// The peer has a new address; the link to the old one was ended.
    #[error("the peer's address changed")]
    Moved,
    /// This node is stopping, or the peer was taken off the list.
    #[error("the link was ended by this node")]
    Stopped,
}

impl LinkError {
    pub(crate) fn broken(reason: impl Into<Arc<str>>) -> Self {
        Self::Broken(reason.into())
    }

    /// Few and constant, for the label of a metric.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Connecting | Self::Connect { .. } => "connect",
            Self::NoAnswer { .. } => "no_answer",
            Self::Refused { .. } => "refused",
            Self::NotAcceptable { .. } => "not_acceptable",
            Self::OtherNode { .. } => "other_node",
            Self::Silent(_) => "silent",
            Self::Broken(_) => "broken",
            Self::Moved => "moved",
            Self::Stopped => "stopped",
        }
    }
}
