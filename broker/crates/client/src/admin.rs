//! Topics and offsets.

use std::time::Duration;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use takhin_protocol::messages::delete_topics_request::DeleteTopicState;
use takhin_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use takhin_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, ListOffsetsRequest, StrBytes, TopicName,
};

use crate::client::Client;
use crate::error::ClientError;

/// Time that a broker may take to create or delete a topic.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A topic to be created.
#[derive(Debug, Clone, Default)]
pub struct NewTopic<'a> {
    /// Its name.
    pub name: &'a str,
    /// Number of partitions; 0 is the broker's default.
    pub partitions: i32,
    /// Replicas per partition; 0 is the broker's default.
    pub replication_factor: i16,
    /// Topic settings.
    pub configs: &'a [(&'a str, &'a str)],
}

/// An offset by what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The log start offset.
    Earliest,
    /// The high watermark: the offset that the next record to be consumed will have.
    Latest,
    /// That of the first record with this timestamp, in milliseconds, or a later one.
    At(i64),
}

impl Client {
    /// Creates a topic. Any broker will do; its leaders may take a moment longer.
    ///
    /// After an attempt whose outcome is unknown, TOPIC_ALREADY_EXISTS counts as success.
    ///
    /// # Errors
    ///
    /// [`ClientError::Code`] as Kafka gives it, and what [`Client::on_any`] may say.
    pub async fn create_topic(&self, topic: &NewTopic<'_>) -> Result<(), ClientError> {
        let configs = topic.configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
        });
        let creatable = CreatableTopic::default()
            .with_name(TopicName(text(topic.name)))
            .with_num_partitions(if topic.partitions == 0 {
                -1
            } else {
                topic.partitions
            })
            .with_replication_factor(if topic.replication_factor == 0 {
                -1
            } else {
                topic.replication_factor
            })
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![creatable])
            .with_timeout_ms(timeout_ms());
        let what = || format!("creating topic {}", topic.name);
        self.settle(ErrorCode::TopicAlreadyExists, async || {
            let response = self.on_any(&request).await?;
            let result = response.topics.first().ok_or_else(|| missing(what()))?;
            ClientError::check(result.error_code, what)
        })
        .await
    }

    /// Deletes a topic, and forgets what this client knew about it.
    ///
    /// After an attempt whose outcome is unknown, UNKNOWN_TOPIC_OR_PARTITION counts as success.
    ///
    /// # Errors
    ///
    /// [`ClientError::Code`] as Kafka gives it, and what [`Client::on_any`] may say.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), ClientError> {
        let name = TopicName(text(topic));
        // Names moved into a list of their own in version 6.
        let state = DeleteTopicState::default().with_name(Some(name.clone()));
        let by_state = DeleteTopicsRequest::default()
            .with_topics(vec![state])
            .with_timeout_ms(timeout_ms());
        let by_name = DeleteTopicsRequest::default()
            .with_topic_names(vec![name])
            .with_timeout_ms(timeout_ms());
        let what = || format!("deleting topic {topic}");
        let deleted = self
            .settle(ErrorCode::UnknownTopicOrPartition, async || {
                let connection = self.any().await?;
                let version = connection.version::<DeleteTopicsRequest>(i16::MAX)?;
                let request = if version >= 6 { &by_state } else { &by_name };
                let response = connection.send(version, request).await?.wait().await?;
                let result = response.responses.first().ok_or_else(|| missing(what()))?;
                ClientError::check(result.error_code, what)
            })
            .await;
        self.forget(topic);
        deleted
    }

    /// Asks the leader of a partition for an offset. `None` if no record is as late as the timestamp asked for.
    ///
    /// # Errors
    ///
    /// When no leader answers for the time that retries may take.
    pub async fn offset(
        &self,
        topic: &str,
        partition: i32,
        spec: OffsetSpec,
    ) -> Result<Option<i64>, ClientError> {
        let timestamp = match spec {
            OffsetSpec::Latest => -1,
            OffsetSpec::Earliest => -2,
            OffsetSpec::At(timestamp) => timestamp,
        };
        self.retry(Some(topic), async || {
            let (connection, epoch) = self.leader(topic, partition).await?;
            let wanted = ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_current_leader_epoch(epoch)
                .with_timestamp(timestamp);
            let wanted = ListOffsetsTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(vec![wanted]);
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![wanted]);
            // Version 10 and later change only what the other special timestamps mean.
            let response = connection.call(&request).await?;
            let answer = response.topics.first().and_then(|topic| topic.partitions.first());
            let answer = answer.ok_or_else(|| missing(connection.address().to_owned()))?;
            ClientError::check(answer.error_code, || format!("offsets of {topic}-{partition}"))?;
            Ok((answer.offset >= 0).then_some(answer.offset))
        })
        .await
    }

    /// A connection to any broker.
    pub(crate) async fn any(&self) -> Result<crate::Connection, ClientError> {
        self.refresh(&[]).await?;
        let metadata = self.metadata();
        let mut last = ClientError::NoBroker;
        for (_, address) in metadata.brokers() {
            match self.connection(address).await {
                Ok(connection) => return Ok(connection),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Repeats a change while it fails retriably. `done` is the error that says that it is done already, which
    /// is a success once an earlier attempt may have done it.
    async fn settle(
        &self,
        done: ErrorCode,
        mut attempt: impl AsyncFnMut() -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let mut backoff = self.backoff(Some(self.config().retry_for));
        let mut unknown = false;
        loop {
            match attempt().await {
                Err(ClientError::Code { code, .. }) if unknown && code == done => return Ok(()),
                Err(e) if is_temporary(&e) => {
                    unknown |= e.is_unknown_outcome();
                    if !backoff.pause().await {
                        return Err(e);
                    }
                }
                settled => return settled,
            }
        }
    }
}

/// UNKNOWN_TOPIC_OR_PARTITION passes by itself when somebody else creates the topic, but not while deleting it.
fn is_temporary(error: &ClientError) -> bool {
    let unknown_topic = matches!(
        error,
        ClientError::Code {
            code: ErrorCode::UnknownTopicOrPartition,
            ..
        }
    );
    error.is_retriable() && !unknown_topic
}

fn missing(address: String) -> ClientError {
    ClientError::Mismatch { address }
}

fn timeout_ms() -> i32 {
    i32::try_from(TIMEOUT.as_millis()).unwrap_or(i32::MAX)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
