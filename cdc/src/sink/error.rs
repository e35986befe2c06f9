//! What can go wrong with the brokers.

use std::time::Duration;

use takhin_client::{ClientError, ErrorCode};

/// Why events cannot be written for now.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// No broker answers, or it says no.
    #[error("cannot {what}: {}", words(source))]
    Client {
        /// What was tried.
        what: String,
        /// What came of it.
        source: ClientError,
    },
    /// A batch that brokers do not take, however often it is sent.
    #[error("cannot write to {topic}: {}", words(source))]
    Refused {
        /// The topic.
        topic: String,
        /// The brokers' words.
        source: ClientError,
    },
    /// A key's data set and its changes would be in different partitions.
    #[error(
        "sink.topic_snapshot is {} with {} partitions, and sink.topic_binlog {} with {}: give both as many, or set sink.mode to \
         single", snapshot.0, snapshot.1, binlog.0, binlog.1
    )]
    Unequal {
        /// The topic of the data set, and its partitions.
        snapshot: (String, i32),
        /// The topic of changes, and its partitions.
        binlog: (String, i32),
    },
    /// There are no transactions.
    #[error(
        "sink.delivery is exactly_once, and the brokers have no transactions ({0}): set it to at_least_once"
    )]
    NoTransactions(ClientError),
    /// Somebody else writes for the source.
    #[error("another takhin-cdc has begun to write for source.id {0}: only one can; this one ends")]
    Fenced(String),
    /// What somebody has left open hides positions.
    #[error(
        "positions in {topic} cannot be read yet: a transaction there was open for {} s; that of a process that was \
         killed ends after its sink.transaction_timeout",
        after.as_secs()
    )]
    Held {
        /// The topic of positions.
        topic: String,
        /// How long that was waited for.
        after: Duration,
    },
    /// A topic does not exist.
    #[error("topic {0} is missing: create it, or set sink.create_topics")]
    Missing(String),
    /// A topic does not exist any more.
    #[error(
        "topic {0} was deleted while it was written to: what was in it is gone, and it is written on from the position"
    )]
    Deleted(String),
    /// A topic could not be created.
    #[error("cannot create topic {topic}: {why}")]
    Create {
        /// The topic.
        topic: String,
        /// The broker's words.
        why: String,
    },
    /// A record is larger than allowed.
    #[error(
        "the record of event {event_id} has {len} bytes, more than sink.max_record_size ({max}): raise it, with \
         max.message.bytes of the topic, or set sink.oversize to skip, and start again"
    )]
    Oversize {
        /// The event.
        event_id: String,
        /// Bytes of key and value.
        len: usize,
        /// The bound.
        max: usize,
    },
}

impl SinkError {
    /// The error for a batch that was not written.
    pub(super) fn of_batch(topic: &str, source: ClientError) -> Self {
        let (topic, is_refused) = (topic.to_owned(), is_for_good(&source));
        match is_refused {
            true => Self::Refused { topic, source },
            false => Self::Client {
                what: format!("write to {topic}"),
                source,
            },
        }
    }

    /// Whether nothing may be tried again.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Fenced(_))
    }

    /// Whether it comes again as long as this process has the settings that it was started with.
    pub fn needs_settings(&self) -> bool {
        matches!(self, Self::Oversize { .. })
    }

    /// Whether nothing changes before somebody does something.
    pub fn needs_somebody(&self) -> bool {
        matches!(
            self,
            Self::NoTransactions(_) | Self::Refused { .. } | Self::Unequal { .. }
        )
    }

    /// Whether the same batch is refused the next time too, and what was beside it is written again.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// Whether brokers say of what is in a batch that they do not take it. Not of who sends it: rights are given while it waits, and
/// all that goes to the topic waits with it.
fn is_for_good(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Code {
            code: ErrorCode::MessageTooLarge
                | ErrorCode::RecordListTooLarge
                | ErrorCode::InvalidTimestamp
                | ErrorCode::InvalidRecord
                | ErrorCode::PolicyViolation
                | ErrorCode::UnsupportedCompressionType,
            ..
        }
    )
}

/// The error in one line, with what it comes from and what to do where that is known.
fn words(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let remedy = match error {
        ClientError::Code { code, .. } => match code {
            ErrorCode::MessageTooLarge => {
                "; raise max.message.bytes of the topic, or lower sink.batch_size and sink.max_record_size"
            }
            ErrorCode::TopicAuthorizationFailed | ErrorCode::ClusterAuthorizationFailed => {
                "; grant this client to describe, write and read the topic"
            }
            ErrorCode::InvalidTimestamp => {
                "; the master's clock is ahead of the brokers': set it right, or raise message.timestamp.after.max.ms of the topic"
            }
            ErrorCode::InvalidTransactionTimeout => {
                "; lower sink.transaction_timeout, or raise transaction.max.timeout.ms of the brokers"
            }
            ErrorCode::TransactionalIdAuthorizationFailed => {
                "; grant this client to write and describe the transactional id takhin-cdc-<source.id>"
            }
            _ => "",
        },
        _ => "",
    };
    text + remedy
}
