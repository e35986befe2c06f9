//! The cluster's topics, as far as coordinators need to know them.

use uuid::Uuid;

/// A living topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its identity; a topic that is created again has another.
    pub id: Uuid,
    /// Number of partitions.
    pub partitions: i32,
}

/// The cluster's topics at one version of its metadata.
pub trait Topics {
    /// Grows whenever a topic is created, deleted or gets partitions.
    fn version(&self) -> u64;

    /// The living topic of this name.
    fn by_name(&self, name: &str) -> Option<TopicInfo>;

    /// Name of the living topic with this id.
    fn name_of(&self, id: Uuid) -> Option<&str>;

    /// Names of all living topics, in order.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_>;

    /// Racks of the replicas of a partition, of those brokers that have one.
    fn racks(&self, name: &str, partition: i32) -> Vec<String>;
}
