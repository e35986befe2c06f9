//! The cluster as handlers ask about it: which partition is meant, who leads it.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use takhin_cluster::Cluster;
use takhin_cluster::Partition;
use takhin_cluster::{Image, TopicInfo};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::StrBytes;
use uuid::Uuid;

use crate::context::RequestContext;

/// One image of the cluster, the same for a whole request.
#[derive(Debug)]
pub(crate) struct View {
    cluster: Arc<Cluster>,
    pub(crate) image: Arc<Image>,
    /// Who was fenced when it was first asked.
    fenced: OnceLock<BTreeSet<i32>>,
}

/// Leadership of one partition as clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// Broker id, or -1.
    pub(crate) leader: i32,
    /// Leader epoch, or -1.
    pub(crate) epoch: i32,
}

impl View {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            image: cluster.image(),
            fenced: OnceLock::new(),
        }
    }

    /// Grows with every change of the metadata.
    pub(crate) fn image_version(&self) -> i64 {
        self.image.end_offset
    }

    /// The topic of this name.
    pub(crate) fn topic(&self, name: &str) -> Result<&Arc<TopicInfo>, ErrorCode> {
        self.image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    /// The topic of this id.
    pub(crate) fn topic_by_id(&self, id: Uuid) -> Result<&Arc<TopicInfo>, ErrorCode> {
        self.image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)
    }

    /// This broker's replica of a partition of `topic`.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION if there is no such partition, NOT_LEADER_OR_FOLLOWER if it is elsewhere or not
    /// open yet.
    pub(crate) fn partition(&self, topic: &TopicInfo, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        let exists = usize::try_from(index).is_ok_and(|index| index < topic.partitions.len());
        if !exists {
            return Err(ErrorCode::UnknownTopicOrPartition);
        }
        self.cluster
            .partition(topic.id, index)
            .ok_or(ErrorCode::NotLeaderOrFollower)
    }

    /// This broker's replica of a partition of the topic called `name`.
    ///
    /// # Errors
    /// As [`Self::partition`].
    pub(crate) fn partition_by_name(&self, name: &str, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        self.partition(self.topic(name)?, index)
    }

    /// The ISR of a partition, as far as this broker knows.
    pub(crate) fn in_sync(&self, topic: Uuid, index: i32, replicas: &[i32]) -> Vec<i32> {
        self.cluster.in_sync_replicas(topic, index, replicas)
    }

    /// Those of `replicas` that nobody can read from or write to: their brokers are fenced, or there are none of these ids.
    pub(crate) fn offline(&self, replicas: &[i32]) -> Vec<i32> {
        let fenced = self.fenced.get_or_init(|| self.cluster.fenced());
        let is_offline = |id: &i32| fenced.contains(id) || !self.image.brokers.contains_key(id);
        replicas.iter().copied().filter(is_offline).collect()
    }

    /// How far those of `replicas` have got whose brokers are there, if this broker leads the partition.
    pub(crate) fn log_end_offsets(&self, partition: &Partition, replicas: &[i32]) -> Vec<(i32, i64)> {
        self.cluster.log_end_offsets(partition.id(), replicas)
    }

    /// Who leads a partition, as far as this broker knows.
    pub(crate) fn leadership(&self, topic: Uuid, index: i32) -> Leadership {
        match self.cluster.leadership(topic, index) {
            Some((leader, epoch)) => Leadership { leader, epoch },
            None => Leadership {
                leader: -1,
                epoch: self
                    .cluster
                    .partition(topic, index)
                    .map_or(-1, |partition| partition.leader_epoch()),
            },
        }
    }
}

/// A broker's address for a reply.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) host: StrBytes,
    pub(crate) port: i32,
    pub(crate) rack: Option<StrBytes>,
}

/// Collects who leads instead, for replies that refuse because we do not lead (KIP-951).
#[derive(Debug)]
pub(crate) struct Hints<'a> {
    cx: &'a RequestContext,
    /// Whether the reply's version has room for them.
    wanted: bool,
    view: Option<View>,
    leaders: BTreeSet<i32>,
}

impl<'a> Hints<'a> {
    pub(crate) fn new(cx: &'a RequestContext, wanted: bool) -> Self {
        Self {
            cx,
            wanted,
            view: None,
            leaders: BTreeSet::new(),
        }
    }

    /// Who leads the partition, if `code` is one that moves the client and if it is known.
    pub(crate) fn leader(&mut self, topic: Uuid, index: i32, code: ErrorCode) -> Option<Leadership> {
        let moves = matches!(
            code,
            ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
        );
        if !self.wanted || !moves {
            return None;
        }
        let view = self.view.get_or_insert_with(|| View::new(self.cx.cluster()));
        let leadership = view.leadership(topic, index);
        if leadership.leader < 0 {
            return None;
        }
        self.leaders.insert(leadership.leader);
        Some(leadership)
    }

    /// The addresses of all leaders named so far.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = Node> + '_ {
        let view = self.view.as_ref();
        self.leaders
            .iter()
            .filter_map(move |id| node(self.cx, &view?.image, *id))
    }
}

/// Where clients of this request's listener reach broker `id`; `None` if it has no endpoint there.
pub(crate) fn node(cx: &RequestContext, image: &Image, id: i32) -> Option<Node> {
    let broker = image.brokers.get(&id)?;
    let endpoint = broker
        .endpoints
        .iter()
        .find(|endpoint| *endpoint.listener == *cx.peer.listener)?;
    Some(Node {
        id,
        host: StrBytes::from_string(endpoint.host.clone()),
        port: i32::from(endpoint.port),
        rack: broker.rack.clone().map(StrBytes::from_string),
    })
}

/// The brokers that clients of this request's listener can reach, by id; not those that are fenced.
pub(crate) fn nodes<'a>(cx: &'a RequestContext, image: &'a Image) -> impl Iterator<Item = Node> + 'a {
    all_nodes(cx, image).filter(|node| !cx.cluster().is_fenced(node.id))
}

/// All brokers that clients of this request's listener can reach or could, by id.
pub(crate) fn all_nodes<'a>(cx: &'a RequestContext, image: &'a Image) -> impl Iterator<Item = Node> + 'a {
    image.brokers.keys().filter_map(|id| node(cx, image, *id))
}
