//! Cluster metadata as an immutable image; a committed record makes the next one. Readers never lock.

mod image;
mod record;

pub(crate) use image::Origin;
pub use image::{
    BrokerInfo, Endpoint, INTERNAL_REPLICAS, Image, PartitionInfo, Reassignment, TopicInfo, is_internal,
};
pub use record::MetadataRecord;
pub(crate) use record::RecordError;
