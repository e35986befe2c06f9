//! OffsetFetch (key 9), versions 1-9.
//!
//! Reads committed offsets of groups; what was not committed is -1 and no error.
//!
//! - v2: null asks for all partitions. v5: leader epochs (KIP-320). v6: flexible encoding. v7: stable offsets only
//!   (KIP-447). v8: several groups (KIP-709). v9: member epochs (KIP-848).
//!
//! The answer waits for commits that were decided before it, and for a majority to confirm that this broker coordinates: one
//! that was cut off answers NOT_COORDINATOR instead of what others may have moved on.

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic};
use takhin_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use takhin_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, StrBytes};

use super::coordinate::{coordinate, count, response_of};
use crate::context::RequestContext;
use crate::dispatch::Api;

/// First version with an error beside the partitions.
const TOP_LEVEL_ERROR: i16 = 2;
/// First version with a list of groups.
const MANY_GROUPS: i16 = 8;

pub(crate) struct OffsetFetch;

impl Api for OffsetFetch {
    type Request = OffsetFetchRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=9;

    async fn handle(cx: &RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
        if cx.version < MANY_GROUPS {
            return one(cx, request).await;
        }
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            groups.push(one_of_many(cx, group, request.require_stable).await);
        }
        OffsetFetchResponse::default().with_groups(groups)
    }
}

async fn one(cx: &RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let (group, topics) = (request.group_id.clone(), request.topics.clone());
    let job = move |shard: &mut Shard, cx: &Context<'_>| vec![shard.offset_fetch(cx, &request)];
    match coordinate(cx, &group, job, response_of!(OffsetFetch)).await {
        Ok(response) => {
            count(cx, response.error_code);
            response
        }
        Err(code) if cx.version < TOP_LEVEL_ERROR => refuse(topics.unwrap_or_default(), code),
        Err(code) => OffsetFetchResponse::default().with_error_code(code.code()),
    }
}

/// The oldest response has room for errors beside partitions only.
fn refuse(topics: Vec<OffsetFetchRequestTopic>, code: ErrorCode) -> OffsetFetchResponse {
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(*index)
                .with_committed_offset(-1)
                .with_metadata(Some(StrBytes::new()))
                .with_error_code(code.code())
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

async fn one_of_many(
    cx: &RequestContext,
    group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let id = group.group_id.clone();
    let request = OffsetFetchRequest::default()
        .with_groups(vec![group])
        .with_require_stable(require_stable);
    let job = move |shard: &mut Shard, cx: &Context<'_>| vec![shard.offset_fetch(cx, &request)];
    let fetched = coordinate(cx, &id, job, response_of!(OffsetFetch)).await;
    match fetched.map(|response| response.groups.into_iter().next()) {
        Ok(Some(group)) => {
            count(cx, group.error_code);
            group
        }
        Ok(None) => OffsetFetchResponseGroup::default().with_group_id(id),
        Err(code) => OffsetFetchResponseGroup::default()
            .with_group_id(id)
            .with_error_code(code.code()),
    }
}
