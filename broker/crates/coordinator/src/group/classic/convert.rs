//! The way into a consumer group, and back (KIP-848).

use bytes::Bytes;
use takhin_protocol::messages::StrBytes;

use super::members::{Declared, Member};
use super::{Classic, State};
use crate::group::Effects;

/// A member with all that a group of the other kind needs of it.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(crate) member_id: StrBytes,
    pub(crate) group_instance_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) client_host: StrBytes,
    /// In milliseconds.
    pub(crate) rebalance_timeout: i32,
    /// In milliseconds.
    pub(crate) session_timeout: i32,
    pub(crate) protocols: Vec<(StrBytes, Bytes)>,
    /// Metadata for the group's protocol, or for the member's first if the group has not chosen one.
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

impl Classic {
    /// Whether it is a group of consumers, whose metadata the coordinator can read.
    pub(crate) fn is_of_consumers(&self) -> bool {
        self.is_consumer()
    }

    /// Number of members.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The generation and its members.
    pub(crate) fn embedded(&self) -> (i32, Vec<Embedded>) {
        let members = self.members.iter().map(|(id, member)| {
            let declared = &member.declared;
            let first = declared.protocols.first().map(|(_, metadata)| metadata.clone());
            let chosen = declared
                .protocols
                .iter()
                .find(|(name, _)| Some(name) == self.protocol.as_ref());
            Embedded {
                member_id: id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout: declared.rebalance_timeout,
                session_timeout: declared.session_timeout,
                protocols: declared.protocols.clone(),
                subscription: chosen
                    .map(|(_, metadata)| metadata.clone())
                    .or(first)
                    .unwrap_or_default(),
                assignment: member.assignment.clone(),
            }
        });
        (self.generation, members.collect())
    }

    /// A stable group of these members. `since` is wall time in milliseconds.
    pub(crate) fn from_embedded(
        id: StrBytes,
        protocol_type: StrBytes,
        (generation, since): (i32, i64),
        members: Vec<Embedded>,
    ) -> Self {
        let mut group = Self::new(id, since);
        group.state = State::Stable;
        group.generation = generation;
        group.protocol_type = Some(protocol_type);
        for member in members {
            let declared = Declared {
                rebalance_timeout: member.rebalance_timeout,
                session_timeout: member.session_timeout,
                protocols: member.protocols,
            };
            let restored = Member::converted(
                (member.client_id, member.client_host),
                member.group_instance_id,
                declared,
                member.assignment,
            );
            group.members.insert(member.member_id, restored);
        }
        group.leader = group.members.first_id().cloned();
        group.protocol = group.members.select_protocol(group.leader.as_ref());
        group
    }

    /// Writes the group down, begins the sessions of its members, and calls them to a rebalance.
    pub(crate) fn begin(&mut self, effects: &mut Effects<'_>) {
        effects.record(self.snapshot());
        self.loaded(effects);
        if self.state == State::Stable {
            self.prepare_rebalance(effects);
        }
    }
}
