//! JoinGroup (key 11), versions 0-9.
//!
//! Joins a classic group; answered when everybody who is expected has joined.
//!
//! - v1: rebalance timeout. v4: a new member is given its id first (KIP-394). v5: static members (KIP-345).
//! - v6: flexible encoding. v7: protocol type in the answer. v8: a reason (KIP-800). v9: the leader of a static group
//!   is told to skip the assignment (KIP-814).

use std::ops::RangeInclusive;

use takhin_protocol::messages::{JoinGroupRequest, JoinGroupResponse, StrBytes};

use super::coordinate::{coordinate, count, response_of};
use crate::context::RequestContext;
use crate::dispatch::Api;

/// First version whose answer can say that there is no protocol.
const NULLABLE_PROTOCOL: i16 = 7;

pub(crate) struct JoinGroup;

impl Api for JoinGroup {
    type Request = JoinGroupRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=9;

    async fn handle(cx: &RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
        let (group, member) = (request.group_id.clone(), request.member_id.clone());
        let job = move |shard: &mut takhin_coordinator::Shard, cx: &takhin_coordinator::Context<'_>| {
            vec![shard.join_group(cx, &request)]
        };
        match coordinate(cx, &group, job, response_of!(JoinGroup)).await {
            Ok(response) => {
                count(cx, response.error_code);
                response
            }
            Err(code) => JoinGroupResponse::default()
                .with_error_code(code.code())
                .with_generation_id(-1)
                .with_protocol_name((cx.version < NULLABLE_PROTOCOL).then(StrBytes::new))
                .with_member_id(member),
        }
    }
}
