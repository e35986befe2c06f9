//! Administration of many topics with one request, each with an outcome of its own.
//!
//! A request goes to any broker, once: whoever works through many resources comes again anyway. The outer error says that
//! nothing is known of any of them, the inner one what the broker says of one.

use std::time::Duration;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use takhin_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use takhin_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use takhin_protocol::messages::delete_topics_request::DeleteTopicState;
use takhin_protocol::messages::metadata_request::MetadataRequestTopic;
use takhin_protocol::messages::metadata_response::MetadataResponseTopic;
use takhin_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, ListPartitionReassignmentsRequest, MetadataRequest, StrBytes, TopicName,
    UnregisterBrokerRequest,
};

use uuid::Uuid;

use crate::client::Client;
use crate::error::ClientError;

/// Time that a broker may take for a request.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a broker says against a part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's error code; 0 is never here.
    pub code: i16,
    /// Kafka's name of it, such as `INVALID_CONFIG`; `UNKNOWN` if this client does not know it.
    pub name: &'static str,
    /// The broker's words, if it had any.
    pub message: Option<String>,
}

impl Refusal {
    /// `Ok` for code 0.
    pub(crate) fn check(code: i16, message: Option<&StrBytes>) -> Result<(), Self> {
        if code == ErrorCode::NoError.code() {
            return Ok(());
        }
        Err(Self {
            code,
            name: ErrorCode::from_code(code).map_or("UNKNOWN", ErrorCode::name),
            message: message.map(|message| message.to_string()),
        })
    }

    /// Whether it is this error.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code == code.code()
    }

    /// Whether the same may succeed later.
    pub fn is_retriable(&self) -> bool {
        ErrorCode::from_code(self.code).is_some_and(ErrorCode::retriable)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// A topic to be created, with everything its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicToCreate {
    /// Its name.
    pub name: String,
    /// Number of partitions; `None` is the broker's default.
    pub partitions: Option<i32>,
    /// Replicas per partition; `None` is the broker's default.
    pub replication_factor: Option<i16>,
    /// Topic settings.
    pub configs: Vec<(String, String)>,
}

/// A topic as Metadata has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id: a UUID, all zero where brokers have none.
    pub id: [u8; 16],
    /// Its partitions, by index.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition as Metadata has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its index.
    pub index: i32,
    /// Id of its leader; `None` if there is none.
    pub leader: Option<i32>,
    /// Ids of the brokers with its replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
}

/// A change of replicas that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OngoingReassignment {
    /// Name of the topic.
    pub topic: String,
    /// Index of the partition.
    pub partition: i32,
    /// All brokers that have or get a replica.
    pub replicas: Vec<i32>,
    /// Those that come.
    pub adding: Vec<i32>,
    /// Those that go.
    pub removing: Vec<i32>,
}

/// What became of each part of a request, by name and in its order.
pub type Outcomes = Vec<(String, Result<(), Refusal>)>;

