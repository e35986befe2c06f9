//! Follows a Pika master as its slave does, and writes what it has and what changes to Kafka topics.
//!
//! - [`source`]: the master: its Redis port, the replication connection, the databases followed over it.
//! - [`snapshot`]: the data set before the changes, from a dump of the master.
//! - [`event`]: what is told of a change: fields, JSON, filters, keys of records.
//! - [`queue`]: what was received and not yet written, bounded in bytes.
//! - [`wal`]: what masters before 3.1 have sent, on the own disk until it is written.
//! - [`sink`]: topics, and rounds of batches.
//! - [`checkpoint`]: how far events were written, in a file and in a compacted topic.
//! - [`control`]: to pause, and to go on.
//! - [`run`](mod@run): one attempt after the other, until it is told to stop.
//!
//! ```text
//! master → items → changes → events → queue → batches → brokers' acknowledgement → position file → master's acknowledgement
//! ```
//!
//! Before 3.1 masters take no acknowledgements; between `items` and `changes` is a log on the own disk, [`wal`].
//!
//! Invariants: nothing is acknowledged to the master, nor passed by a position, that brokers have not acknowledged. Of each
//! partition one batch is on its way, so that nothing is written behind what failed. Items follow one another without a gap,
//! or the connection ends with an error. Events of a key go to one partition, in the master's order.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod cli;
pub mod control;
pub mod event;
pub mod metrics;
pub mod queue;
pub mod run;
pub mod sink;
pub mod snapshot;
pub mod source;
mod trace;
mod trouble;
pub mod wal;

pub use trouble::Trouble;
