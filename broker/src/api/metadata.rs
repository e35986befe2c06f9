//! Metadata (key 3), versions 0-13.
//!
//! Names the brokers and, for the topics asked for, the leader and replicas of every partition.
//!
//! - v1: null asks for all topics, an empty list for none (in v0 the empty list asks for all). v4: the client says
//!   whether topics may be created. v5: offline replicas. v7: leader epochs. v8: authorized operations (KIP-430).
//! - v9: flexible encoding. v10: topic ids in answers. v12: topics asked for by id. v13: a top-level error.
//!
//! A client that asks for a topic by name or id while a leader of it is being elected waits half a second at most for the
//! next one (`takhin_cluster`'s `cluster/settling.rs`); who asks for all topics does not.
//!
//! A topic that does not exist is created in the background if both broker and request allow it; this request
//! answers LEADER_NOT_AVAILABLE, and the client asks again.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use takhin_cluster::{Image, TopicInfo};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::metadata_request::MetadataRequestTopic;
use takhin_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use takhin_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, StrBytes, TopicName};
use uuid::Uuid;

use super::operations;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::replicas::{self, Node, View};

pub(crate) struct Metadata;

impl Api for Metadata {
    type Request = MetadataRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=13;

    async fn handle(cx: &RequestContext, request: MetadataRequest) -> MetadataResponse {
        let asked = request
            .topics
            .filter(|topics| !(topics.is_empty() && empty_means_all(cx.version)));
        if let Some(topics) = &asked {
            let ids = ids_of(&cx.cluster().image(), topics);
            cx.cluster().leaders_settle(&ids).await;
        }
        let view = View::new(cx.cluster());
        let describe = Describe {
            cx,
            view: &view,
            may_create: request.allow_auto_topic_creation && cx.settings().node.kafka.auto_create_topics,
            with_operations: request.include_topic_authorized_operations,
        };
        let topics = match asked {
            Some(topics) => once_each(topics)
                .into_iter()
                .map(|topic| describe.asked(topic))
                .collect(),
            None => view
                .image
                .topics
                .values()
                .map(|topic| describe.topic(topic))
                .collect(),
        };
        MetadataResponse::default()
            .with_brokers(replicas::nodes(cx, &view.image).map(broker).collect())
            .with_cluster_id(Some(StrBytes::from_string(view.image.cluster_id.clone())))
            .with_controller_id(cx.cluster().controller_id().into())
            .with_topics(topics)
            .with_cluster_authorized_operations(operations::on_cluster(
                request.include_cluster_authorized_operations,
            ))
    }
}

/// Leaves out repetitions, as Kafka does: a small request must not grow into an answer without bound.
fn once_each(mut topics: Vec<MetadataRequestTopic>) -> Vec<MetadataRequestTopic> {
    if topics.len() > 1 {
        let mut seen = BTreeSet::new();
        topics.retain(|topic| seen.insert((topic.topic_id, topic.name.clone())));
    }
    topics
}

/// Those of the topics that there are.
fn ids_of(image: &Image, topics: &[MetadataRequestTopic]) -> Vec<Uuid> {
    let id = |topic: &MetadataRequestTopic| match &topic.name {
        Some(name) if topic.topic_id.is_nil() => image.topic(name).map(|topic| topic.id),
        _ => Some(topic.topic_id),
    };
    topics.iter().filter_map(id).collect()
}

fn empty_means_all(version: i16) -> bool {
    version == 0
}

/// Answers of older versions cannot have a null name (KIP-516).
fn may_omit_names(version: i16) -> bool {
    version >= 12
}

fn broker(node: Node) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(node.id.into())
        .with_host(node.host)
        .with_port(node.port)
        .with_rack(node.rack)
}

struct Describe<'a> {
    cx: &'a RequestContext,
    view: &'a View,
    may_create: bool,
    with_operations: bool,
}

impl Describe<'_> {
    fn asked(&self, asked: MetadataRequestTopic) -> MetadataResponseTopic {
        if !asked.topic_id.is_nil() {
            return self.asked_by_id(asked.topic_id);
        }
        let Some(name) = asked.name else {
            return self.refuse(Some(TopicName::default()), Uuid::nil(), ErrorCode::InvalidRequest);
        };
        match self.view.image.topic(&name) {
            Some(topic) => self.topic(topic),
            None => {
                let code = self.unknown(&name);
                self.refuse(Some(name), Uuid::nil(), code)
            }
        }
    }

    fn asked_by_id(&self, id: Uuid) -> MetadataResponseTopic {
        if !may_omit_names(self.cx.version) {
            return self.refuse(Some(TopicName::default()), id, ErrorCode::UnsupportedVersion);
        }
        match self.view.topic_by_id(id) {
            Ok(topic) => self.topic(topic),
            Err(code) => self.refuse(None, id, code),
        }
    }

    /// The code for a name that no topic has; the topic may be on its way after this.
    fn unknown(&self, name: &TopicName) -> ErrorCode {
        let Ok(name) = takhin_protocol::TopicName::parse(name) else {
            return ErrorCode::InvalidTopicException;
        };
        if !self.may_create {
            return ErrorCode::UnknownTopicOrPartition;
        }
        self.cx
            .broker()
            .auto_create
            .request(self.cx.broker(), &self.view.image, &name)
    }

    fn refuse(&self, name: Option<TopicName>, id: Uuid, code: ErrorCode) -> MetadataResponseTopic {
        MetadataResponseTopic::default()
            .with_error_code(self.cx.code(code))
            .with_name(name)
            .with_topic_id(id)
    }

    fn topic(&self, topic: &TopicInfo) -> MetadataResponseTopic {
        let partitions = (0..)
            .zip(&topic.partitions)
            .map(|(index, info)| self.partition(topic.id, index, &info.replicas));
        MetadataResponseTopic::default()
            .with_name(Some(StrBytes::from_string(topic.name.clone()).into()))
            .with_topic_id(topic.id)
            .with_is_internal(takhin_cluster::is_internal(&topic.name))
            .with_partitions(partitions.collect())
            .with_topic_authorized_operations(operations::on_topic(self.with_operations))
    }

    fn partition(&self, topic: Uuid, index: i32, replicas: &[i32]) -> MetadataResponsePartition {
        let leadership = self.view.leadership(topic, index);
        let code = if leadership.leader < 0 {
            ErrorCode::LeaderNotAvailable
        } else {
            ErrorCode::NoError
        };
        let in_sync = self.view.in_sync(topic, index, replicas);
        let nodes = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
        MetadataResponsePartition::default()
            .with_error_code(code.code())
            .with_partition_index(index)
            .with_leader_id(leadership.leader.into())
            .with_leader_epoch(leadership.epoch)
            .with_isr_nodes(nodes(&in_sync))
            .with_replica_nodes(nodes(replicas))
            .with_offline_replicas(nodes(&self.view.offline(replicas)))
    }
}
