//! OffsetDelete (key 47), versions 0-0.
//!
//! Deletes offsets of a group for topics that no live member of it reads (KIP-496).

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::coordinate::{coordinate, count, response_of};
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct OffsetDelete;

impl Api for OffsetDelete {
    type Request = OffsetDeleteRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;

    async fn handle(cx: &RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
        let group = request.group_id.clone();
        let job = move |shard: &mut Shard, cx: &Context<'_>| vec![shard.offset_delete(cx, &request)];
        match coordinate(cx, &group, job, response_of!(OffsetDelete)).await {
            Ok(response) => {
                count(cx, response.error_code);
                response
            }
            Err(code) => OffsetDeleteResponse::default().with_error_code(code.code()),
        }
    }
}
