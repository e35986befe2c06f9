//! The image: everything the cluster agrees on, at one version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use takhin_config::live::{Dynamic, Settings, Values};
use takhin_config::topic::TopicConfig;
use uuid::Uuid;

use super::record::MetadataRecord;

/// Where clients reach a broker on one listener.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Endpoint {
    /// Listener name.
    pub listener: String,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
}

/// A registered broker.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BrokerInfo {
    /// Broker id.
    pub id: i32,
    /// Rack, if configured.
    pub rack: Option<String>,
    /// One endpoint per listener.
    pub endpoints: Vec<Endpoint>,
    /// Where other brokers reach it, `host:port`; empty in records of a release that knew no other brokers.
    #[serde(default)]
    pub rpc: String,
    /// The data directory that it votes with; a broker with another one is another voter. Nil in records of a release
    /// that did not write it.
    #[serde(default)]
    pub directory: Uuid,
}

/// Placement of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Broker ids of the replicas, preferred leader first; of those that come and those that go, too.
    pub replicas: Vec<i32>,
    /// The replicas that the partition was created with, and the directories that they had then: who may found its
    /// replication group. Empty once its replicas have been changed, since then it exists.
    pub founders: BTreeMap<i32, Uuid>,
    /// What each replica is in the group: its directory if it is a founder, else a number drawn when it was added.
    pub voters: BTreeMap<i32, Uuid>,
    /// Where the replicas are being moved, if they are.
    pub reassignment: Option<Reassignment>,
    /// Whether the cluster moves them by itself.
    pub is_automatic: bool,
    /// [`Image::version`] when somebody asked for these replicas last.
    pub placed: u64,
}

impl PartitionInfo {
    /// Replicas that there are to be while they are moved, and otherwise: as many as there were, or will be if that is less.
    pub fn replication_factor(&self) -> usize {
        match &self.reassignment {
            Some(moving) => moving.target.len().min(moving.original.len()),
            None => self.replicas.len(),
        }
    }
}

/// A change of a partition's replicas that is under way (KIP-455).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reassignment {
    /// Drawn when it was asked for: tells it from another one to the same replicas.
    pub id: Uuid,
    /// The replicas that there are to be, preferred leader first.
    pub target: Vec<i32>,
    /// The replicas to go back to if it is cancelled.
    pub original: Vec<i32>,
}

impl Reassignment {
    /// Replicas that were not there before.
    pub fn adding(&self) -> Vec<i32> {
        let is_new = |id: &&i32| !self.original.contains(id);
        self.target.iter().filter(is_new).copied().collect()
    }

    /// Those of the partition's `replicas` that go.
    pub fn removing(&self, replicas: &[i32]) -> Vec<i32> {
        let goes = |id: &&i32| !self.target.contains(id);
        replicas.iter().filter(goes).copied().collect()
    }
}

/// A topic: its identity, configuration and partitions.
#[derive(Debug, Clone)]
pub struct TopicInfo {
    /// Name, unique among living topics.
    pub name: String,
    /// Identity; a re-created topic gets a new one (KIP-516).
    pub id: Uuid,
    /// Partitions by index.
    pub partitions: Vec<PartitionInfo>,
    /// Configuration as the user set it.
    pub overrides: BTreeMap<String, String>,
    /// Effective configuration.
    pub config: Arc<TopicConfig>,
}

/// Topics that only brokers write.
const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Replicas of internal topics, where there are as many brokers.
pub const INTERNAL_REPLICAS: usize = 3;

/// Whether a topic is one that clients may read but not write, and that is always flushed.
pub fn is_internal(topic: &str) -> bool {
    INTERNAL_TOPICS.contains(&topic)
}

/// Everything the cluster agrees on, at one version.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Number of metadata records replayed.
    pub version: u64,
    /// Offset in the metadata log after the last record replayed.
    pub end_offset: i64,
    /// Cluster id (22 characters, as Kafka's).
    pub cluster_id: String,
    /// Registered brokers by id.
    pub brokers: BTreeMap<i32, BrokerInfo>,
    /// Brokers that are to lead nothing, until somebody says otherwise.
    pub draining: BTreeSet<i32>,
    /// Brokers that are to lose all their replicas, until somebody says otherwise or they are unregistered.
    pub decommissioning: BTreeSet<i32>,
    /// The [`Self::version`] at which brokers had last come or were to go, until replicas are even again. What was placed
    /// later is not moved for it.
    pub rebalance_due: Option<u64>,
    /// Living topics by name.
    pub topics: BTreeMap<String, Arc<TopicInfo>>,
    /// Names of living topics by id.
    pub topic_names: BTreeMap<Uuid, String>,
    /// Partitions whose replicas are being moved: topic id and index.
    pub reassigning: BTreeSet<(Uuid, i32)>,
    /// First producer id that no broker has been given yet.
    pub next_producer_id: i64,
    /// What brokers were told while they ran; under no id what all of them were told.
    pub broker_configs: BTreeMap<Option<i32>, Values>,
    /// What was set for single consumer groups, by group id. None is empty.
    pub group_configs: Arc<BTreeMap<String, Values>>,
    /// The settings in force on this broker.
    pub settings: Arc<Settings>,
}

