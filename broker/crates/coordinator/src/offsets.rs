//! Committed offsets, by group, topic and partition.

use std::collections::BTreeMap;

use takhin_protocol::messages::StrBytes;
use uuid::Uuid;

use crate::records::{CommittedOffset, OffsetRecord};

/// Offsets of one group: by topic name, then partition.
pub(crate) type GroupOffsets = BTreeMap<StrBytes, BTreeMap<i32, CommittedOffset>>;

/// Committed offsets of all groups of a shard. Only partitions that exist can be committed for, so there are at most
/// as many as groups times partitions.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    groups: BTreeMap<StrBytes, GroupOffsets>,
}

impl Offsets {
    pub(crate) fn of_group(&self, group: &str) -> Option<&GroupOffsets> {
        self.groups.get(group.as_bytes())
    }

    pub(crate) fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.of_group(group)?.get(topic.as_bytes())?.get(&partition)
    }

    /// Applies a record: sets the offset, or removes it.
    pub(crate) fn apply(&mut self, record: &OffsetRecord) {
        match &record.value {
            Some(value) => {
                let group = self.groups.entry(record.group.clone()).or_default();
                let topic = group.entry(record.topic.clone()).or_default();
                topic.insert(record.partition, value.clone());
            }
            None => self.remove(record),
        }
    }

    fn remove(&mut self, record: &OffsetRecord) {
        let Some(group) = self.groups.get_mut(&record.group) else {
            return;
        };
        let Some(topic) = group.get_mut(&record.topic) else {
            return;
        };
        topic.remove(&record.partition);
        if topic.is_empty() {
            group.remove(&record.topic);
        }
        if group.is_empty() {
            self.groups.remove(&record.group);
        }
    }

    /// Tombstones for the offsets of a group, of those that `chosen` picks.
    pub(crate) fn tombstones(
        &self,
        group: &str,
        chosen: impl Fn(&CommittedOffset) -> bool,
    ) -> Vec<OffsetRecord> {
        let Some((id, topics)) = self.groups.get_key_value(group.as_bytes()) else {
            return Vec::new();
        };
        let mut records = Vec::new();
        for (topic, partitions) in topics {
            for (partition, _) in partitions.iter().filter(|(_, offset)| chosen(offset)) {
                records.push(OffsetRecord {
                    group: id.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                    value: None,
                });
            }
        }
        records
    }

    /// Tombstones for the offsets of all groups that are of no living topic. `living` is the identity of the topic of
    /// this name; what does not say which topic it was committed for is taken to be of that one.
    pub(crate) fn orphan_tombstones(&self, living: impl Fn(&str) -> Option<Uuid>) -> Vec<OffsetRecord> {
        let mut records = Vec::new();
        for (group, topics) in &self.groups {
            for (topic, partitions) in topics {
                let living = living(topic);
                let orphans = partitions.iter().filter(|(_, offset)| match living {
                    Some(id) => offset.topic_id.is_some_and(|of| of != id),
                    None => true,
                });
                records.extend(orphans.map(|(partition, _)| OffsetRecord {
                    group: group.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                    value: None,
                }));
            }
        }
        records
    }

    /// Tombstones for the offsets of all groups for these topics.
    pub(crate) fn topic_tombstones(&self, names: &[&str]) -> Vec<OffsetRecord> {
        let mut records = Vec::new();
        for (group, topics) in &self.groups {
            for name in names {
                let Some((topic, partitions)) = topics.get_key_value(name.as_bytes()) else {
                    continue;
                };
                records.extend(partitions.keys().map(|partition| OffsetRecord {
                    group: group.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                    value: None,
                }));
            }
        }
        records
    }
}
