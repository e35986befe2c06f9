//! Transactions (KIP-98): batches of any partitions, of which readers see all or none.
//!
//! ```text
//! begin ── InitProducerId ──> whoever had the id before is fenced, what it left open is aborted
//! write ── AddPartitionsToTxn, for partitions that are new ── Produce, a batch per partition
//! commit ─ EndTxn
//! ```
//!
//! After any failure the transaction is open, or how it ended is not known. Only [`Transactions::begin`] may follow: when it
//! returns, everything that was written under the id before is either committed or aborted, for good, and what is read then
//! says which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use takhin_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use takhin_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest,
    Request, StrBytes, TopicName, TransactionalId,
};
use takhin_protocol::record::{Attributes, Batch, Compression};
use takhin_runtime::clock::Instant;
use tracing::debug;

use crate::backoff::Backoff;
use crate::client::Client;
use crate::config::OnRetry;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::record::Packed;

/// Newest versions in which partitions are added, and the epoch is raised, by requests of their own rather than by writing
/// and ending (KIP-890); brokers have both.
const PRODUCE: i16 = 11;
const ADD_PARTITIONS: i16 = 3;
const END: i16 = 4;

/// Newest version with one key for a request.
const FIND_COORDINATOR: i16 = 3;

/// Newest version that is known, and the oldest that says who asks (KIP-360).
const INIT: (i16, i16) = (5, 3);

/// Key type of coordinators of transactions.
const TRANSACTION: i8 = 1;

/// Pause while the transaction before is being completed: a few round trips between brokers.
const COMPLETING: Duration = Duration::from_millis(4);

/// Settings of [`Transactions`].
#[derive(Debug, Clone)]
pub struct TransactionConfig {
    /// The transactional id: who begins with it fences all others that have it.
    pub id: String,
    /// How long a transaction may take: after that the brokers abort it.
    pub timeout: Duration,
    /// Codec of the batches.
    pub compression: Compression,
    /// Told of batches that are sent again.
    pub on_retry: OnRetry,
}

/// What is written together: at most one batch of each partition.
pub type Batches = Vec<((Arc<str>, i32), Packed)>;

/// One transaction after the other, under one id.
#[derive(Debug)]
pub struct Transactions {
    client: Client,
    config: TransactionConfig,
    /// Address of the coordinator, while it is known.
    coordinator: Option<String>,
    /// Producer id and epoch, once there was a beginning.
    identity: Option<(i64, i16)>,
    /// Next sequence number by partition, in this epoch.
    sequences: BTreeMap<(Arc<str>, i32), i32>,
    /// Whether a transaction may be open.
    is_open: bool,
    /// Its partitions.
    joined: BTreeSet<(Arc<str>, i32)>,
    /// When it has to be over.
    deadline: Option<Instant>,
    /// Whether all that was asked was answered well.
    is_sound: bool,
}

impl Transactions {
    /// Nothing is asked before [`Transactions::begin`].
    pub fn new(client: Client, config: TransactionConfig) -> Self {
        Self {
            client,
            config,
            coordinator: None,
            identity: None,
            sequences: BTreeMap::new(),
            is_open: false,
            joined: BTreeSet::new(),
            deadline: None,
            is_sound: false,
        }
    }

    /// Fences whoever had the id before, or settles what a failure has left. Does nothing if there was none, and nothing is open.
    ///
    /// Whoever was fenced stays so, with one exception: brokers fence a producer whose transaction took too long as well, and
    /// that cannot be told from another one's beginning. One that was late begins anew, and fences the other if there is one.
    ///
    /// # Errors
    ///
    /// [`ClientError::is_fenced`]: somebody else has begun with the id since this one did.
    /// [`ClientError::Unsupported`]: the brokers have no transactions. All others may pass.
    ///
    /// # Cancel safety
    ///
    /// Safe; it is to be called again.
    pub async fn begin(&mut self) -> Result<(), ClientError> {
        if self.is_sound && !self.is_open {
            return Ok(());
        }
        self.is_sound = false;
        let now = self.client.env().clock.instant();
        let is_late = self.deadline.is_some_and(|deadline| now >= deadline);
        match self.settle().await {
            Err(error) if error.is_fenced() && is_late => {
                self.identity = None;
                self.init().await?;
            }
            settled => settled?,
        }
        self.sequences.clear();
        self.joined.clear();
        self.is_open = false;
        self.deadline = None;
        self.is_sound = true;
        Ok(())
    }

    /// Aborts what is open, and begins as the one that it was: an epoch that is raised amid a transaction is nobody's.
    async fn settle(&mut self) -> Result<(), ClientError> {
        if let Some(identity) = self.identity.filter(|_| self.is_open) {
            match self.end(identity, false, self.in_time()).await {
                // There is none: no partition came so far, or the last one is committed.
                Err(ClientError::Code {
                    code: ErrorCode::InvalidTxnState,
                    ..
                }) => {}
                ended => ended?,
            }
            self.is_open = false;
        }
        self.init().await
    }

