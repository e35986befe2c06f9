//! How batches get to the brokers: each by itself, or together with the position in a transaction.
//!
//! With `exactly_once` this holds at any moment, whatever breaks: *what was acknowledged to the master <= the position in the
//! file <= the committed position in the topic = the events that readers of committed records see*. The last two are one by the
//! transaction. The file is saved after it was committed, the master told after that. Therefore the position to begin at is
//! that of the topic, read when nothing is open any more: [`Outlet::begin`] fences whoever wrote for the source before, and what
//! that one had not committed never is.
//!
//! A transaction is a round of [`Writer`](super::Writer): 16 MiB, or a second batch of one partition, end it, and what is left
//! is in the next one. It ends at the latest after `sink.transaction_timeout`: the brokers abort it then, and the attempt
//! begins anew at the position in the topic.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use takhin_client::{
    Acks, Batches, Client, ClientError, Compression, ErrorCode, OnRetry, Producer, ProducerConfig,
    TransactionConfig, Transactions,
};
use takhin_config::CdcConfig;
use takhin_config::cdc::{Codec, Delivery};
use takhin_runtime::Clock;
use tokio::sync::Mutex;

use super::error::SinkError;
use super::topics::{Topics, failed};
use crate::metrics;

/// How long a batch is tried outside of transactions: as good as for ever, since nothing else can be done with it.
const DELIVERY: Duration = Duration::from_secs(30 * 86_400);

/// How long it is looked why nothing is acknowledged.
const LOOK: Duration = Duration::from_secs(2);

/// Where batches are put; clones share everything.
#[derive(Debug, Clone)]
pub struct Outlet {
    client: Client,
    /// One for all attempts: what an earlier one has sent stays before what the next one sends.
    producer: Producer,
    transactions: Option<Arc<Mutex<Transactions>>>,
}

fn on_retry() -> OnRetry {
    OnRetry::new(|topic| metrics::PRODUCE_RETRIES.with([topic]).inc())
}

/// What was wrong, with the topic where that is known.
pub(super) type Outcome = Result<(), (Option<Arc<str>>, ClientError)>;

impl Outlet {
    /// As the configuration wants it. Nothing is asked yet.
    pub fn new(client: &Client, config: &CdcConfig) -> Self {
        let compression = match config.sink.compression {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        };
        let producer = ProducerConfig {
            idempotent: true,
            acks: Acks::All,
            compression,
            delivery_timeout: DELIVERY,
            on_retry: on_retry(),
            ..ProducerConfig::default()
        };
        let transactions = || TransactionConfig {
            id: format!("takhin-cdc-{}", config.source_id()),
            timeout: config.sink.transaction_timeout,
            compression,
            on_retry: on_retry(),
        };
        Self {
            client: client.clone(),
            producer: Producer::new(client.clone(), producer),
            transactions: match config.sink.delivery {
                Delivery::AtLeastOnce => None,
                Delivery::ExactlyOnce => {
                    let transactions = Transactions::new(client.clone(), transactions());
                    Some(Arc::new(Mutex::new(transactions)))
                }
            },
        }
    }

    /// Whether positions are written together with events.
    pub fn is_transactional(&self) -> bool {
        self.transactions.is_some()
    }

    /// The producer of what is in no transaction.
    pub(super) fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Looks why brokers do not acknowledge anything: in words, as far as that can be seen.
    ///
    /// # Errors
    ///
    /// [`SinkError::Deleted`]: a topic is gone, so that they never will.
    pub(super) async fn look(&self, clock: &Clock, topics: &Topics) -> Result<Option<String>, SinkError> {
        match clock.timeout(LOOK, topics.gone(&self.client)).await {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(topic))) => Err(SinkError::Deleted(topic)),
            Ok(Err(error)) => Ok(Some(error.to_string())),
            Err(_) => Ok(Some("no broker answers".to_owned())),
        }
    }

    /// Has what was written before, by whomever, committed or aborted; to be called before positions are read.
    ///
    /// # Errors
    ///
    /// [`SinkError`]; the brokers have no transactions, or somebody else writes for the source.
    pub async fn begin(&self, source_id: &str) -> Result<(), SinkError> {
        let Some(transactions) = &self.transactions else {
            return Ok(());
        };
        let begun = transactions.lock().await.begin().await;
        begun.map_err(|error| match &error {
            error if error.is_fenced() => SinkError::Fenced(source_id.to_owned()),
            ClientError::Unsupported { .. }
            | ClientError::Code {
                code: ErrorCode::UnsupportedVersion,
                ..
            } => SinkError::NoTransactions(error),
            _ => failed("begin with transactions", error),
        })
    }

    /// Writes batches, and then the positions if that is the last of a round.
    pub(super) async fn write(&self, batches: Batches, positions: Option<Batches>) -> Outcome {
        match &self.transactions {
            None => self.write_each(batches).await,
            Some(transactions) => {
                let mut transactions = transactions.lock().await;
                let is_last = positions.is_some();
                let together = batches.into_iter().chain(positions.into_iter().flatten());
                let writing = async {
                    transactions.write(together.collect()).await?;
                    match is_last {
                        true => transactions.commit().await,
                        false => Ok(()),
                    }
                };
                let written = writing.await;
                if is_last || written.is_err() {
                    let result = if written.is_ok() { "committed" } else { "failed" };
                    metrics::TRANSACTIONS.with([result]).inc();
                }
                written.map_err(|error| (None, error))
            }
        }
    }

    async fn write_each(&self, batches: Batches) -> Outcome {
        // All at a time: each is of another partition, and is compressed elsewhere.
        let writing = batches
            .into_iter()
            .map(|((topic, partition), packed)| async move {
                let enqueued = self.producer.enqueue_packed(&topic, partition, packed).await;
                let written = match enqueued {
                    Ok(delivery) => delivery.wait().await.map(drop),
                    Err(error) => Err(error),
                };
                written.map_err(|error| (Some(topic), error))
            });
        join_all(writing).await.into_iter().collect()
    }
}
