//! Groups that change their kind while members are in them (KIP-848, `group.consumer.migration.policy=bidirectional`).
//!
//! A classic group becomes a consumer group when the first member of the consumer protocol joins, and a classic group
//! again when the last of them has gone. Members keep their ids and what they own.

use takhin_protocol::messages::StrBytes;

use super::Consumer;
use super::embedded::{self, PROTOCOL_TYPE, Subscription};
use crate::group::classic::{Classic, Embedded};
use crate::group::own;
use crate::outcome::Now;
use crate::records::{
    ClassicMetadata, ConsumerMember, ConsumerRecord, CurrentAssignment, GroupEpoch, MemberState, Partitions,
    RecordError,
};
use crate::topics::Topics;

impl Consumer {
    /// The consumer group that a classic group of consumers becomes, and the records that make it so.
    ///
    /// # Errors
    ///
    /// A member's subscription or assignment cannot be read.
    pub(crate) fn from_classic(
        classic: &Classic,
        topics: &dyn Topics,
    ) -> Result<(Self, Vec<ConsumerRecord>), RecordError> {
        let mut group = Self::new(classic.id().clone());
        let (generation, members) = classic.embedded();
        let mut records = Vec::new();
        let mut assignments = Vec::new();
        for member in members {
            let subscription = Subscription::decode(&member.subscription)?;
            let assigned = embedded::by_id(&embedded::decode_assignment(&member.assignment)?, topics);
            assignments.push((member.member_id.to_string(), assigned));
            records.push(ConsumerRecord::Member {
                group_id: group.key(),
                member_id: member.member_id.to_string(),
                value: Some(consumer_member(&member, subscription)),
            });
        }
        let epoch = GroupEpoch {
            epoch: generation,
            metadata_hash: 0,
        };
        records.push(ConsumerRecord::Group {
            group_id: group.key(),
            value: Some(epoch),
        });
        let targets = assignments
            .iter()
            .map(|(member_id, assigned)| ConsumerRecord::Target {
                group_id: group.key(),
                member_id: member_id.clone(),
                value: Some(assigned.clone()),
            });
        records.extend(targets);
        records.push(ConsumerRecord::TargetEpoch {
            group_id: group.key(),
            value: Some(generation),
        });
        let currents = assignments
            .iter()
            .map(|(member_id, assigned)| ConsumerRecord::Current {
                group_id: group.key(),
                member_id: member_id.clone(),
                value: Some(CurrentAssignment {
                    epoch: generation,
                    previous_epoch: generation,
                    state: MemberState::Stable,
                    assigned: assigned.clone(),
                    revoking: Partitions::new(),
                }),
            });
        records.extend(currents);
        for record in &records {
            group.replay(record);
        }
        Ok((group, records))
    }

    /// Whether all members, and there are some, speak the classic protocol.
    pub(crate) fn is_all_classic(&self) -> bool {
        !self.is_empty()
            && self
                .members
                .values()
                .all(|member| member.metadata.classic.is_some())
    }

    /// The classic group that this group becomes when its last member of the consumer protocol has gone. The caller
    /// makes it rebalance.
    ///
    /// Members keep what they have. Kafka gives them the target, of which others may not have given up their part;
    /// that would be two owners for who asks again before the rebalance, after a failover.
    ///
    /// # Errors
    ///
    /// An assignment cannot be written.
    pub(crate) fn to_classic(&self, now: Now, topics: &dyn Topics) -> Result<Classic, RecordError> {
        let mut members = Vec::new();
        for (id, member) in &self.members {
            let Some(classic) = &member.metadata.classic else {
                continue;
            };
            let subscription = classic.protocols.first().map(|(_, metadata)| metadata.as_slice());
            let version = match subscription {
                Some(bytes) => Subscription::decode(bytes)?.version,
                None => 0,
            };
            members.push(Embedded {
                member_id: own(id),
                group_instance_id: member.metadata.instance_id.as_deref().map(own),
                client_id: own(&member.metadata.client_id),
                client_host: own(&member.metadata.client_host),
                rebalance_timeout: member.metadata.rebalance_timeout_ms,
                session_timeout: classic.session_timeout_ms,
                protocols: classic
                    .protocols
                    .iter()
                    .map(|(name, metadata)| (own(name), metadata.clone().into()))
                    .collect(),
                subscription: bytes::Bytes::new(),
                assignment: embedded::encode_assignment(version, &member.current.assigned, topics)?,
            });
        }
        let protocol_type = StrBytes::from_static_str(PROTOCOL_TYPE);
        Ok(Classic::from_embedded(
            self.id.clone(),
            protocol_type,
            (self.epoch, now.wall_ms),
            members,
        ))
    }
}

fn consumer_member(member: &Embedded, subscription: Subscription) -> ConsumerMember {
    let protocols = member.protocols.iter();
    ConsumerMember {
        instance_id: member.group_instance_id.as_ref().map(|id| id.to_string()),
        rack_id: subscription.rack_id,
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        topics: subscription.topics,
        regex: None,
        rebalance_timeout_ms: member.rebalance_timeout,
        assignor: None,
        classic: Some(ClassicMetadata {
            session_timeout_ms: member.session_timeout,
            protocols: protocols
                .map(|(name, metadata)| (name.to_string(), metadata.to_vec()))
                .collect(),
        }),
    }
}
