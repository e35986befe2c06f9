//! DescribeQuorum (key 55), versions 0-2.
//!
//! Shows the controller's quorum: the group that keeps the cluster's metadata, under Kafka's name for it (KIP-595).
//!
//! - v1: fetch times of the voters (KIP-836). v2: messages, directory ids, endpoints (KIP-853).
//!
//! Leader needed: none, each broker asks the controller.

use std::ops::RangeInclusive;

use takhin_cluster::{Quorum, QuorumReplica};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use takhin_protocol::messages::{
    DescribeQuorumRequest, DescribeQuorumResponse, StrBytes, describe_quorum_request,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::replicas;

const TOPIC: &str = "__cluster_metadata";

pub(crate) struct DescribeQuorum;

impl Api for DescribeQuorum {
    type Request = DescribeQuorumRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;

    async fn handle(cx: &RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
        if !asks_for_metadata(&request.topics) {
            return refuse_each(cx, request.topics);
        }
        let Some(quorum) = cx.cluster().quorum().await else {
            return DescribeQuorumResponse::default()
                .with_error_code(cx.code(ErrorCode::RequestTimedOut))
                .with_error_message(message(cx.version, "no controller answers"));
        };
        let partition = partition(cx, &quorum);
        let topic = TopicData::default()
            .with_topic_name(StrBytes::from_static_str(TOPIC).into())
            .with_partitions(vec![partition]);
        DescribeQuorumResponse::default()
            .with_topics(vec![topic])
            .with_nodes(nodes(cx, &quorum))
    }
}

/// Whether the request names the one partition that has a quorum, and nothing else.
fn asks_for_metadata(topics: &[describe_quorum_request::TopicData]) -> bool {
    let [topic] = topics else { return false };
    let [partition] = &topic.partitions[..] else {
        return false;
    };
    &**topic.topic_name == TOPIC && partition.partition_index == 0
}

fn refuse_each(
    cx: &RequestContext,
    topics: Vec<describe_quorum_request::TopicData>,
) -> DescribeQuorumResponse {
    let code = ErrorCode::UnknownTopicOrPartition;
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(cx.code(code))
                .with_error_message(message(cx.version, "only __cluster_metadata-0 has a quorum"))
        });
        TopicData::default()
            .with_partitions(partitions.collect())
            .with_topic_name(topic.topic_name)
    });
    DescribeQuorumResponse::default().with_topics(topics.collect())
}

fn has_directories(version: i16) -> bool {
    version >= 2
}

fn message(version: i16, text: &'static str) -> Option<StrBytes> {
    has_directories(version).then(|| StrBytes::from_static_str(text))
}

fn partition(cx: &RequestContext, quorum: &Quorum) -> PartitionData {
    let states = |replicas: &[QuorumReplica]| replicas.iter().map(|r| state(cx.version, r)).collect();
    PartitionData::default()
        .with_leader_id(quorum.leader.into())
        .with_leader_epoch(quorum.leader_epoch)
        .with_high_watermark(quorum.high_watermark)
        .with_current_voters(states(&quorum.voters))
        .with_observers(states(&quorum.observers))
}

fn state(version: i16, replica: &QuorumReplica) -> ReplicaState {
    let state = ReplicaState::default()
        .with_replica_id(replica.id.into())
        .with_log_end_offset(replica.log_end_offset);
    let state = match version {
        0 => state,
        _ => state
            .with_last_fetch_timestamp(replica.last_fetch_ms)
            .with_last_caught_up_timestamp(replica.last_caught_up_ms),
    };
    if has_directories(version) {
        state.with_replica_directory_id(replica.directory)
    } else {
        state
    }
}

fn nodes(cx: &RequestContext, quorum: &Quorum) -> Vec<Node> {
    if !has_directories(cx.version) {
        return Vec::new();
    }
    let image = cx.cluster().image();
    let voters = quorum.voters.iter();
    let known = voters.filter_map(|voter| replicas::node(cx, &image, voter.id));
    let nodes = known.map(|node| {
        let listener = Listener::default()
            // The Java client takes names in capitals only, as listener names are in Kafka.
            .with_name(StrBytes::from_string(cx.peer.listener.to_uppercase()))
            .with_host(node.host)
            .with_port(u16::try_from(node.port).unwrap_or(u16::MAX));
        Node::default()
            .with_node_id(node.id.into())
            .with_listeners(vec![listener])
    });
    nodes.collect()
}
