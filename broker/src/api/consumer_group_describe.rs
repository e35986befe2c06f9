//! ConsumerGroupDescribe (key 69), versions 0-1.
//!
//! Describes consumer groups: epochs, members, what they have and what they are to have (KIP-848).
//!
//! - v1: whether a member speaks the classic or the consumer protocol.

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::messages::consumer_group_describe_response::DescribedGroup;
use takhin_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId};

use super::coordinate::{coordinate, count, response_of};
use super::operations;
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct ConsumerGroupDescribe;

impl Api for ConsumerGroupDescribe {
    type Request = ConsumerGroupDescribeRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    async fn handle(
        cx: &RequestContext,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        let mut groups = Vec::with_capacity(request.group_ids.len());
        for id in request.group_ids {
            let group = describe(cx, id).await;
            count(cx, group.error_code);
            let asked = request.include_authorized_operations;
            groups.push(group.with_authorized_operations(operations::on_group(asked)));
        }
        ConsumerGroupDescribeResponse::default().with_groups(groups)
    }
}

async fn describe(cx: &RequestContext, id: GroupId) -> DescribedGroup {
    let asked = id.clone();
    let job = move |shard: &mut Shard, cx: &Context<'_>| vec![shard.consumer_group_describe(cx, &asked)];
    let described = coordinate(cx, &id, job, response_of!(ConsumerGroupDescribe)).await;
    match described.map(|response| response.groups.into_iter().next()) {
        Ok(Some(group)) => group,
        Ok(None) => DescribedGroup::default().with_group_id(id),
        Err(code) => DescribedGroup::default()
            .with_group_id(id)
            .with_error_code(code.code()),
    }
}