/// What an image starts from: this broker, and its settings before it is told any while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) broker: i32,
    pub(crate) settings: Arc<Settings>,
}

impl Image {
    /// The living topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicInfo>> {
        self.topics.get(name)
    }

    /// The living topic of this id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicInfo>> {
        self.topics.get(self.topic_names.get(&id)?)
    }

    /// Where a partition of a living topic is.
    pub fn partition(&self, topic_id: Uuid, index: i32) -> Option<&PartitionInfo> {
        let topic = self.topic_by_id(topic_id)?;
        topic.partitions.get(usize::try_from(index).ok()?)
    }

    /// Whether a broker is to lead nothing.
    pub fn is_to_lead_nothing(&self, broker: i32) -> bool {
        self.draining.contains(&broker) || self.decommissioning.contains(&broker)
    }

    /// Registered brokers that are to stay.
    pub fn staying(&self) -> impl Iterator<Item = i32> {
        let ids = self.brokers.keys().copied();
        ids.filter(|id| !self.decommissioning.contains(id))
    }

    /// Replicas that an internal topic is to have.
    pub fn internal_replicas(&self) -> usize {
        self.staying().count().clamp(1, INTERNAL_REPLICAS)
    }

    /// What broker `id` was told while it ran.
    pub fn dynamic(&self, id: i32) -> Dynamic<'_> {
        let values = |broker| self.broker_configs.get(&broker).unwrap_or(Dynamic::NONE.all);
        Dynamic {
            own: values(Some(id)),
            all: values(None),
        }
    }

    /// The image before the first record.
    pub(crate) fn first(origin: &Origin) -> Self {
        Self {
            settings: Arc::clone(&origin.settings),
            ..Self::default()
        }
    }

    /// Applies one committed record. Records were validated when they were proposed; one that does not fit
    /// (a topic that is gone) changes nothing, so that replay is total.
    pub(crate) fn replay(&mut self, record: &MetadataRecord, origin: &Origin) {
        self.version += 1;
        match record {
            MetadataRecord::Cluster { cluster_id } => self.cluster_id.clone_from(cluster_id),
            MetadataRecord::RegisterBroker { .. }
            | MetadataRecord::DrainBroker { .. }
            | MetadataRecord::DecommissionBroker { .. }
            | MetadataRecord::UnregisterBroker { .. }
            | MetadataRecord::Rebalanced {} => self.replay_broker(record),
            MetadataRecord::BrokerConfigs { broker, values } => {
                self.broker_configs.insert(*broker, values.clone());
                let settings = Arc::new(origin.settings.with(self.dynamic(origin.broker)));
                for topic in self.topics.values_mut() {
                    Arc::make_mut(topic).configure(&settings.topic_defaults);
                }
                self.settings = settings;
            }
            MetadataRecord::GroupConfigs { group, values } => {
                let groups = Arc::make_mut(&mut self.group_configs);
                if values.is_empty() {
                    groups.remove(group);
                } else {
                    groups.insert(group.clone(), values.clone());
                }
            }
            MetadataRecord::ProducerIds { next } => self.next_producer_id = self.next_producer_id.max(*next),
            MetadataRecord::CreateTopic { .. }
            | MetadataRecord::CreatePartitions { .. }
            | MetadataRecord::TopicConfigs { .. }
            | MetadataRecord::DeleteTopic { .. }
            | MetadataRecord::ReassignPartition { .. } => self.replay_topic(record),
        }
    }

    /// The same for records of brokers.
    fn replay_broker(&mut self, record: &MetadataRecord) {
        let set = |brokers: &mut BTreeSet<i32>, id: i32, is_in: bool| match is_in {
            true => brokers.insert(id),
            false => brokers.remove(&id),
        };
        match record {
            MetadataRecord::RegisterBroker { broker } => {
                let is_new = self.brokers.insert(broker.id, broker.clone()).is_none();
                if is_new && !self.topics.is_empty() {
                    self.rebalance_due = Some(self.version);
                }
            }
            MetadataRecord::DrainBroker { broker, draining } => {
                set(&mut self.draining, *broker, *draining);
            }
            MetadataRecord::DecommissionBroker {
                broker,
                decommissioning,
            } => {
                let is_news = set(&mut self.decommissioning, *broker, *decommissioning);
                if is_news {
                    self.rebalance_due = Some(self.version);
                }
            }
            MetadataRecord::UnregisterBroker { broker } => {
                self.brokers.remove(broker);
                self.draining.remove(broker);
                self.decommissioning.remove(broker);
            }
            MetadataRecord::Rebalanced {} => self.rebalance_due = None,
            _ => {}
        }
    }

    /// The same for records of topics and their partitions.
    fn replay_topic(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::CreateTopic {
                name,
                id,
                partitions,
                overrides,
            } => {
                let width = partitions.first().map_or(0, Vec::len);
                if is_internal(name) && width < self.internal_replicas() {
                    // Planned before the last broker came.
                    self.rebalance_due = Some(self.version);
                }
                let topic = TopicInfo {
                    name: name.clone(),
                    id: *id,
                    partitions: placed(partitions, self).collect(),
                    overrides: overrides.clone(),
                    config: Arc::new(effective(&self.settings.topic_defaults, overrides)),
                };
                self.topic_names.insert(*id, name.clone());
                self.topics.insert(name.clone(), Arc::new(topic));
            }
            MetadataRecord::CreatePartitions { id, partitions } => {
                let placed: Vec<_> = placed(partitions, self).collect();
                if let Some(topic) = self.topic_mut(*id) {
                    topic.partitions.extend(placed);
                }
            }
            MetadataRecord::TopicConfigs { id, overrides } => {
                let settings = Arc::clone(&self.settings);
                if let Some(topic) = self.topic_mut(*id) {
                    topic.overrides.clone_from(overrides);
                    topic.configure(&settings.topic_defaults);
                }
            }
            MetadataRecord::DeleteTopic { id } => {
                if let Some(name) = self.topic_names.remove(id) {
                    self.topics.remove(&name);
                    self.reassigning.retain(|(topic, _)| topic != id);
                }
            }
            MetadataRecord::ReassignPartition {
                id,
                index,
                replicas,
                added,
                reassignment,
                automatic,
            } => {
                let version = self.version;
                let placement = self.topic_mut(*id).zip(usize::try_from(*index).ok());
                if let Some(placement) = placement.and_then(|(topic, i)| topic.partitions.get_mut(i)) {
                    placement.ask(reassignment.as_ref(), *automatic, version);
                    placement.reassign(replicas, added, reassignment.as_ref());
                    match reassignment {
                        Some(_) => self.reassigning.insert((*id, *index)),
                        None => self.reassigning.remove(&(*id, *index)),
                    };
                }
            }
            _ => {}
        }
    }

    /// A living topic, to be changed; copied if somebody still reads it.
    fn topic_mut(&mut self, id: Uuid) -> Option<&mut TopicInfo> {
        self.topics.get_mut(self.topic_names.get(&id)?).map(Arc::make_mut)
    }
}

