//! FindCoordinator (key 10), versions 0-6.
//!
//! Names the broker that coordinates a group.
//!
//! - v1: key types. v3: flexible encoding. v4: several keys at once, each with its own error (KIP-699).
//! - v6: share groups (KIP-932).
//!
//! The first question makes `__consumer_offsets`. Not done: transactions and share groups, whose keys are answered
//! COORDINATOR_NOT_AVAILABLE and INVALID_REQUEST; neither is offered to clients by another API.

use std::ops::RangeInclusive;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::find_coordinator_response::Coordinator;
use takhin_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse, StrBytes};

use crate::context::RequestContext;
use crate::coordinators::Coordinators;
use crate::dispatch::Api;
use crate::replicas::{self, Node};

/// Key types (KIP-98, KIP-932).
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// First version with a list of keys.
const MANY_KEYS: i16 = 4;

pub(crate) struct FindCoordinator;

impl Api for FindCoordinator {
    type Request = FindCoordinatorRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=6;

    async fn handle(cx: &RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
        if cx.version < MANY_KEYS {
            let found = find(cx, request.key_type, &request.key).await;
            return single(cx, found);
        }
        let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
        for key in request.coordinator_keys {
            let found = find(cx, request.key_type, &key).await;
            coordinators.push(one_of_many(cx, key, found));
        }
        FindCoordinatorResponse::default().with_coordinators(coordinators)
    }
}

struct Refused {
    code: ErrorCode,
    message: &'static str,
}

async fn find(cx: &RequestContext, key_type: i8, key: &str) -> Result<Node, Refused> {
    let refuse = |code, message| Err(Refused { code, message });
    match key_type {
        GROUP => {}
        TRANSACTION => {
            return refuse(
                ErrorCode::CoordinatorNotAvailable,
                "transactions are not served by this version",
            );
        }
        _ => return refuse(ErrorCode::InvalidRequest, "unknown key type"),
    }
    let unavailable = |code| Refused {
        code,
        message: "the coordinator is not available",
    };
    let broker = Coordinators::find(cx.broker(), key).await.map_err(unavailable)?;
    replicas::node(cx, &cx.cluster().image(), broker)
        .ok_or_else(|| unavailable(ErrorCode::CoordinatorNotAvailable))
}

fn single(cx: &RequestContext, found: Result<Node, Refused>) -> FindCoordinatorResponse {
    let response = FindCoordinatorResponse::default();
    match found {
        Ok(node) => response
            .with_node_id(node.id.into())
            .with_host(node.host)
            .with_port(node.port),
        Err(refused) => response
            .with_error_code(cx.code(refused.code))
            .with_error_message(Some(StrBytes::from_static_str(refused.message)))
            .with_node_id((-1).into())
            .with_port(-1),
    }
}

fn one_of_many(cx: &RequestContext, key: StrBytes, found: Result<Node, Refused>) -> Coordinator {
    let coordinator = Coordinator::default().with_key(key);
    match found {
        Ok(node) => coordinator
            .with_node_id(node.id.into())
            .with_host(node.host)
            .with_port(node.port),
        Err(refused) => coordinator
            .with_error_code(cx.code(refused.code))
            .with_error_message(Some(StrBytes::from_static_str(refused.message)))
            .with_node_id((-1).into())
            .with_port(-1),
    }
}
