//! DescribeTopicPartitions (key 75), version 0.
//!
//! Describes topics page by page, in order of their names (KIP-966). A page ends at the asked number of partitions, at
//! most 2000; its cursor says where the next one begins. Never creates a topic.

use std::collections::BTreeSet;
use std::ops::{Bound, RangeInclusive};

use takhin_cluster::TopicInfo;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use takhin_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, StrBytes, TopicName,
};

use super::operations;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::replicas::View;

/// Most partitions of one page, Kafka's `max.request.partition.size.limit`.
const MAX_PARTITIONS: usize = 2000;

pub(crate) struct DescribeTopicPartitions;

impl Api for DescribeTopicPartitions {
    type Request = DescribeTopicPartitionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;

    async fn handle(
        cx: &RequestContext,
        request: DescribeTopicPartitionsRequest,
    ) -> DescribeTopicPartitionsResponse {
        let view = View::new(cx.cluster());
        let named: BTreeSet<TopicName> = request.topics.into_iter().map(|topic| topic.name).collect();
        let (from, first_partition) = match &request.cursor {
            Some(cursor) => match usize::try_from(cursor.partition_index) {
                Ok(index) => (cursor.topic_name.as_str(), index),
                Err(_) => return refuse_all(cx, named),
            },
            None => ("", 0),
        };
        let limit = usize::try_from(request.response_partition_limit).unwrap_or(1);
        let page = Page {
            cx,
            view: &view,
            left: limit.clamp(1, MAX_PARTITIONS),
            response: DescribeTopicPartitionsResponse::default(),
        };
        let begin = |name: &str| if name == from { first_partition } else { 0 };
        if named.is_empty() {
            let names = view
                .image
                .topics
                .range::<str, _>((Bound::Included(from), Bound::Unbounded));
            page.fill(names.map(|(name, _)| (name.as_str(), begin(name))))
        } else {
            let names = named
                .iter()
                .map(|name| name.as_str())
                .filter(|name| *name >= from);
            page.fill(names.map(|name| (name, begin(name))))
        }
    }
}

/// A cursor that points nowhere spoils the whole request, which has no place for an error but at its topics.
fn refuse_all(cx: &RequestContext, named: BTreeSet<TopicName>) -> DescribeTopicPartitionsResponse {
    let topics = named
        .into_iter()
        .map(|name| refuse(cx, name, ErrorCode::InvalidRequest));
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

fn refuse(cx: &RequestContext, name: TopicName, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(cx.code(code))
        .with_is_internal(takhin_cluster::is_internal(&name))
        .with_name(Some(name))
}

struct Page<'a> {
    cx: &'a RequestContext,
    view: &'a View,
    /// Partitions for which there is room.
    left: usize,
    response: DescribeTopicPartitionsResponse,
}

impl Page<'_> {
    /// Fills the page with these topics, each from a partition on.
    fn fill<'n>(mut self, topics: impl Iterator<Item = (&'n str, usize)>) -> DescribeTopicPartitionsResponse {
        for (name, first) in topics {
            if self.left == 0 {
                return self.end_before(name, 0);
            }
            let wire_name: TopicName = StrBytes::from_string(name.to_owned()).into();
            let Some(topic) = self.view.image.topic(name) else {
                let code = match takhin_protocol::TopicName::parse(name) {
                    Ok(_) => ErrorCode::UnknownTopicOrPartition,
                    Err(_) => ErrorCode::InvalidTopicException,
                };
                self.response.topics.push(refuse(self.cx, wire_name, code));
                continue;
            };
            let end = topic.partitions.len().min(first.saturating_add(self.left));
            self.response.topics.push(self.topic(topic, first, end));
            if end < topic.partitions.len() {
                return self.end_before(name, end);
            }
            self.left -= end.saturating_sub(first);
        }
        self.response
    }

    fn end_before(self, name: &str, partition: usize) -> DescribeTopicPartitionsResponse {
        let cursor = Cursor::default()
            .with_topic_name(StrBytes::from_string(name.to_owned()).into())
            .with_partition_index(i32::try_from(partition).unwrap_or(i32::MAX));
        self.response.with_next_cursor(Some(cursor))
    }

    fn topic(&self, topic: &TopicInfo, first: usize, end: usize) -> DescribeTopicPartitionsResponseTopic {
        let placed = (0..).zip(&topic.partitions).take(end).skip(first);
        let partitions = placed.map(|(index, info)| self.partition(topic, index, &info.replicas));
        DescribeTopicPartitionsResponseTopic::default()
            .with_name(Some(StrBytes::from_string(topic.name.clone()).into()))
            .with_topic_id(topic.id)
            .with_is_internal(takhin_cluster::is_internal(&topic.name))
            .with_partitions(partitions.collect())
            .with_topic_authorized_operations(operations::on_topic(true))
    }

    fn partition(
        &self,
        topic: &TopicInfo,
        index: i32,
        replicas: &[i32],
    ) -> DescribeTopicPartitionsResponsePartition {
        let leadership = self.view.leadership(topic.id, index);
        let code = if leadership.leader < 0 {
            ErrorCode::LeaderNotAvailable
        } else {
            ErrorCode::NoError
        };
        let nodes = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(code.code())
            .with_partition_index(index)
            .with_leader_id(leadership.leader.into())
            .with_leader_epoch(leadership.epoch)
            .with_replica_nodes(nodes(replicas))
            .with_isr_nodes(nodes(&self.view.in_sync(topic.id, index, replicas)))
            .with_offline_replicas(nodes(&self.view.offline(replicas)))
            // Raft elects from a majority; there is no such list beside the ISR.
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    }
}
