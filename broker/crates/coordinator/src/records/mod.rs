//! The records of `__consumer_offsets`, in Kafka's own schemas.

/// One record, decoded.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {}