impl Client {
    /// The topics of these names, or all with `None`. Those that do not exist are missing from the answer.
    ///
    /// # Errors
    ///
    /// When no broker answers, or one refuses to tell of a topic that exists.
    pub async fn describe_topics(
        &self,
        names: Option<&[&str]>,
    ) -> Result<Vec<TopicDescription>, ClientError> {
        let wanted = names.map(|names| {
            let name = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic(name)));
            names.iter().map(name).collect()
        });
        let request = MetadataRequest::default()
            .with_topics(wanted)
            .with_allow_auto_topic_creation(false);
        let response = self.on_any(&request).await?;
        let mut topics = Vec::with_capacity(response.topics.len());
        for found in &response.topics {
            let name = found
                .name
                .as_ref()
                .map(|name| name.0.to_string())
                .unwrap_or_default();
            match ErrorCode::from_code(found.error_code) {
                Some(ErrorCode::UnknownTopicOrPartition) => continue,
                // A topic whose leaders are still to be found exists.
                Some(ErrorCode::LeaderNotAvailable) => {}
                _ => ClientError::check(found.error_code, || format!("describing topic {name}"))?,
            }
            topics.push(description(name, found));
        }
        Ok(topics)
    }

    /// Creates topics.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn create_topics(&self, topics: &[TopicToCreate]) -> Result<Outcomes, ClientError> {
        let creatable = topics.iter().map(|new| {
            let config = |(name, value): &(String, String)| {
                CreatableTopicConfig::default()
                    .with_name(text(name))
                    .with_value(Some(text(value)))
            };
            CreatableTopic::default()
                .with_name(topic(&new.name))
                .with_num_partitions(new.partitions.unwrap_or(-1))
                .with_replication_factor(new.replication_factor.unwrap_or(-1))
                .with_configs(new.configs.iter().map(config).collect())
        });
        let request = CreateTopicsRequest::default()
            .with_topics(creatable.collect())
            .with_timeout_ms(timeout_ms());
        let response = self.on_any(&request).await?;
        let outcome = response.topics.iter().map(|result| {
            let checked = Refusal::check(result.error_code, result.error_message.as_ref());
            (result.name.0.to_string(), checked)
        });
        Ok(outcome.collect())
    }

    /// Deletes topics.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Outcomes, ClientError> {
        let state = |name: &&str| DeleteTopicState::default().with_name(Some(topic(name)));
        let request = DeleteTopicsRequest::default()
            .with_topics(names.iter().map(state).collect())
            .with_topic_names(Vec::new())
            .with_timeout_ms(timeout_ms());
        let response = self.on_any(&request).await?;
        let outcome = response.responses.iter().map(|result| {
            let name = result
                .name
                .as_ref()
                .map(|name| name.0.to_string())
                .unwrap_or_default();
            (
                name,
                Refusal::check(result.error_code, result.error_message.as_ref()),
            )
        });
        names.iter().for_each(|name| self.forget(name));
        Ok(outcome.collect())
    }

    /// Deletes topics by their ids. However late that is done, what was made anew under their names stays.
    ///
    /// # Errors
    ///
    /// When no broker answers, or it has no version that knows ids (Kafka 2.8).
    pub async fn delete_topics_by_id(
        &self,
        ids: &[[u8; 16]],
    ) -> Result<Vec<([u8; 16], Result<(), Refusal>)>, ClientError> {
        let state = |id: &[u8; 16]| {
            let state = DeleteTopicState::default().with_name(None);
            state.with_topic_id(Uuid::from_bytes(*id))
        };
        let request = DeleteTopicsRequest::default()
            .with_topics(ids.iter().map(state).collect())
            .with_topic_names(Vec::new())
            .with_timeout_ms(timeout_ms());
        let response = self.on_any(&request).await?;
        let outcome = response.responses.iter().map(|result| {
            if let Some(name) = &result.name {
                self.forget(name);
            }
            let checked = Refusal::check(result.error_code, result.error_message.as_ref());
            (*result.topic_id.as_bytes(), checked)
        });
        Ok(outcome.collect())
    }

    /// Gives topics this many partitions, those that they have included.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn create_partitions(&self, topics: &[(&str, i32)]) -> Result<Outcomes, ClientError> {
        let grown = topics.iter().map(|(name, count)| {
            CreatePartitionsTopic::default()
                .with_name(topic(name))
                .with_count(*count)
                .with_assignments(None)
        });
        let request = CreatePartitionsRequest::default()
            .with_topics(grown.collect())
            .with_timeout_ms(timeout_ms());
        let response = self.on_any(&request).await?;
        let outcome = response.results.iter().map(|result| {
            let checked = Refusal::check(result.error_code, result.error_message.as_ref());
            (result.name.0.to_string(), checked)
        });
        Ok(outcome.collect())
    }

    /// Moves replicas of one topic: partition and the brokers that are to have it, the preferred leader first. Returns
    /// what the broker says against each partition that it refuses.
    ///
    /// # Errors
    ///
    /// When no broker answers, or the request as a whole is refused.
    pub async fn reassign(
        &self,
        name: &str,
        partitions: &[(i32, Vec<i32>)],
    ) -> Result<Vec<(i32, Refusal)>, ClientError> {
        let moves = partitions.iter().map(|(index, replicas)| {
            ReassignablePartition::default()
                .with_partition_index(*index)
                .with_replicas(Some(replicas.iter().copied().map(BrokerId).collect()))
        });
        let of_topic = ReassignableTopic::default()
            .with_name(topic(name))
            .with_partitions(moves.collect());
        let request = AlterPartitionReassignmentsRequest::default()
            .with_topics(vec![of_topic])
            .with_timeout_ms(timeout_ms());
        let response = self.on_any(&request).await?;
        ClientError::check(response.error_code, || format!("moving replicas of {name}"))?;
        let refused = response.responses.iter().flat_map(|topic| &topic.partitions);
        let refused = refused.filter_map(|partition| {
            let refusal = Refusal::check(partition.error_code, partition.error_message.as_ref()).err()?;
            Some((partition.partition_index, refusal))
        });
        Ok(refused.collect())
    }

    /// Changes of replicas that are under way.
    ///
    /// # Errors
    ///
    /// When no broker answers, or the request is refused.
    pub async fn list_reassignments(&self) -> Result<Vec<OngoingReassignment>, ClientError> {
        let request = ListPartitionReassignmentsRequest::default()
            .with_topics(None)
            .with_timeout_ms(timeout_ms());
        let response = self.on_any(&request).await?;
        ClientError::check(response.error_code, || "listing reassignments".to_owned())?;
        let mut all = Vec::new();
        for topic in &response.topics {
            for partition in &topic.partitions {
                all.push(OngoingReassignment {
                    topic: topic.name.0.to_string(),
                    partition: partition.partition_index,
                    replicas: ids(&partition.replicas),
                    adding: ids(&partition.adding_replicas),
                    removing: ids(&partition.removing_replicas),
                });
            }
        }
        Ok(all)
    }

    /// Forgets a broker that is gone for good.
    ///
    /// # Errors
    ///
    /// [`ClientError::Code`] as Kafka gives it, and when no broker answers.
    pub async fn unregister_broker(&self, broker: i32) -> Result<(), ClientError> {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(broker));
        let response = self.on_any(&request).await?;
        ClientError::check(response.error_code, || format!("unregistering broker {broker}"))
    }
}

fn description(name: String, found: &MetadataResponseTopic) -> TopicDescription {
    let mut partitions: Vec<_> = found
        .partitions
        .iter()
        .map(|partition| PartitionDescription {
            index: partition.partition_index,
            leader: (partition.leader_id.0 >= 0).then_some(partition.leader_id.0),
            replicas: ids(&partition.replica_nodes),
            in_sync: ids(&partition.isr_nodes),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    TopicDescription {
        name,
        id: *found.topic_id.as_bytes(),
        partitions,
    }
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|id| id.0).collect()
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn timeout_ms() -> i32 {
    i32::try_from(TIMEOUT.as_millis()).unwrap_or(i32::MAX)
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
