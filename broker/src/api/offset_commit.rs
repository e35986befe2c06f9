//! OffsetCommit (key 8), versions 2-9.
//!
//! Stores a group's offsets; answered when they are committed to `__consumer_offsets`.
//!
//! - v2-4: a retention of its own (KIP-186 ended that). v6: leader epochs (KIP-320). v7: static members (KIP-345).
//! - v8: flexible encoding. v9: member epochs (KIP-848).

use std::ops::RangeInclusive;

use takhin_coordinator::{Context, Shard};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use takhin_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use takhin_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::coordinate::{coordinate, count, response_of};
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct OffsetCommit;

impl Api for OffsetCommit {
    type Request = OffsetCommitRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=9;

    async fn handle(cx: &RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse {
        let (group, topics) = (request.group_id.clone(), request.topics.clone());
        let job = move |shard: &mut Shard, cx: &Context<'_>| vec![shard.offset_commit(cx, &request)];
        match coordinate(cx, &group, job, response_of!(OffsetCommit)).await {
            Ok(response) => {
                let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
                for partition in partitions {
                    count(cx, partition.error_code);
                }
                response
            }
            Err(code) => refuse(topics, code),
        }
    }
}

/// The response has room for errors beside partitions only.
fn refuse(topics: Vec<OffsetCommitRequestTopic>, code: ErrorCode) -> OffsetCommitResponse {
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code.code())
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}
