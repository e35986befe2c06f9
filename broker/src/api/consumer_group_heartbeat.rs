//! ConsumerGroupHeartbeat (key 68), versions 0-1.
//!
//! Joins a consumer group, stays in it, takes over and gives back partitions, and leaves (KIP-848).
//!
//! - v1: member ids are made by clients (KIP-1082), and topics may be subscribed to by regular expression.

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::coordinate::{coordinate, count, response_of};
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct ConsumerGroupHeartbeat;

impl Api for ConsumerGroupHeartbeat {
    type Request = ConsumerGroupHeartbeatRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    async fn handle(
        cx: &RequestContext,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let group = request.group_id.clone();
        let job =
            move |shard: &mut Shard, cx: &Context<'_>| vec![shard.consumer_group_heartbeat(cx, &request)];
        match coordinate(cx, &group, job, response_of!(ConsumerGroupHeartbeat)).await {
            Ok(response) => {
                count(cx, response.error_code);
                response
            }
            Err(code) => ConsumerGroupHeartbeatResponse::default().with_error_code(code.code()),
        }
    }
}
