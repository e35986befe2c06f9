//! The cluster's image as coordinators see it.

use takhin_cluster::Image;
use takhin_coordinator::{TopicInfo, Topics};
use uuid::Uuid;

/// Topics of one image.
pub(super) struct ImageTopics<'a>(pub(super) &'a Image);

impl Topics for ImageTopics<'_> {
    fn version(&self) -> u64 {
        self.0.version
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        let topic = self.0.topic(name)?;
        Some(TopicInfo {
            id: topic.id,
            partitions: super::as_i32(topic.partitions.len()),
        })
    }

    fn name_of(&self, id: Uuid) -> Option<&str> {
        self.0.topic_by_id(id).map(|topic| topic.name.as_str())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.0.topics.keys().map(String::as_str))
    }

    fn racks(&self, name: &str, partition: i32) -> Vec<String> {
        let placement = usize::try_from(partition)
            .ok()
            .and_then(|index| self.0.topic(name)?.partitions.get(index));
        let replicas = placement.into_iter().flat_map(|placement| &placement.replicas);
        replicas
            .filter_map(|id| self.0.brokers.get(id)?.rack.clone())
            .collect()
    }
}
