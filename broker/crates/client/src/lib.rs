//! A small Kafka client: connections, metadata, produce, consume by assignment, topics. Groups come later.
//!
//! [`Client`] is a cluster. [`Producer`] and [`Consumer`] are made from one, topics and offsets are asked of it, and
//! [`Connection`] is what lies below them all: pipelined requests to one broker. Nothing here touches the operating
//! system but through [`Env`](takhin_runtime::Env), so that the same client drives the deterministic simulation.
//!
//! Promises: a request without an answer is *unknown*, not failed ([`ClientError::is_unknown_outcome`]); an idempotent
//! producer neither duplicates nor reorders the batches of a partition, whatever happens to connections and leaders;
//! transactions of one id are written by one at a time, and seen whole or not at all; a consumer's checksums are verified. Answers come from brokers, which are trusted with data but not with memory.
//!
//! Start reading at [`connection`](Connection), then the producer's lane.
//!
//! ```no_run
//! use takhin_client::{Client, ClientConfig, Consumer, ConsumerConfig, NewTopic, Producer, ProducerConfig, Record};
//!
//! # async fn example() -> Result<(), takhin_client::ClientError> {
//! let client = Client::new(takhin_runtime::Env::real(), ClientConfig::new(["127.0.0.1:9092"]));
//! client.create_topic(&NewTopic { name: "greetings", partitions: 1, ..NewTopic::default() }).await?;
//! let producer = Producer::new(client.clone(), ProducerConfig::default());
//! let offset = producer.send_batch("greetings", 0, vec![Record::of("hello")]).await?;
//! let mut consumer = Consumer::new(client, ConsumerConfig::default());
//! consumer.assign("greetings", 0, offset);
//! assert_eq!(consumer.poll().await?[0].record.value.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```

mod aborted;
mod admin;
mod admin_batch;
mod admin_configs;
mod backoff;
mod client;
mod config;
mod connection;
mod consumer;
mod error;
mod metadata;
mod producer;
mod record;
mod transactions;
mod versions;

pub use admin::{NewTopic, OffsetSpec};
pub use admin_batch::{
    OngoingReassignment, Outcomes, PartitionDescription, Refusal, TopicDescription, TopicToCreate,
};
pub use admin_configs::{ConfigChange, ConfigResource, ConfigValue, Configs};
pub use client::Client;
pub use config::{Acks, ClientConfig, OnRetry};
pub use connection::{Connection, Reply};
pub use consumer::{Consumer, ConsumerConfig, Isolation};
pub use error::{ClientError, Damage};
pub use metadata::{Leader, Metadata};
pub use producer::{Delivery, Producer, ProducerConfig};
pub use record::{ConsumedRecord, Packed, Record, Spare};
pub use takhin_protocol::ErrorCode;
pub use takhin_protocol::record::{Compression, NewRecord};
pub use transactions::{Batches, TransactionConfig, Transactions};
