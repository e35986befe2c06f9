//! OffsetForLeaderEpoch (key 23), versions 2-4.
//!
//! Tells where a leader epoch ended, so that a consumer notices a truncated log (KIP-320).
//!
//! - v3: replica id. v4: flexible encoding.
//!
//! Leader needed: the partition's.

use std::ops::RangeInclusive;

use takhin_cluster::ServedBy;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use takhin_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use takhin_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::error::ToErrorCode as _;
use crate::replicas::View;

pub(crate) struct OffsetForLeaderEpoch;

impl Api for OffsetForLeaderEpoch {
    type Request = OffsetForLeaderEpochRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=4;

    async fn handle(
        cx: &RequestContext,
        request: OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        let view = View::new(cx.cluster());
        let topics = request
            .topics
            .into_iter()
            .map(|topic| describe(cx, &view, topic))
            .collect();
        OffsetForLeaderEpochResponse::default().with_topics(topics)
    }
}

fn describe(cx: &RequestContext, view: &View, topic: OffsetForLeaderTopic) -> OffsetForLeaderTopicResult {
    let partitions = topic
        .partitions
        .iter()
        .map(|asked| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            match end_of_epoch(view, &topic.topic, asked) {
                Ok((epoch, end_offset)) => answer.with_leader_epoch(epoch).with_end_offset(end_offset),
                Err(code) => answer
                    .with_error_code(cx.code(code))
                    .with_leader_epoch(-1)
                    .with_end_offset(-1),
            }
        })
        .collect();
    OffsetForLeaderTopicResult::default()
        .with_topic(topic.topic)
        .with_partitions(partitions)
}

fn end_of_epoch(
    view: &View,
    topic: &TopicName,
    asked: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let partition = view.partition_by_name(topic, asked.partition)?;
    partition
        .check_epoch(asked.current_leader_epoch, ServedBy::Leader)
        .map_err(|error| error.to_error_code())?;
    Ok(partition.end_offset_for_epoch(asked.leader_epoch))
}
