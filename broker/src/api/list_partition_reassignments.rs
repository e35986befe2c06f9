//! ListPartitionReassignments (key 46), version 0.
//!
//! Lists the replicas that are being moved (KIP-455). What is asked of unknown topics and of partitions that stay is left
//! out, as in Kafka.
//!
//! Leader needed: none; every broker knows.

use std::ops::RangeInclusive;

use takhin_cluster::{PartitionInfo, TopicInfo};
use takhin_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use takhin_protocol::messages::{
    BrokerId, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, StrBytes,
};

use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct ListPartitionReassignments;

impl Api for ListPartitionReassignments {
    type Request = ListPartitionReassignmentsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;

    async fn handle(
        cx: &RequestContext,
        request: ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        let image = cx.cluster().image();
        let topics = match &request.topics {
            Some(named) => named
                .iter()
                .filter_map(|named| moving(image.topic(&named.name)?, Some(&named.partition_indexes)))
                .collect(),
            None => image
                .topics
                .values()
                .filter_map(|topic| moving(topic, None))
                .collect(),
        };
        ListPartitionReassignmentsResponse::default().with_topics(topics)
    }
}

/// The topic's partitions that are being moved, of all or of those named; `None` if there is none.
fn moving(topic: &TopicInfo, named: Option<&[i32]>) -> Option<OngoingTopicReassignment> {
    let is_named = |index: &i32| named.is_none_or(|named| named.contains(index));
    let partitions: Vec<_> = (0..)
        .zip(&topic.partitions)
        .filter(|(index, _)| is_named(index))
        .filter_map(|(index, placement)| ongoing(index, placement))
        .collect();
    let name = StrBytes::from_string(topic.name.clone()).into();
    (!partitions.is_empty()).then(|| {
        OngoingTopicReassignment::default()
            .with_name(name)
            .with_partitions(partitions)
    })
}

fn ongoing(index: i32, placement: &PartitionInfo) -> Option<OngoingPartitionReassignment> {
    let moving = placement.reassignment.as_ref()?;
    let ids = |ids: Vec<i32>| ids.into_iter().map(BrokerId).collect::<Vec<_>>();
    let ongoing = OngoingPartitionReassignment::default()
        .with_partition_index(index)
        .with_replicas(ids(placement.replicas.clone()))
        .with_adding_replicas(ids(moving.adding()))
        .with_removing_replicas(ids(moving.removing(&placement.replicas)));
    Some(ongoing)
}
