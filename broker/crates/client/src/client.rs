//! A cluster as one value: connections by broker, leaders by partition, repetition of what may succeed later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_protocol::messages::metadata_request::MetadataRequestTopic;
use takhin_protocol::messages::{MetadataRequest, Request, StrBytes, TopicName};
use takhin_runtime::Env;
use tracing::debug;

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::metadata::Metadata;

/// A cluster's client; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    env: Env,
    config: ClientConfig,
    metadata: Mutex<Metadata>,
    /// By address. A slot's own lock is held while its connection is made, so that there is only one.
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

type Slot = tokio::sync::Mutex<Option<Connection>>;

impl Client {
    /// A client that connects when it is first used.
    pub fn new(env: Env, config: ClientConfig) -> Self {
        Self(Arc::new(Inner {
            env,
            config,
            metadata: Mutex::new(Metadata::default()),
            slots: Mutex::new(BTreeMap::new()),
        }))
    }

    /// The outside world that it was made with.
    pub(crate) fn env(&self) -> &Env {
        &self.0.env
    }

    /// Its settings.
    pub fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    /// What is known about the cluster now. Nothing is asked.
    pub fn metadata(&self) -> Metadata {
        self.0.metadata.lock().clone()
    }

    /// Asks any broker about `topics` and the brokers, without creating topics.
    ///
    /// # Errors
    ///
    /// When no broker answers; a topic that does not exist is no error here.
    pub async fn refresh(&self, topics: &[&str]) -> Result<(), ClientError> {
        let wanted = topics.iter().map(|topic| {
            let name = TopicName(StrBytes::from_string((*topic).to_owned()));
            MetadataRequestTopic::default().with_name(Some(name))
        });
        let request = MetadataRequest::default()
            .with_topics(Some(wanted.collect()))
            .with_allow_auto_topic_creation(false);
        // From version 4 on a broker can be told not to create topics.
        let response = self.on_any(&request).await?;
        self.0.metadata.lock().merge(&response);
        Ok(())
    }

    /// Forgets a topic's leaders and their epochs.
    pub(crate) fn forget(&self, topic: &str) {
        self.0.metadata.lock().forget(topic);
    }

    /// A connection to the leader of a partition and the leader epoch, from what is known, else after asking once.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoLeader`], and those of [`Connection::open`].
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<(Connection, i32), ClientError> {
        let no_leader = || ClientError::NoLeader {
            topic: topic.to_owned(),
            partition,
        };
        if self.leader_address(topic, partition).is_none() {
            self.refresh(&[topic]).await?;
        }
        let (address, epoch) = self.leader_address(topic, partition).ok_or_else(no_leader)?;
        Ok((self.connection(&address).await?, epoch))
    }

    fn leader_address(&self, topic: &str, partition: i32) -> Option<(String, i32)> {
        let metadata = self.0.metadata.lock();
        let leader = metadata.leader(topic, partition)?;
        Some((metadata.address(leader.broker?)?.to_owned(), leader.epoch))
    }

    /// The connection to a broker, made if there is none.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::open`].
    pub async fn connection(&self, address: &str) -> Result<Connection, ClientError> {
        let slot = Arc::clone(self.0.slots.lock().entry(address.to_owned()).or_default());
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = Connection::open(&self.0.env, &self.0.config, address).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Sends a request to any broker that answers: those known, then those of the bootstrap list, beginning
    /// anywhere so that clients spread.
    ///
    /// # Errors
    ///
    /// The last broker's, if none answers.
    pub async fn on_any<R: Request>(&self, request: &R) -> Result<R::Response, ClientError> {
        let mut addresses: Vec<String> = self
            .metadata()
            .brokers()
            .map(|(_, address)| address.to_owned())
            .collect();
        let known = addresses.len();
        self.rotate(&mut addresses);
        addresses.extend(self.0.config.bootstrap.iter().cloned());
        self.rotate(&mut addresses[known..]);
        let mut last = ClientError::NoBroker;
        for address in addresses {
            let answered = match self.connection(&address).await {
                Ok(connection) => connection.call(request).await,
                Err(e) => Err(e),
            };
            match answered {
                Ok(response) => return Ok(response),
                Err(e) => {
                    debug!(%address, error = %e, "broker did not answer");
                    last = e;
                }
            }
        }
        Err(last)
    }

    fn rotate(&self, addresses: &mut [String]) {
        let by = self.0.env.rng.range(0..addresses.len() as u64);
        addresses.rotate_left(usize::try_from(by).unwrap_or(0));
    }

    /// Repeats `attempt` while it fails retriably, for `retry_for` of the settings. Between attempts it waits, and
    /// asks anew about `topic` if there is one.
    ///
    /// # Errors
    ///
    /// The last attempt's.
    pub async fn retry<T>(
        &self,
        topic: Option<&str>,
        mut attempt: impl AsyncFnMut() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut backoff = self.backoff(Some(self.0.config.retry_for));
        loop {
            match attempt().await {
                Err(e) if e.is_retriable() => {
                    if !backoff.pause().await {
                        return Err(e);
                    }
                    if let Some(topic) = topic
                        && let Err(e) = self.refresh(&[topic]).await
                    {
                        debug!(topic, error = %e, "no metadata");
                    }
                }
                done => return done,
            }
        }
    }

    pub(crate) fn backoff(&self, retry_for: Option<Duration>) -> Backoff {
        Backoff::new(&self.0.env, &self.0.config, retry_for)
    }
}
