//! Produces batches: in order per partition, several in flight, without duplicates if idempotent.

mod lane;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_protocol::messages::InitProducerIdRequest;
use takhin_protocol::record::{Batch, Compression};
use takhin_runtime::clock::Instant;
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::client::Client;
use crate::config::{Acks, OnRetry};
use crate::error::ClientError;
use crate::record::{Packed, Record};
use lane::Lane;
pub(crate) use lane::sequence_after;

/// Most requests in flight per partition: brokers remember the last five batches of a producer (KIP-98).
const MAX_IN_FLIGHT: usize = 5;

/// Settings of a [`Producer`].
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// Whether the broker recognizes repetitions (KIP-98). Needs `acks` of [`Acks::All`]; without it a repetition
    /// may append a batch twice, and batches in flight may change places.
    pub idempotent: bool,
    /// When a batch counts as written.
    pub acks: Acks,
    /// Codec of the batches.
    pub compression: Compression,
    /// Requests in flight per partition, 1 to 5.
    pub max_in_flight: usize,
    /// How long a batch is tried; after that its outcome may be unknown.
    pub delivery_timeout: Duration,
    /// How long the broker may wait for replicas.
    pub commit_timeout: Duration,
    /// Batches that may wait per partition; [`Producer::enqueue`] waits for room.
    pub queue: usize,
    /// Told of batches that are sent again.
    pub on_retry: OnRetry,
}

impl Default for ProducerConfig {
    /// Kafka's: idempotent, `acks=all`, five in flight, two minutes.
    fn default() -> Self {
        Self {
            idempotent: true,
            acks: Acks::All,
            compression: Compression::None,
            max_in_flight: MAX_IN_FLIGHT,
            delivery_timeout: Duration::from_secs(120),
            commit_timeout: Duration::from_secs(30),
            queue: 64,
            on_retry: OnRetry::default(),
        }
    }
}

/// Produces to any number of partitions; clones share everything.
///
/// Each partition has a task of its own. When the last clone is dropped, the tasks finish what was enqueued.
#[derive(Debug, Clone)]
pub struct Producer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    lanes: Mutex<BTreeMap<(String, i32), mpsc::Sender<Job>>>,
}

/// What the lanes have in common.
#[derive(Debug)]
struct Shared {
    client: Client,
    config: ProducerConfig,
    /// Producer id and epoch.
    identity: OnceCell<(i64, i16)>,
}

/// A batch on its way.
#[derive(Debug)]
struct Job {
    batch: Batch,
    deadline: Instant,
    done: oneshot::Sender<Result<i64, ClientError>>,
}

/// The outcome of a batch, yet to come. Dropping it does not take the batch back.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<i64, ClientError>>);

impl Delivery {
    /// Waits for the offset of the batch's first record. It is durable as far as the topic and `acks` say, and -1 if
    /// the broker says only that it has the batch already.
    ///
    /// # Errors
    ///
    /// [`ClientError::is_unknown_outcome`] tells whether the batch may be there nevertheless.
    pub async fn wait(self) -> Result<i64, ClientError> {
        self.0.await.unwrap_or(Err(ClientError::ProducerClosed))
    }
}

impl Producer {
    /// A producer that asks for its producer id when it is first used.
    pub fn new(client: Client, config: ProducerConfig) -> Self {
        let mut config = config;
        config.max_in_flight = config.max_in_flight.clamp(1, MAX_IN_FLIGHT);
        if config.idempotent {
            config.acks = Acks::All;
        }
        let shared = Arc::new(Shared {
            client,
            config,
            identity: OnceCell::new(),
        });
        Self(Arc::new(Inner {
            shared,
            lanes: Mutex::new(BTreeMap::new()),
        }))
    }

    /// Sends records as one batch and waits for the offset of the first; see [`Delivery::wait`].
    ///
    /// # Errors
    ///
    /// [`ClientError::Build`], and those of [`Delivery::wait`].
    ///
    /// # Cancel safety
    ///
    /// Not safe: the batch may be sent or not.
    pub async fn send_batch(
        &self,
        topic: &str,
        partition: i32,
        records: Vec<Record>,
    ) -> Result<i64, ClientError> {
        self.enqueue(topic, partition, records).await?.wait().await
    }

    /// Enqueues records as one batch. Batches of a partition are written in the order in which their calls return.
    ///
    /// # Errors
    ///
    /// [`ClientError::Build`]; [`ClientError::ProducerClosed`] if the partition's task has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe; nothing was enqueued.
    pub async fn enqueue(
        &self,
        topic: &str,
        partition: i32,
        records: Vec<Record>,
    ) -> Result<Delivery, ClientError> {
        let now_ms = self.0.shared.client.env().clock.now_ms();
        let packed = Packed::of(&records, now_ms);
        self.enqueue_packed(topic, partition, packed).await
    }

    /// [`Producer::enqueue`] of records that are packed already.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn enqueue_packed(
        &self,
        topic: &str,
        partition: i32,
        packed: Packed,
    ) -> Result<Delivery, ClientError> {
        let Shared { client, config, .. } = &*self.0.shared;
        let clock = &client.env().clock;
        let batch = packed.build(config.compression, &client.env().tasks).await?;
        let (done, delivery) = oneshot::channel();
        let job = Job {
            batch,
            deadline: clock.instant() + config.delivery_timeout,
            done,
        };
        self.lane(topic, partition)
            .send(job)
            .await
            .map_err(|_| ClientError::ProducerClosed)?;
        Ok(Delivery(delivery))
    }

    fn lane(&self, topic: &str, partition: i32) -> mpsc::Sender<Job> {
        let mut lanes = self.0.lanes.lock();
        let lane = lanes.entry((topic.to_owned(), partition)).or_insert_with(|| {
            let shared = Arc::clone(&self.0.shared);
            let (sender, jobs) = mpsc::channel(shared.config.queue.max(1));
            let tasks = shared.client.env().tasks.clone();
            tasks.spawn("producer lane", Lane::new(shared, topic, partition, jobs).run());
            sender
        });
        lane.clone()
    }
}

impl Shared {
    /// The producer's id and epoch, asked for once.
    async fn identity(&self) -> Result<(i64, i16), ClientError> {
        self.identity
            .get_or_try_init(|| self.new_identity())
            .await
            .copied()
    }

    /// A new producer id with epoch 0.
    async fn new_identity(&self) -> Result<(i64, i16), ClientError> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let response = self.client.on_any(&request).await?;
        ClientError::check(response.error_code, || "producer id".into())?;
        Ok((response.producer_id.0, response.producer_epoch))
    }
}
