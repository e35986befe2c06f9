//! DescribeGroups (key 15), versions 0-6.
//!
//! Describes classic groups: state, protocol, members with their metadata and assignments.
//!
//! - v3: authorized operations (KIP-430). v4: instance ids (KIP-345). v5: flexible encoding. v6: a group that does not
//!   exist is an error and no longer a dead group (KIP-1043).

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::messages::describe_groups_response::DescribedGroup;
use takhin_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use super::coordinate::{coordinate, count, response_of};
use super::operations;
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct DescribeGroups;

impl Api for DescribeGroups {
    type Request = DescribeGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=6;

    async fn handle(cx: &RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
        let mut groups = Vec::with_capacity(request.groups.len());
        for id in request.groups {
            let group = describe(cx, id).await;
            count(cx, group.error_code);
            let asked = request.include_authorized_operations;
            groups.push(group.with_authorized_operations(operations::on_group(asked)));
        }
        DescribeGroupsResponse::default().with_groups(groups)
    }
}

async fn describe(cx: &RequestContext, id: GroupId) -> DescribedGroup {
    let asked = id.clone();
    let job = move |shard: &mut Shard, cx: &Context<'_>| vec![shard.describe_groups(cx, &asked)];
    let described = coordinate(cx, &id, job, response_of!(DescribeGroups)).await;
    match described.map(|response| response.groups.into_iter().next()) {
        Ok(Some(group)) => group,
        Ok(None) => DescribedGroup::default().with_group_id(id),
        Err(code) => DescribedGroup::default()
            .with_group_id(id)
            .with_error_code(code.code()),
    }
}
