//! The groups of a shard as metrics show them.

use takhin_protocol::messages::StrBytes;

use super::Shard;
use crate::group::Group;

/// A group as metrics show it.
#[derive(Debug, Clone, Copy)]
pub struct GroupView<'a> {
    shard: &'a Shard,
    id: &'a StrBytes,
    group: &'a Group,
}

impl Shard {
    /// All groups of the shard, in the order of their ids.
    pub fn groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        self.groups.iter().map(|(id, group)| GroupView {
            shard: self,
            id,
            group,
        })
    }
}

impl<'a> GroupView<'a> {
    /// Group id.
    pub fn id(self) -> &'a str {
        self.id
    }

    /// Number of members.
    pub fn members(self) -> usize {
        match self.group {
            Group::Classic(group) => group.len(),
            Group::Consumer(group) => group.len(),
        }
    }

    /// Name of its state as tools print it.
    pub fn state(self) -> &'static str {
        self.group.state_name()
    }

    /// Rebalances in the life of the group: its generation, or its group epoch. A group that was deleted and made again
    /// begins at 0.
    pub fn rebalances(self) -> u64 {
        let count = match self.group {
            Group::Classic(group) => group.generation(),
            Group::Consumer(group) => group.epoch(),
        };
        u64::try_from(count).unwrap_or(0)
    }

    /// Offsets that the shard has decided to commit since it was loaded.
    pub fn commits(self) -> u64 {
        self.shard.commits.get(self.id).copied().unwrap_or(0)
    }

    /// Number of topics that the group has offsets for.
    pub fn topics(self) -> usize {
        self.shard
            .offsets
            .of_group(self.id)
            .map_or(0, |topics| topics.len())
    }

    /// Committed offsets: topic, and its partitions with the offset of the next record to process.
    pub fn offsets(self) -> impl Iterator<Item = (&'a str, impl Iterator<Item = (i32, i64)> + 'a)> + 'a {
        let topics = self.shard.offsets.of_group(self.id).into_iter().flatten();
        topics.map(|(topic, partitions)| {
            let partitions = partitions
                .iter()
                .map(|(partition, committed)| (*partition, committed.offset));
            (topic.as_str(), partitions)
        })
    }
}
