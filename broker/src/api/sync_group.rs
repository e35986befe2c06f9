//! SyncGroup (key 14), versions 0-5.
//!
//! Brings the leader's assignment, and fetches a member's own; answered when the leader has brought it.
//!
//! - v3: static members (KIP-345). v4: flexible encoding. v5: protocol type and name are checked (KIP-559).

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::coordinate::{coordinate, count, response_of};
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct SyncGroup;

impl Api for SyncGroup {
    type Request = SyncGroupRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;

    async fn handle(cx: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
        let group = request.group_id.clone();
        let job = move |shard: &mut Shard, cx: &Context<'_>| vec![shard.sync_group(cx, &request)];
        match coordinate(cx, &group, job, response_of!(SyncGroup)).await {
            Ok(response) => {
                count(cx, response.error_code);
                response
            }
            Err(code) => SyncGroupResponse::default().with_error_code(code.code()),
        }
    }
}
