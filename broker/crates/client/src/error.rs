//! What can go wrong between a client and its cluster.

use std::io;
use std::time::Duration;

use takhin_protocol::ErrorCode;
use takhin_protocol::frame::FrameError;
use takhin_protocol::messages::{DecodeError, EncodeError};
use takhin_protocol::record::{BuildError, CompressionError, RecordError, scan};

/// Why a request, or what it was for, failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection to a broker could be made.
    #[error("cannot connect to {address}")]
    Connect {
        /// `HOST:PORT`.
        address: String,
        /// What the network said.
        #[source]
        source: io::Error,
    },
    /// The connection ended before the answer came. Whether the broker did what was asked is unknown.
    #[error("connection to {address} ended")]
    Closed {
        /// `HOST:PORT`.
        address: String,
    },
    /// No answer in time. Whether the broker did what was asked is unknown.
    #[error("no answer from {address} within {} ms", after.as_millis())]
    TimedOut {
        /// `HOST:PORT`, or what was waited for.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// What arrived is not a sequence of frames.
    #[error("answer from {address} is not a frame")]
    Frame {
        /// `HOST:PORT`.
        address: String,
        /// What is wrong with it.
        #[source]
        source: FrameError,
    },
    /// An answer could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A request could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An answer belongs to another request, or leaves out what was asked for.
    #[error("answer from {address} does not fit its request")]
    Mismatch {
        /// `HOST:PORT`.
        address: String,
    },
    /// Broker and client have no version of an API in common.
    #[error("{address} has no usable version of api {api_key}")]
    Unsupported {
        /// `HOST:PORT`.
        address: String,
        /// The API's key.
        api_key: i16,
    },
    /// The broker answered with an error.
    #[error("{what}: {code}")]
    Code {
        /// What was asked for.
        what: String,
        /// The answer.
        code: ErrorCode,
    },
    /// The broker answered with an error that this client does not know.
    #[error("{what}: error code {code}")]
    UnknownCode {
        /// What was asked for.
        what: String,
        /// The answer.
        code: i16,
    },
    /// A partition has no leader that is known.
    #[error("{topic}-{partition} has no leader")]
    NoLeader {
        /// The topic.
        topic: String,
        /// The partition's index.
        partition: i32,
    },
    /// There is no broker to ask: the bootstrap list is empty.
    #[error("no broker to connect to")]
    NoBroker,
    /// A batch could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A fetched batch is damaged.
    #[error("{topic}-{partition} holds a damaged batch at or after offset {offset}")]
    Damaged {
        /// The topic.
        topic: String,
        /// The partition's index.
        partition: i32,
        /// Offset of the batch, or the one that was asked for if that cannot be read.
        offset: i64,
        /// What is wrong with it.
        #[source]
        source: Damage,
    },
    /// A position lies outside what the partition still, or already, has.
    #[error("offset {offset} of {topic}-{partition} is out of range")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition's index.
        partition: i32,
        /// The position.
        offset: i64,
    },
    /// The producer was closed, or its task ended.
    #[error("producer is closed")]
    ProducerClosed,
}

/// What is wrong with a fetched batch.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// Its header or checksum.
    #[error(transparent)]
    Batch(#[from] scan::Damage),
    /// Its compression.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// Its codec has no name.
    #[error("codec {0} is unknown")]
    Codec(i16),
    /// One of its records.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl ClientError {
    /// Returns whether the same may succeed later, or at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Closed { .. } | Self::TimedOut { .. } | Self::NoLeader { .. } => {
                true
            }
            // A broker that talks nonsense on one connection may be replaced by one that does not.
            Self::Frame { .. } | Self::Mismatch { .. } => true,
            Self::Code { code, .. } => code.retriable(),
            Self::Decode(_)
            | Self::Encode(_)
            | Self::Unsupported { .. }
            | Self::UnknownCode { .. }
            | Self::NoBroker
            | Self::Build(_)
            | Self::Damaged { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::ProducerClosed => false,
        }
    }

    /// Returns whether another producer has taken the place of this one.
    pub fn is_fenced(&self) -> bool {
        matches!(
            self,
            Self::Code {
                code: ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch,
                ..
            }
        )
    }

    /// Returns whether the broker may have done what was asked although no answer says so.
    pub fn is_unknown_outcome(&self) -> bool {
        match self {
            Self::Closed { .. }
            | Self::TimedOut { .. }
            | Self::Frame { .. }
            | Self::Mismatch { .. }
            | Self::Decode(_) => true,
            // Appended, but not committed in time: KIP-98 and the replication of Kafka say the same.
            Self::Code { code, .. } => {
                matches!(
                    code,
                    ErrorCode::RequestTimedOut | ErrorCode::NotEnoughReplicasAfterAppend
                )
            }
            Self::Connect { .. }
            | Self::Encode(_)
            | Self::Unsupported { .. }
            | Self::UnknownCode { .. }
            | Self::NoLeader { .. }
            | Self::NoBroker
            | Self::Build(_)
            | Self::Damaged { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::ProducerClosed => false,
        }
    }

    /// `Ok` for code 0, otherwise the error; `what` says what was asked for.
    pub(crate) fn check(code: i16, what: impl FnOnce() -> String) -> Result<(), Self> {
        match ErrorCode::from_code(code) {
            Some(code) if code.is_ok() => Ok(()),
            Some(code) => Err(Self::Code { what: what(), code }),
            None => Err(Self::UnknownCode { what: what(), code }),
        }
    }
}