impl TopicInfo {
    /// Works out the effective configuration. One that stays as it is stays the same value, too, so that nobody who
    /// follows it has work to do.
    fn configure(&mut self, defaults: &TopicConfig) {
        let config = effective(defaults, &self.overrides);
        if config != *self.config {
            self.config = Arc::new(config);
        }
    }
}

impl PartitionInfo {
    /// Takes down who asks for a change, before it is made.
    fn ask(&mut self, reassignment: Option<&Reassignment>, automatic: bool, version: u64) {
        // The end of a change is asked for by nobody.
        let is_end = self.reassignment.is_some() && reassignment.is_none();
        if !automatic && !is_end {
            self.placed = version;
        }
        self.is_automatic = automatic && reassignment.is_some();
    }

    fn reassign(&mut self, replicas: &[i32], added: &[(i32, Uuid)], reassignment: Option<&Reassignment>) {
        self.replicas = replicas.to_vec();
        self.voters.extend(added.iter().copied());
        self.voters.retain(|id, _| replicas.contains(id));
        self.reassignment = reassignment.cloned();
        if self.reassignment.is_none() && self.voters != self.founders {
            self.founders.clear();
        }
    }
}

fn effective(defaults: &TopicConfig, overrides: &Values) -> TopicConfig {
    defaults
        .with_overrides(overrides)
        .unwrap_or_else(|_| defaults.clone())
}

/// New partitions with these replicas.
fn placed(partitions: &[Vec<i32>], image: &Image) -> impl Iterator<Item = PartitionInfo> {
    let directory = |id: &i32| image.brokers.get(id).map(|broker| (*id, broker.directory));
    partitions.iter().map(move |replicas| {
        let founders: BTreeMap<i32, Uuid> = replicas.iter().filter_map(directory).collect();
        PartitionInfo {
            replicas: replicas.clone(),
            voters: founders.clone(),
            founders,
            placed: image.version,
            ..PartitionInfo::default()
        }
    })
}
