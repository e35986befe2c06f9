//! What a ConsumerGroupHeartbeat must look like, whatever the group. Source: KIP-848, KIP-1082.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::ConsumerGroupHeartbeatRequest;

use super::{JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Refusal};
use crate::assignor::Assignor;

/// First version whose clients make their member ids (KIP-1082).
const CLIENT_MAKES_MEMBER_ID: i16 = 1;

/// Longest id, in bytes: keys of records have strings with a 16-bit length.
const MAX_ID_BYTES: usize = i16::MAX as usize;

/// Checks a request by itself.
///
/// # Errors
///
/// INVALID_REQUEST or UNSUPPORTED_ASSIGNOR, naming the field.
pub(crate) fn validate(version: i16, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    if request.group_id.is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if request.instance_id.as_ref().is_some_and(|id| id.is_empty()) {
        return invalid("InstanceId can't be empty.");
    }
    if request.rack_id.as_ref().is_some_and(|id| id.is_empty()) {
        return invalid("RackId can't be empty.");
    }
    for (name, value) in [
        ("GroupId", Some(request.group_id.as_str())),
        ("MemberId", Some(request.member_id.as_str())),
        ("InstanceId", request.instance_id.as_deref()),
    ] {
        if value.is_some_and(|value| value.len() > MAX_ID_BYTES) {
            return invalid(&format!("{name} can't be longer than {MAX_ID_BYTES} bytes."));
        }
    }
    let epoch = request.member_epoch;
    if request.member_id.is_empty() && (version >= CLIENT_MAKES_MEMBER_ID || epoch != JOIN_EPOCH) {
        return invalid("MemberId can't be empty.");
    }
    match epoch {
        JOIN_EPOCH => validate_join(request)?,
        LEAVE_STATIC_EPOCH if request.instance_id.is_none() => return invalid("InstanceId can't be null."),
        LEAVE_STATIC_EPOCH | LEAVE_EPOCH => {}
        epoch if epoch < 0 => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    match request.server_assignor.as_deref() {
        Some(name) if Assignor::from_name(name).is_none() => Err(Refusal::new(
            ErrorCode::UnsupportedAssignor,
            format!(
                "ServerAssignor {name} is not supported. Supported assignors: {}.",
                Assignor::ALL.map(Assignor::name).join(", ")
            ),
        )),
        _ => Ok(()),
    }
}

fn validate_join(request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    if request.rebalance_timeout_ms == -1 {
        return invalid("RebalanceTimeoutMs must be provided in first request.");
    }
    if !request.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
        return invalid("TopicPartitions must be empty when (re-)joining.");
    }
    // Both may be empty: the member is then subscribed to nothing.
    if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
        return invalid(
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        );
    }
    Ok(())
}

fn invalid(message: &str) -> Result<(), Refusal> {
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}
