//! Produce (key 0), versions 3-13; 0-2 are advertised too and answer UNSUPPORTED_VERSION for each partition,
//! because old clients look for an overlap with them before they use anything newer.
//!
//! Appends record batches, exactly one per partition, and answers when they are as safe as `acks` asks for.
//!
//! - v5: log start offset. v7: zstd. v8: record errors and messages (KIP-467). v9: flexible encoding.
//! - v10: who leads instead (KIP-951). v12: nothing new without transactions. v13: topic ids (KIP-516).
//!
//! The first stage validates and proposes every batch in the order of requests; the second waits for the outcomes,
//! so that several requests of a connection are under way at a time. A timeout leaves the outcome open: the batch
//! may still be committed.
//!
//! Leader needed: the partition's.
//!
//! Not done: transactions. No transaction can be open, so a transactional batch answers INVALID_TXN_STATE.

mod answer;
mod propose;
mod validate;

use std::ops::RangeInclusive;

use takhin_cluster::ProduceError;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::ProduceRequest;

use crate::context::RequestContext;
use crate::dispatch::{Pending, Staged};
use crate::error::ToErrorCode as _;
use crate::reply::{CloseReason, Outcome};

pub(crate) struct Produce;

impl Staged for Produce {
    type Request = ProduceRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=13;

    fn start(cx: RequestContext, request: ProduceRequest) -> Pending {
        let (acks, timeout_ms) = (request.acks, request.timeout_ms);
        let span = cx.span();
        let proposed = span.in_scope(|| propose::propose(&cx, request));
        if acks == 0 {
            return Pending::Ready(unanswered(&cx, &proposed));
        }
        Pending::later(span, answer::answer(cx, proposed, timeout_ms))
    }
}

/// `acks=0` has no reply; an error closes the connection, so that the client looks for the leader anew (as Kafka).
fn unanswered(cx: &RequestContext, topics: &[propose::Topic]) -> Outcome {
    let mut failed = false;
    for partition in topics.iter().flat_map(|topic| &topic.partitions) {
        if let propose::State::Settled(Err(refused)) = &partition.state {
            cx.code(refused.code);
            failed = true;
        }
    }
    if failed {
        Outcome::Close(CloseReason::UnansweredError)
    } else {
        Outcome::Silent
    }
}

/// Whether requests of this version name topics by id.
fn uses_topic_ids(version: i16) -> bool {
    version >= 13
}

/// Whether batches of this version are too old for the format that we store.
fn predates_record_batches(version: i16) -> bool {
    version < 3
}

/// Whether a reply of this version can say who leads instead (KIP-951).
fn names_leaders(version: i16) -> bool {
    version >= 10
}

/// Why a partition's batch was refused.
#[derive(Debug)]
struct Refused {
    code: ErrorCode,
    /// For people; clients since v8 show it.
    message: Option<String>,
    /// Positions in the batch of the records that are to blame.
    records: Vec<i32>,
    /// The leader epoch in which it was decided, if only who leads may say so.
    in_epoch: Option<i32>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
            records: Vec::new(),
            in_epoch: None,
        }
    }
}

impl From<&ProduceError> for Refused {
    fn from(error: &ProduceError) -> Self {
        Self {
            code: error.to_error_code(),
            message: Some(error.to_string()),
            records: Vec::new(),
            in_epoch: match error {
                ProduceError::OutOfOrderSequence { epoch, .. } => Some(*epoch),
                _ => None,
            },
        }
    }
}
