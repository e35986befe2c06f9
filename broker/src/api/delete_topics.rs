//! DeleteTopics (key 20), versions 1-6.
//!
//! Deletes topics by name or, since v6, by id (KIP-516).
//!
//! - v4: flexible encoding. v5: messages.
//!
//! A deletion that does not show in `timeout_ms` answers REQUEST_TIMED_OUT and may still happen.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::future::join_all;
use takhin_cluster::Image;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::delete_topics_request::DeleteTopicState;
use takhin_protocol::messages::delete_topics_response::DeletableTopicResult;
use takhin_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, StrBytes, TopicName};
use uuid::Uuid;

use super::change::{self, Refused};
use super::config_resource::repeated;
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct DeleteTopics;

impl Api for DeleteTopics {
    type Request = DeleteTopicsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=6;

    async fn handle(cx: &RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let image = cx.cluster().image();
        let timeout_ms = request.timeout_ms;
        let mut targets: Vec<Target> = asked(cx.version, request)
            .into_iter()
            .map(|topic| find(&image, topic, cx.version))
            .collect();
        refuse_repeated(&mut targets);
        let results = join_all(targets.into_iter().map(|target| delete(cx, target, timeout_ms))).await;
        DeleteTopicsResponse::default().with_responses(results)
    }
}

/// Whether requests of this version have a list of names only.
fn has_names_only(version: i16) -> bool {
    version < 6
}

fn asked(version: i16, request: DeleteTopicsRequest) -> Vec<DeleteTopicState> {
    if !has_names_only(version) {
        return request.topics;
    }
    request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState::default().with_name(Some(name)))
        .collect()
}

/// A topic of the request, and the living one that is meant.
struct Target {
    name: Option<TopicName>,
    id: Uuid,
    found: Result<Uuid, Refused>,
}

/// A topic that is named twice, be it by name and by id, is not deleted (as in Kafka).
fn refuse_repeated(targets: &mut [Target]) {
    let found = targets.iter().filter_map(|target| target.found.as_ref().ok());
    let repeated = repeated(found.copied());
    for target in targets {
        if target.found.as_ref().is_ok_and(|id| repeated.contains(id)) {
            target.found = Err(Refused::new(ErrorCode::InvalidRequest, "Duplicate topic."));
        }
    }
}

/// KIP-322.
fn knows_deletion_disabled(version: i16) -> bool {
    version >= 3
}

fn find(image: &Image, asked: DeleteTopicState, version: i16) -> Target {
    let refuse = |code, message: &str| Err(Refused::new(code, message));
    let (name, id) = (asked.name, asked.topic_id);
    let topic = match (&name, id.is_nil()) {
        (Some(name), true) => image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        (None, false) => image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId),
        (None, true) | (Some(_), false) => Err(ErrorCode::InvalidRequest),
    };
    let found = match topic {
        Ok(_) if !image.settings.node.kafka.delete_topic_enable => {
            let code = if knows_deletion_disabled(version) {
                ErrorCode::TopicDeletionDisabled
            } else {
                ErrorCode::InvalidRequest
            };
            refuse(code, "Topic deletion is disabled.")
        }
        Ok(topic) => Ok(topic.id),
        Err(ErrorCode::InvalidRequest) => refuse(
            ErrorCode::InvalidRequest,
            "Give each topic either a name or an id.",
        ),
        Err(code) => refuse(code, "There is no such topic."),
    };
    // The answer names both where both are known.
    let known = found.as_ref().ok().and_then(|id| image.topic_by_id(*id));
    let name = name.or_else(|| known.map(|topic| StrBytes::from_string(topic.name.clone()).into()));
    Target {
        name,
        id: known.map_or(id, |topic| topic.id),
        found,
    }
}

/// Deletes in a task of its own, so that a client that goes away does not stop it halfway.
async fn delete(cx: &RequestContext, target: Target, timeout_ms: i32) -> DeletableTopicResult {
    // Before v6 there is no null name.
    let name = if has_names_only(cx.version) {
        target.name.or_else(|| Some(TopicName::default()))
    } else {
        target.name
    };
    let result = DeletableTopicResult::default()
        .with_name(name)
        .with_topic_id(target.id);
    let deleted = match target.found {
        Ok(id) => delete_found(cx, id, timeout_ms).await,
        Err(refused) => Err(refused),
    };
    match deleted {
        Ok(()) => result,
        Err(refused) => result
            .with_error_code(cx.code(refused.code))
            .with_error_message(refused.text()),
    }
}

async fn delete_found(cx: &RequestContext, id: Uuid, timeout_ms: i32) -> Result<(), Refused> {
    let cluster = Arc::clone(cx.cluster());
    let deleting = async move { cluster.delete_topic(id).await };
    change::make(cx, timeout_ms, "delete topic", deleting).await
}
