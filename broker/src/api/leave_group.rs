//! LeaveGroup (key 13), versions 0-5.
//!
//! Takes members out of a classic group.
//!
//! - v3: a list of members, by id or instance id (KIP-345). v4: flexible encoding. v5: a reason (KIP-800).

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::coordinate::{coordinate, count, response_of};
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct LeaveGroup;

impl Api for LeaveGroup {
    type Request = LeaveGroupRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;

    async fn handle(cx: &RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
        let group = request.group_id.clone();
        let job = move |shard: &mut Shard, cx: &Context<'_>| vec![shard.leave_group(cx, &request)];
        match coordinate(cx, &group, job, response_of!(LeaveGroup)).await {
            Ok(response) => {
                count(cx, response.error_code);
                response
            }
            Err(code) => LeaveGroupResponse::default().with_error_code(code.code()),
        }
    }
}
