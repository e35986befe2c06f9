//! Heartbeat (key 12), versions 0-4.
//!
//! Keeps a member of a classic group alive and tells it of rebalances.
//!
//! - v3: static members (KIP-345). v4: flexible encoding.

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::coordinate::{coordinate, count, response_of};
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct Heartbeat;

impl Api for Heartbeat {
    type Request = HeartbeatRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;

    async fn handle(cx: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
        let group = request.group_id.clone();
        let job = move |shard: &mut Shard, cx: &Context<'_>| vec![shard.heartbeat(cx, &request)];
        match coordinate(cx, &group, job, response_of!(Heartbeat)).await {
            Ok(response) => {
                count(cx, response.error_code);
                response
            }
            Err(code) => HeartbeatResponse::default().with_error_code(code.code()),
        }
    }
}