    /// A producer id, or the next epoch of the one that it has.
    async fn init(&mut self) -> Result<(), ClientError> {
        let deadline = self.in_time();
        let timeout_ms = i32::try_from(self.config.timeout.as_millis()).unwrap_or(i32::MAX);
        let (id, identity) = (self.id(), self.identity);
        let request = |connection: &Connection| -> Result<(i16, InitProducerIdRequest), ClientError> {
            let version = connection.version::<InitProducerIdRequest>(INIT.0)?;
            // An older broker takes whoever asks.
            let (producer, epoch) = identity.filter(|_| version >= INIT.1).unwrap_or((-1, -1));
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(id.clone()))
                .with_transaction_timeout_ms(timeout_ms)
                .with_producer_id(producer.into())
                .with_producer_epoch(epoch);
            Ok((version, request))
        };
        let response = self
            .ask(deadline, request, |response| response.error_code)
            .await?;
        self.identity = Some((response.producer_id.0, response.producer_epoch));
        Ok(())
    }

    /// Writes batches into the transaction, which begins with the first. When it returns all of them are in their partitions.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; only [`Transactions::begin`] may follow.
    ///
    /// # Cancel safety
    ///
    /// As an error.
    pub async fn write(&mut self, batches: Batches) -> Result<(), ClientError> {
        let (identity, deadline) = self.take()?;
        self.join(&batches, identity, deadline).await?;
        let mut writing = Vec::new();
        for (place, packed) in batches {
            let mut batch = packed
                .build(self.config.compression, &self.client.env().tasks)
                .await?;
            let sequence = self.sequences.entry(place.clone()).or_default();
            batch.header.producer_id = identity.0;
            batch.header.producer_epoch = identity.1;
            batch.header.base_sequence = *sequence;
            batch.header.attributes.0 |= Attributes::TRANSACTIONAL;
            *sequence = crate::producer::sequence_after(*sequence, batch.header.records_count);
            batch.header.crc = batch.compute_crc();
            writing.push(self.produce(place, batch, deadline));
        }
        for written in join_all(writing).await {
            written?;
        }
        self.is_sound = true;
        Ok(())
    }

    /// Commits what was written since the last one; nothing is done if that is nothing.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; only [`Transactions::begin`] may follow, and it may be committed nevertheless.
    ///
    /// # Cancel safety
    ///
    /// As an error.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        let (identity, deadline) = self.take()?;
        if self.is_open {
            self.end(identity, true, deadline).await?;
        }
        self.joined.clear();
        self.is_open = false;
        self.deadline = None;
        self.is_sound = true;
        Ok(())
    }

    async fn end(
        &mut self,
        (producer, epoch): (i64, i16),
        is_commit: bool,
        deadline: Instant,
    ) -> Result<(), ClientError> {
        let request = EndTxnRequest::default()
            .with_transactional_id(self.id())
            .with_producer_id(producer.into())
            .with_producer_epoch(epoch)
            .with_committed(is_commit);
        self.ask(
            deadline,
            |connection| Ok((connection.version::<EndTxnRequest>(END)?, request.clone())),
            |response| response.error_code,
        )
        .await?;
        Ok(())
    }

    /// Who writes, and until when; unsound until that went well.
    fn take(&mut self) -> Result<((i64, i16), Instant), ClientError> {
        if !std::mem::take(&mut self.is_sound) {
            return Err(ClientError::ProducerClosed);
        }
        let identity = self.identity.ok_or(ClientError::ProducerClosed)?;
        let in_time = self.in_time();
        Ok((identity, *self.deadline.get_or_insert(in_time)))
    }

    fn in_time(&self) -> Instant {
        self.client.env().clock.instant() + self.config.timeout
    }

    fn id(&self) -> TransactionalId {
        TransactionalId(StrBytes::from_string(self.config.id.clone()))
    }

    /// Adds the partitions of batches that are not in the transaction yet.
    async fn join(
        &mut self,
        batches: &Batches,
        (producer, epoch): (i64, i16),
        deadline: Instant,
    ) -> Result<(), ClientError> {
        let mut by_topic: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
        let mut new = Vec::new();
        for (place, _) in batches.iter().filter(|(place, _)| !self.joined.contains(place)) {
            by_topic.entry(Arc::clone(&place.0)).or_default().push(place.1);
            new.push(place.clone());
        }
        if new.is_empty() {
            return Ok(());
        }
        let topics = by_topic.into_iter().map(|(topic, partitions)| {
            AddPartitionsToTxnTopic::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_string())))
                .with_partitions(partitions)
        });
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.id())
            .with_v3_and_below_producer_id(producer.into())
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(topics.collect());
        self.is_open = true;
        self.ask(
            deadline,
            |connection| {
                let version = connection.version::<AddPartitionsToTxnRequest>(ADD_PARTITIONS)?;
                Ok((version, request.clone()))
            },
            |response| {
                let topics = response.results_by_topic_v3_and_below.iter();
                let codes = topics
                    .flat_map(|topic| &topic.results_by_partition)
                    .map(|partition| partition.partition_error_code);
                // What is wrong with one has the others not attempted.
                let faults = codes.filter(|code| *code != 0);
                let is_cause = |code: &i16| *code != ErrorCode::OperationNotAttempted.code();
                let mut faults = faults.collect::<Vec<_>>();
                faults.sort_by_key(|code| !is_cause(code));
                faults.first().copied().unwrap_or(0)
            },
        )
        .await?;
        self.joined.extend(new);
        Ok(())
    }

    /// Asks the coordinator until it answers well, or in a way that does not pass.
    async fn ask<R: Request>(
        &mut self,
        deadline: Instant,
        request: impl Fn(&Connection) -> Result<(i16, R), ClientError>,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, ClientError> {
        let mut backoff = self.backoff(deadline);
        loop {
            let asking = async {
                let connection = self.coordinator().await?;
                let (version, request) = request(&connection)?;
                let response = connection.send(version, &request).await?.wait().await?;
                ClientError::check(code(&response), || format!("transaction of {}", self.config.id))?;
                Ok::<_, ClientError>(response)
            };
            let error = match asking.await {
                Ok(response) => return Ok(response),
                Err(error) if error.is_retriable() => error,
                Err(error) => return Err(error),
            };
            debug!(id = self.config.id, %error, "the coordinator is asked again");
            let clock = self.client.env().clock.clone();
            let is_completing = matches!(
                &error,
                ClientError::Code {
                    code: ErrorCode::ConcurrentTransactions,
                    ..
                }
            );
            if is_completing && clock.instant() < deadline {
                clock.sleep(COMPLETING).await;
                continue;
            }
            self.coordinator = None;
            if !backoff.pause().await {
                return Err(error);
            }
        }
    }

    /// A connection to the coordinator of the id.
    async fn coordinator(&mut self) -> Result<Connection, ClientError> {
        if let Some(address) = &self.coordinator {
            return self.client.connection(address).await;
        }
        let any = self.client.any().await?;
        // Brokers without transactions may answer as if there were no coordinator yet.
        any.version::<EndTxnRequest>(END)?;
        let request = FindCoordinatorRequest::default()
            .with_key(self.id().0)
            .with_key_type(TRANSACTION);
        let version = any.version::<FindCoordinatorRequest>(FIND_COORDINATOR)?;
        let found = any.send(version, &request).await?.wait().await?;
        ClientError::check(found.error_code, || format!("coordinator of {}", self.config.id))?;
        let address = crate::metadata::address(&found.host, found.port);
        let connection = self.client.connection(&address).await?;
        self.coordinator = Some(address);
        Ok(connection)
    }

    fn backoff(&self, deadline: Instant) -> Backoff {
        let left = deadline.saturating_duration_since(self.client.env().clock.instant());
        self.client.backoff(Some(left))
    }

    /// Writes a batch until it is there: brokers know it again by its number.
    fn produce(
        &self,
        (topic, partition): (Arc<str>, i32),
        batch: Batch,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), ClientError>> + Send + use<> {
        let (client, mut backoff) = (self.client.clone(), self.backoff(deadline));
        let on_retry = self.config.on_retry.clone();
        let left = deadline.saturating_duration_since(client.env().clock.instant());
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch.to_bytes()));
        let of_topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_string())))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(self.id()))
            .with_acks(-1)
            .with_timeout_ms(i32::try_from(left.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![of_topic]);
        async move {
            loop {
                let error = match attempt(&client, &topic, partition, &request).await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.is_retriable() => error,
                    Err(error) => return Err(error),
                };
                debug!(%topic, partition, %error, "produce will be repeated");
                on_retry.tell(&topic);
                if !backoff.pause().await {
                    return Err(error);
                }
                if let Err(error) = client.refresh(&[&topic]).await {
                    debug!(%topic, %error, "no metadata");
                }
            }
        }
    }
}

async fn attempt(
    client: &Client,
    topic: &str,
    partition: i32,
    request: &ProduceRequest,
) -> Result<(), ClientError> {
    let (connection, _) = client.leader(topic, partition).await?;
    let version = connection.version::<ProduceRequest>(PRODUCE)?;
    let response = connection.send(version, request).await?.wait().await?;
    let answered = response
        .responses
        .first()
        .and_then(|topic| topic.partition_responses.first());
    let answered = answered.ok_or_else(|| ClientError::Mismatch {
        address: connection.address().to_owned(),
    })?;
    let checked = ClientError::check(answered.error_code, || format!("produce to {topic}-{partition}"));
    match checked {
        Err(ClientError::Code {
            code: ErrorCode::DuplicateSequenceNumber,
            ..
        }) => Ok(()),
        checked => checked,
    }
}
