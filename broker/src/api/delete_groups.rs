//! DeleteGroups (key 42), versions 0-2.
//!
//! Deletes groups without members, and their offsets (KIP-229).
//!
//! - v2: flexible encoding.

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::messages::delete_groups_response::DeletableGroupResult;
use takhin_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use super::coordinate::{coordinate, count, response_of};
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct DeleteGroups;

impl Api for DeleteGroups {
    type Request = DeleteGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;

    async fn handle(cx: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for id in request.groups_names {
            results.push(delete(cx, id).await);
        }
        DeleteGroupsResponse::default().with_results(results)
    }
}

async fn delete(cx: &RequestContext, id: GroupId) -> DeletableGroupResult {
    let asked = id.clone();
    let job = move |shard: &mut Shard, cx: &Context<'_>| shard.delete_groups(cx, &asked);
    let deleted = coordinate(cx, &id, job, response_of!(DeleteGroups)).await;
    match deleted.map(|response| response.results.into_iter().next()) {
        Ok(Some(result)) => {
            count(cx, result.error_code);
            result
        }
        Ok(None) => DeletableGroupResult::default().with_group_id(id),
        Err(code) => DeletableGroupResult::default()
            .with_group_id(id)
            .with_error_code(code.code()),
    }
}
