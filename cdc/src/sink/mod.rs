//! The brokers that events go to.

mod error;
mod notes;
mod outlet;
mod preview;
mod round;
mod topics;
mod writer;

pub use error::SinkError;
pub use outlet::Outlet;
pub use preview::Preview;
pub use topics::Topics;
pub use writer::{Master, Writer};
