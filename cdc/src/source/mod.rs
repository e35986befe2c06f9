//! A Pika master as its slave sees it.

mod error;
mod followed;
mod inlet;
mod legacy;
mod link;
mod listed;
mod redis;
mod rsync;
mod session;
mod start;
mod transfer;

pub use error::SourceError;
pub use followed::Followed;
pub use inlet::{Inlet, Message, piece};
pub use legacy::{Legacy, Received, Taker};
pub use link::{Ack, Link};
pub use redis::Redis;
pub use session::{Ends, Session};
pub use start::{Driver, is_same_binlog};
pub use transfer::{Dump, Transfers};
