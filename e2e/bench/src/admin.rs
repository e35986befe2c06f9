//! Topics: create, delete, count. One blocking connection per call; nothing here is measured.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use takhin_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use takhin_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use takhin_protocol::messages::metadata_request::MetadataRequestTopic;
use takhin_protocol::messages::{
    self, AlterPartitionReassignmentsRequest, ApiVersionsRequest, BrokerId, CreateTopicsRequest,
    DeleteTopicsRequest, FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    Request, StrBytes, TopicName,
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// What Metadata says of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    /// The listener of its leader.
    pub(crate) leader: Option<SocketAddr>,
    /// Number of replicas in sync.
    pub(crate) in_sync: usize,
}

/// A connection for requests that are not measured.
#[derive(Debug)]
pub(crate) struct Admin(TcpStream);

impl Admin {
    /// Connects.
    pub(crate) fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self(stream))
    }

    /// The connection, for other requests.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.0
    }

    /// Sends one request and reads its answer.
    fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let client_id = StrBytes::from_static_str("takhin-bench");
        let frame = messages::encode_request(version, 1, Some(&client_id), request)?;
        self.0.write_all(&frame)?;
        let mut prefix = [0; 4];
        self.0.read_exact(&mut prefix)?;
        let len = usize::try_from(i32::from_be_bytes(prefix))?;
        ensure!(len < 64 << 20, "an answer of {len} bytes");
        let mut body = vec![0; len];
        self.0.read_exact(&mut body)?;
        Ok(messages::decode_response::<R>(version, &mut Bytes::from(body))?.1)
    }

    /// Whether the broker answers and knows itself as a member of its cluster.
    pub(crate) fn is_ready(&mut self) -> Result<bool> {
        self.versions()?;
        Ok(!self
            .call(4, &MetadataRequest::default().with_topics(Some(Vec::new())))?
            .brokers
            .is_empty())
    }

    /// Asks for the APIs' versions, as a client does first of all.
    pub(crate) fn versions(&mut self) -> Result<()> {
        let versions = self.call(0, &ApiVersionsRequest::default())?;
        check(versions.error_code).context("asking for versions")
    }

    /// Creates a topic with one replica and waits until each partition has a leader that serves.
    pub(crate) fn create(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<()> {
        self.create_only(topic, partitions, 1, configs)?;
        self.wait_for_leaders(topic, partitions)
    }

    /// Creates a topic with so many replicas.
    pub(crate) fn create_only(
        &mut self,
        topic: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let creatable = CreatableTopic::default()
            .with_num_partitions(partitions)
            .with_replication_factor(replicas);
        self.create_topic(topic, creatable, configs)
    }

    /// Creates a topic all of whose partitions are on these brokers.
    pub(crate) fn create_on(
        &mut self,
        topic: &str,
        partitions: i32,
        brokers: &[i32],
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let assignments = (0..partitions).map(|partition| {
            CreatableReplicaAssignment::default()
                .with_partition_index(partition)
                .with_broker_ids(ids(brokers))
        });
        let creatable = CreatableTopic::default()
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(assignments.collect());
        self.create_topic(topic, creatable, configs)
    }

    fn create_topic(
        &mut self,
        topic: &str,
        creatable: CreatableTopic,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let configs = configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
        });
        let creatable = creatable
            .with_name(TopicName(text(topic)))
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![creatable])
            .with_timeout_ms(30_000);
        for result in self.call(4, &request)?.topics {
            check(result.error_code).with_context(|| format!("creating {topic}"))?;
        }
        Ok(())
    }

    /// Moves all partitions of a topic to these brokers; returns as soon as the cluster has agreed to do so.
    pub(crate) fn reassign(&mut self, topic: &str, partitions: i32, brokers: &[i32]) -> Result<()> {
        let moved = (0..partitions).map(|partition| {
            ReassignablePartition::default()
                .with_partition_index(partition)
                .with_replicas(Some(ids(brokers)))
        });
        let topics = vec![
            ReassignableTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(moved.collect()),
        ];
        let request = AlterPartitionReassignmentsRequest::default()
            .with_topics(topics)
            .with_timeout_ms(30_000);
        let answer = self.call(0, &request)?;
        check(answer.error_code).with_context(|| format!("moving {topic}"))?;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            check(partition.error_code).with_context(|| format!("moving {topic}"))?;
        }
        Ok(())
    }

    /// Where each partition of a topic is led, and how many replicas are in sync; by partition.
    pub(crate) fn placed(&mut self, topic: &str) -> Result<BTreeMap<i32, Placed>> {
        let response = self.topic_metadata(topic)?;
        let addresses: BTreeMap<_, _> = response
            .brokers
            .iter()
            .filter_map(|broker| {
                let port = u16::try_from(broker.port).ok()?;
                Some((broker.node_id, SocketAddr::new(broker.host.parse().ok()?, port)))
            })
            .collect();
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let placed = partitions.map(|partition| {
            let placed = Placed {
                leader: addresses.get(&partition.leader_id).copied(),
                in_sync: partition.isr_nodes.len(),
            };
            (partition.partition_index, placed)
        });
        Ok(placed.collect())
    }

    /// Waits until Metadata names a leader for each partition.
    pub(crate) fn wait_for_metadata(&mut self, topic: &str, partitions: i32) -> Result<()> {
        let give_up = Instant::now() + TIMEOUT;
        while self.leaders(topic)? < usize::try_from(partitions)? {
            ensure!(Instant::now() < give_up, "{topic} has no leaders");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits until each partition has a leader that knows it: Kafka's metadata is a little ahead of its log manager.
    pub(crate) fn wait_for_leaders(&mut self, topic: &str, partitions: i32) -> Result<()> {
        self.wait_for_metadata(topic, partitions)?;
        let give_up = Instant::now() + TIMEOUT;
        while self.records(topic, partitions).is_err() {
            ensure!(Instant::now() < give_up, "{topic} is not served");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn topic_metadata(&mut self, topic: &str) -> Result<MetadataResponse> {
        let wanted = MetadataRequestTopic::default().with_name(Some(TopicName(text(topic))));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_allow_auto_topic_creation(false);
        self.call(4, &request)
    }

    fn leaders(&mut self, topic: &str) -> Result<usize> {
        let response = self.topic_metadata(topic)?;
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        Ok(partitions
            .filter(|p| p.error_code == 0 && p.leader_id >= BrokerId(0))
            .count())
    }

    /// Waits until `group` has a coordinator; the first question makes the topic of offsets.
    pub(crate) fn wait_for_coordinator(&mut self, group: &str) -> Result<()> {
        let request = FindCoordinatorRequest::default().with_key(text(group));
        let give_up = Instant::now() + TIMEOUT;
        loop {
            let code = self.call(3, &request)?.error_code;
            if code != ErrorCode::CoordinatorNotAvailable.code() {
                return check(code).context("finding a coordinator");
            }
            ensure!(Instant::now() < give_up, "{group} has no coordinator");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Deletes a topic.
    pub(crate) fn delete(&mut self, topic: &str) -> Result<()> {
        let name = TopicName(text(topic));
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name])
            .with_timeout_ms(30_000);
        for result in self.call(3, &request)?.responses {
            check(result.error_code).with_context(|| format!("deleting {topic}"))?;
        }
        Ok(())
    }

    /// Number of records in a topic that was never cut: the sum of its partitions' ends.
    pub(crate) fn records(&mut self, topic: &str, partitions: i32) -> Result<u64> {
        self.records_of(topic, 0..partitions)
    }

    /// The same for partitions that this broker leads.
    pub(crate) fn records_of(&mut self, topic: &str, led: impl IntoIterator<Item = i32>) -> Result<u64> {
        let wanted = led.into_iter().map(|partition| {
            ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_timestamp(-1)
                .with_current_leader_epoch(-1)
        });
        let topics = ListOffsetsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(wanted.collect());
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topics]);
        let mut sum = 0;
        for partition in self
            .call(4, &request)?
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
        {
            check(partition.error_code).context("listing offsets")?;
            sum += u64::try_from(partition.offset)?;
        }
        Ok(sum)
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn ids(brokers: &[i32]) -> Vec<BrokerId> {
    brokers.iter().copied().map(BrokerId).collect()
}

fn check(code: i16) -> Result<()> {
    match ErrorCode::from_code(code) {
        Some(code) if code.is_ok() => Ok(()),
        Some(code) => bail!("{}", code.name()),
        None => bail!("error {code}"),
    }
}
