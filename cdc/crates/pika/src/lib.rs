//! What Pika (PikiwiDB) sends to its slaves and keeps on disk, as values. No I/O, no clock.
//!
//! - [`message`] and [`frame`]: the protobuf messages of Pika 3.1 and later.
//! - [`legacy`]: the binlog stream of Pika 2.3 and 3.0.
//! - [`binlog`] and [`position`]: items, and where they begin and end.
//! - [`resp`] and [`command`]: the commands in them, and what they change.
//! - [`storage`]: keys and values of a dump's RocksDB databases, for each layout.
//! - [`info`]: texts that say which version a server is and where a dump ends.
//!
//! Everything here comes from networks and disks of others: any bytes may be given to any function, which answers with
//! an error and reserves no more memory than the bytes that it was given.

#![forbid(unsafe_code)]

pub mod binlog;
pub mod command;
pub mod frame;
#[expect(missing_docs, reason = "generated; documented in proto/pika.proto")]
mod generated;
pub mod info;
pub mod legacy;
pub mod position;
pub mod resp;
pub mod storage;

/// Messages, made from `proto/pika.proto`.
pub mod message {
    pub use crate::generated::*;
}

pub use position::Position;
