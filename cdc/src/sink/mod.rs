//! The brokers that events go to.

mod error;
mod round;
mod topics;
mod writer;

pub use error::SinkError;
pub use topics::Topics;
pub use writer::{Master, Writer};
