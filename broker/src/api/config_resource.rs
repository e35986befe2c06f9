//! What the APIs about configurations share: which topic, broker or group a resource means, and how a change of it is made.

use std::collections::BTreeSet;
use std::sync::Arc;

use takhin_cluster::ConfigTarget;
use takhin_config::alter::Change;
use takhin_protocol::{ErrorCode, TopicName};

use super::change::{self, Refused};
use crate::context::RequestContext;

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const GROUP: i8 = 32;

/// Longest group id: the records of groups have 16 bits for its length.
const MAX_GROUP_ID_BYTES: usize = i16::MAX as usize;

/// Longest that a change may take; the requests have no limit of their own.
const TIMEOUT_MS: i32 = 60_000;

/// Whose configuration a resource of a request names.
///
/// # Errors
/// INVALID_REQUEST for a type without settings here, another broker's id or none; INVALID_TOPIC_EXCEPTION.
pub(super) fn target(cx: &RequestContext, kind: i8, name: &str) -> Result<ConfigTarget, Refused> {
    match kind {
        TOPIC if name.is_empty() => Err(Refused::new(
            ErrorCode::InvalidRequest,
            "Default topic resources are not allowed.",
        )),
        TOPIC => match TopicName::parse(name) {
            Ok(name) => Ok(ConfigTarget::Topic(name.to_string())),
            Err(error) => Err(Refused::new(ErrorCode::InvalidTopicException, error.to_string())),
        },
        BROKER => broker(cx, name).map(ConfigTarget::Broker),
        GROUP if name.is_empty() => Err(Refused::new(
            ErrorCode::InvalidRequest,
            "Default group resources are not allowed.",
        )),
        GROUP if name.len() > MAX_GROUP_ID_BYTES => Err(Refused::new(
            ErrorCode::InvalidRequest,
            format!("A group id has at most {MAX_GROUP_ID_BYTES} bytes."),
        )),
        GROUP => Ok(ConfigTarget::Group(name.to_owned())),
        other => Err(Refused::new(
            ErrorCode::InvalidRequest,
            format!("Unsupported resource type: {other}"),
        )),
    }
}

/// The broker that a resource names: this one, or without a name all of them (KIP-226).
///
/// # Errors
/// INVALID_REQUEST for anything else, since Kafka's brokers speak for themselves only.
fn broker(cx: &RequestContext, name: &str) -> Result<Option<i32>, Refused> {
    if name.is_empty() {
        return Ok(None);
    }
    let own = cx.cluster().node_id();
    match name.parse::<i32>() {
        Ok(id) if id == own => Ok(Some(id)),
        Ok(id) => Err(Refused::new(
            ErrorCode::InvalidRequest,
            format!("Unexpected broker id, expected {own}, but received {id}"),
        )),
        Err(_) => Err(Refused::new(
            ErrorCode::InvalidRequest,
            format!("Broker id must be an integer, but it is: {name}"),
        )),
    }
}

/// Makes a change, or only finds out whether it can be made.
///
/// # Errors
/// As the change says; nothing was changed then, unless it is REQUEST_TIMED_OUT.
pub(super) async fn alter(
    cx: &RequestContext,
    target: ConfigTarget,
    change: Change,
    validate_only: bool,
) -> Result<(), Refused> {
    let cluster = Arc::clone(cx.cluster());
    let altering = async move { cluster.alter_config(&target, &change, validate_only).await };
    change::make(cx, TIMEOUT_MS, "alter configs", altering).await
}

/// The elements that `all` has more than once.
pub(super) fn repeated<T: Ord>(all: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for item in all {
        if let Some(before) = seen.replace(item) {
            repeated.insert(before);
        }
    }
    repeated
}

/// Refuses a resource that the request names more than once.
pub(super) fn named_twice() -> Refused {
    Refused::new(
        ErrorCode::InvalidRequest,
        "Each resource must appear at most once.",
    )
}

/// Refuses configuration names that a resource of the request has more than once.
///
/// # Errors
/// INVALID_REQUEST, which names them.
pub(super) fn each_once<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), Refused> {
    let repeated = repeated(names);
    if repeated.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = repeated.into_iter().collect();
    let message = format!("Error due to duplicate config keys: {}", names.join(", "));
    Err(Refused::new(ErrorCode::InvalidRequest, message))
}

/// Refuses configurations without a value.
///
/// # Errors
/// INVALID_REQUEST, which names them.
pub(super) fn none_null<'a>(null: impl Iterator<Item = &'a str>) -> Result<(), Refused> {
    let names: Vec<&str> = null.collect();
    if names.is_empty() {
        return Ok(());
    }
    let message = format!("Null value not supported for : {}", names.join(", "));
    Err(Refused::new(ErrorCode::InvalidRequest, message))
}
