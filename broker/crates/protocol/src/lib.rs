//! Kafka's vocabulary: ids, error codes, frames, messages and record batches. No I/O.
//!
//! The way in: [`frame::next`] cuts a connection's bytes into frames, [`request::RequestHead::parse`] reads a
//! frame's header, [`messages::decode`] its body, and [`record::validate_produced`] turns what a producer sent
//! into a [`record::Batch`]. The way out is [`messages::encode_response`].
//!
//! All of this reads bytes that anybody can send. It keeps three promises: nothing panics, nothing is allocated
//! because a length or count claims so, and what [`record::Batch`] holds is passed on byte for byte. What a code
//! means to a client, and which one an error becomes, is the broker's to say.
//!
//! Start reading at [`record`].
//!
//! ```
//! use takhin_protocol::record::{BatchBuilder, Compression, Limits, NewRecord, validate_produced};
//!
//! let mut builder = BatchBuilder::new(Compression::Lz4);
//! builder.push(NewRecord { timestamp: 1_000, value: Some(b"hello"), ..NewRecord::default() });
//! let sent = builder.build()?;
//! let batch = validate_produced(Some(sent.to_bytes()), &Limits::default())?;
//! assert_eq!(batch.header.records_count, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod error_code;
pub mod frame;
pub mod guard;
pub mod ids;
mod legacy_produce;
pub mod messages;
pub mod record;
pub mod request;

pub use error_code::ErrorCode;
pub use ids::{BrokerId, LeaderEpoch, PartitionIndex, ProducerId, TopicId, TopicName, TopicPartition};
