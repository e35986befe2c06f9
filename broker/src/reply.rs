//! A reply on its way to a socket: bytes, and ranges of segment files that never pass through user space.

use std::sync::Arc;

use bytes::Bytes;
use takhin_runtime::disk::File;

/// One piece of a reply.
#[derive(Debug)]
pub(crate) enum Part {
    /// Bytes in memory.
    Bytes(Bytes),
    /// `len` bytes of `file` from `pos` on, to be sent as they are.
    File {
        /// The segment file; it stays readable while this holds it, also once the segment is deleted.
        file: Arc<dyn File>,
        /// First byte.
        pos: u64,
        /// Number of bytes.
        len: usize,
    },
}

impl Part {
    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File { len, .. } => *len,
        }
    }
}

/// A whole response frame, length prefix included.
#[derive(Debug)]
pub(crate) enum Reply {
    /// All of it in memory.
    Bytes(Bytes),
    /// In pieces, in this order.
    Parts(Vec<Part>),
}

impl Reply {
    /// Length in bytes, prefix included.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Parts(parts) => parts.iter().map(Part::len).sum(),
        }
    }
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// To be sent when its turn has come.
    Reply(Reply),
    /// Nothing is sent (`acks=0`).
    Silent,
    /// The connection is to be closed, after the replies before this one.
    Close(CloseReason),
}

/// Why the broker closes a connection by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// A frame that is no request, or one that is not advertised.
    BadRequest,
    /// An `acks=0` produce failed: closing is how its sender learns it (Kafka does the same).
    UnansweredError,
    /// No request for `kafka.limits.connections_max_idle`.
    Idle,
    /// A frame that arrives too slowly.
    SlowFrame,
    /// The client does not read its replies.
    SlowReader,
    /// The broker stops.
    Stopping,
    /// A fault of ours; it was logged.
    Fault,
}

impl CloseReason {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::BadRequest,
        Self::UnansweredError,
        Self::Idle,
        Self::SlowFrame,
        Self::SlowReader,
        Self::Stopping,
        Self::Fault,
    ];

    /// The metric label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnansweredError => "unanswered_error",
            Self::Idle => "idle",
            Self::SlowFrame => "slow_frame",
            Self::SlowReader => "slow_reader",
            Self::Stopping => "stopping",
            Self::Fault => "fault",
        }
    }
}
