//! ConsumerGroupDescribe (KIP-848).

use takhin_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};
use takhin_protocol::messages::{GroupId, StrBytes, TopicName};

use super::{Consumer, Member};
use crate::group::own;
use crate::records::Partitions;
use crate::topics::Topics;

/// Kinds of members as version 1 has them.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl Consumer {
    /// The group as tools see it. Partitions of topics that are no more are left out: they have no names.
    pub(crate) fn describe(&self, topics: &dyn Topics) -> DescribedGroup {
        let members = self.members.iter();
        DescribedGroup::default()
            .with_group_id(GroupId(self.id.clone()))
            .with_group_state(StrBytes::from_static_str(self.state_name()))
            .with_group_epoch(self.epoch)
            .with_assignment_epoch(self.target_epoch)
            .with_assignor_name(StrBytes::from_static_str(self.assignor().name()))
            .with_members(
                members
                    .map(|(id, member)| self.describe_member(id, member, topics))
                    .collect(),
            )
    }

    fn describe_member(&self, id: &str, member: &Member, topics: &dyn Topics) -> DescribedMember {
        let metadata = &member.metadata;
        let names = metadata.topics.iter().map(|name| TopicName(own(name)));
        let target = self.target.get(id).map(|target| assignment(target, topics));
        let kind = if metadata.classic.is_some() {
            CLASSIC_MEMBER
        } else {
            CONSUMER_MEMBER
        };
        DescribedMember::default()
            .with_member_id(own(id))
            .with_instance_id(metadata.instance_id.as_deref().map(own))
            .with_rack_id(metadata.rack_id.as_deref().map(own))
            .with_member_epoch(member.current.epoch)
            .with_client_id(own(&metadata.client_id))
            .with_client_host(own(&metadata.client_host))
            .with_subscribed_topic_names(names.collect())
            .with_subscribed_topic_regex(metadata.regex.as_deref().map(own))
            .with_assignment(assignment(&member.current.assigned, topics))
            .with_target_assignment(target.unwrap_or_default())
            .with_member_type(kind)
    }
}

fn assignment(partitions: &Partitions, topics: &dyn Topics) -> Assignment {
    let named = partitions.iter().filter_map(|(id, partitions)| {
        let name = topics.name_of(*id)?;
        let partitions = TopicPartitions::default()
            .with_topic_id(*id)
            .with_topic_name(TopicName(own(name)))
            .with_partitions(partitions.iter().copied().collect());
        Some(partitions)
    });
    Assignment::default().with_topic_partitions(named.collect())
}
