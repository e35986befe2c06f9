//! AlterPartitionReassignments (key 45), versions 0-1.
//!
//! Begins moving a partition's replicas, or takes that back (KIP-455). Each partition is answered for itself; what can be
//! begun is begun together, and goes on by itself after the answer.
//!
//! - v1: a request may rule out that the number of replicas changes (KIP-860).
//!
//! A move that is taken back is listed until the replicas that it had added are out of the partition's group.
//!
//! Leader needed: none; the request is passed on to the controller.

use std::ops::RangeInclusive;
use std::sync::Arc;

use takhin_cluster::{Image, ReplicaChange, TopicInfo};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;
use takhin_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use takhin_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, StrBytes, TopicName,
};

use super::change::{self, Refused};
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::placement;

pub(crate) struct AlterPartitionReassignments;

impl Api for AlterPartitionReassignments {
    type Request = AlterPartitionReassignmentsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    async fn handle(
        cx: &RequestContext,
        request: AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse {
        let may_resize = cx.version == 0 || request.allow_replication_factor_change;
        let response =
            AlterPartitionReassignmentsResponse::default().with_allow_replication_factor_change(may_resize);
        let count = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        if let Err(error) = placement::check_total(count) {
            return refuse(cx, response, error.into());
        }
        let asked = Asked::of(&cx.cluster().image(), &request.topics, may_resize);
        let (cluster, changes) = (Arc::clone(cx.cluster()), asked.changes);
        let reassigning = async move { cluster.reassign(changes).await };
        match change::make(cx, request.timeout_ms, "reassign partitions", reassigning).await {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                let topics = asked.topics.into_iter().map(|(name, partitions)| {
                    let partitions = partitions.into_iter().map(|(index, refused)| {
                        let refused = refused.or_else(|| outcomes.next()?.err().map(Refused::from));
                        partition(cx, index, refused)
                    });
                    ReassignableTopicResponse::default()
                        .with_name(name)
                        .with_partitions(partitions.collect())
                });
                response.with_responses(topics.collect())
            }
            Err(refused) => refuse(cx, response, refused),
        }
    }
}

/// Index of a partition, and why it cannot be changed.
type Place = (i32, Option<Refused>);

/// What is asked: the changes that can be, and for each partition in order why it is none of them.
struct Asked {
    changes: Vec<ReplicaChange>,
    topics: Vec<(TopicName, Vec<Place>)>,
}

impl Asked {
    fn of(image: &Image, topics: &[ReassignableTopic], may_resize: bool) -> Self {
        let mut changes = Vec::new();
        let topics = topics.iter().map(|asked| {
            let topic = image.topic(&asked.name);
            let partitions = asked.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let exists = |topic: &&Arc<TopicInfo>| {
                    usize::try_from(index).is_ok_and(|index| index < topic.partitions.len())
                };
                let Some(topic) = topic.filter(exists) else {
                    let message = format!("There is no partition {}-{index}.", &**asked.name);
                    return (
                        index,
                        Some(Refused::new(ErrorCode::UnknownTopicOrPartition, message)),
                    );
                };
                let replicas = partition.replicas.as_ref();
                changes.push(ReplicaChange {
                    topic_id: topic.id,
                    index,
                    replicas: replicas.map(|ids| ids.iter().map(|id| id.0).collect()),
                    may_resize,
                });
                (index, None)
            });
            (asked.name.clone(), partitions.collect())
        });
        let topics = topics.collect();
        Self { changes, topics }
    }
}

fn refuse(
    cx: &RequestContext,
    response: AlterPartitionReassignmentsResponse,
    refused: Refused,
) -> AlterPartitionReassignmentsResponse {
    response
        .with_error_code(cx.code(refused.code))
        .with_error_message(refused.text())
}

fn partition(cx: &RequestContext, index: i32, refused: Option<Refused>) -> ReassignablePartitionResponse {
    let response = ReassignablePartitionResponse::default().with_partition_index(index);
    match refused {
        Some(refused) => response
            .with_error_code(cx.code(refused.code))
            .with_error_message(refused.text()),
        None => response.with_error_message(None::<StrBytes>),
    }
}
