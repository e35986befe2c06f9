//! What can go wrong with the brokers.

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
    /// A topic does not exist.
    #[error("topic {0} is missing: create it, or set sink.create_topics")]
    Missing(String),
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
         max.message.bytes of the topic, or set sink.oversize to skip"
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
            _ => "",
        },
        _ => "",
    };
    text + remedy
}
