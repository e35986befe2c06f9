//! Counts of partitions and brokers, for metrics.

use super::Cluster;
use crate::metadata::{Image, PartitionInfo, TopicInfo};
use crate::partition::PartitionId;

/// Counts for metrics and readiness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterStats {
    /// Living topics.
    pub topics: usize,
    /// Their partitions.
    pub partitions: usize,
    /// Those of them that nobody leads, as far as this broker knows.
    pub unavailable: usize,
    /// Those of them that another broker than their first replica's leads.
    pub imbalanced: usize,
    /// Partitions led by this broker that have replicas which are not in sync.
    pub under_replicated: usize,
    /// Partitions led by this broker with fewer replicas in sync than `min.insync.replicas`: writes with `acks=all` are
    /// refused.
    pub under_min_isr: usize,
    /// Partitions led by this broker with just as many: one more that is lost, and writes are refused.
    pub at_min_isr: usize,
    /// Partitions with a replica on this broker that cannot be read or written here.
    pub offline_replicas: usize,
    /// Partitions with a replica on this broker that may lack acknowledged records, and has no vote until it knows.
    pub in_doubt: usize,
    /// Partitions with a replica on this broker whose replication rests because nobody writes.
    pub parked: usize,
    /// Registered brokers that are heard of.
    pub active: usize,
    /// Registered brokers that were not heard of for too long.
    pub fenced: usize,
}

impl Cluster {
    /// Counts for metrics and readiness.
    pub fn stats(&self) -> ClusterStats {
        let image = self.image();
        let fenced = self.fenced().len();
        let replicas = self.partitions();
        let groups = self.exchange.all_groups();
        let mut stats = ClusterStats {
            topics: image.topics.len(),
            parked: groups.iter().filter(|group| group.is_parked()).count(),
            in_doubt: groups.iter().filter(|group| group.is_in_doubt()).count(),
            offline_replicas: replicas
                .iter()
                .filter(|replica| replica.offline_reason().is_some())
                .count(),
            active: image.brokers.len() - fenced,
            fenced,
            ..ClusterStats::default()
        };
        self.count_partitions(&image, &mut stats);
        stats
    }

    fn count_partitions(&self, image: &Image, stats: &mut ClusterStats) {
        for topic in image.topics.values() {
            stats.partitions += topic.partitions.len();
            for (index, placement) in (0..).zip(&topic.partitions) {
                self.count(topic, index, placement, stats);
            }
        }
    }

    fn count(&self, topic: &TopicInfo, index: i32, placement: &PartitionInfo, stats: &mut ClusterStats) {
        let id = PartitionId {
            topic_id: topic.id,
            index,
        };
        let Some(word) = self.exchange.leaders.of(id).filter(|word| word.leader >= 0) else {
            stats.unavailable += 1;
            return;
        };
        stats.imbalanced += usize::from(placement.replicas.first() != Some(&word.leader));
        if word.leader == self.node_id() {
            let (in_sync, least) = (word.in_sync.len(), usize::from(topic.config.min_insync_replicas));
            stats.under_replicated += usize::from(in_sync < placement.replication_factor());
            stats.under_min_isr += usize::from(in_sync < least);
            stats.at_min_isr += usize::from(in_sync == least);
        }
    }
}
