//! A classic group: its members synchronize through two barriers, and one of them assigns the work.
//!
//! ```text
//!            first join                 all joined, or time is up
//!   Empty ---------------> Preparing ----------------------------> Completing --- leader's SyncGroup ---> Stable
//!     ^                     ^    |                                    |                                    |
//!     |     nobody joined   |    |                                    | join, leave, expiry                |
//!     +---------------------|----+                                    |                                    |
//!                           +-----------------------------------------+------------------------------------+
//! ```
//!
//! Dead is no state here: a deleted group is gone at once, and is described as Dead because it is missing.
//!
//! The machine changes in memory, and what it writes is a snapshot of itself: when an assignment arrives, when a static
//! member is replaced, when the group becomes empty. A new leader begins from the last of them, so a rebalance under way
//! is lost and its members, whose requests were answered NOT_COORDINATOR, begin another. Rules without a source beside
//! them are those of Kafka's `GroupMetadataManager` and `ClassicGroup`.

mod convert;
mod describe;
mod join;
mod leave;
mod members;
mod rebalance;
pub(crate) mod replies;
mod session;
mod subscription;
mod sync;

use std::collections::BTreeSet;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::StrBytes;

pub(crate) use self::convert::Embedded;
pub(crate) use self::leave::left_response;
use self::members::{MEMBER_OVERHEAD, Member, Members};
use self::rebalance::InitialRebalance;
use crate::group::{Committer, Effects};
use crate::outcome::{Reply, Ticket};
use crate::records::{ClassicRecord, CommittedOffset, GroupMetadata, MemberMetadata, Record};

/// Protocol type of consumers, whose metadata the coordinator can read.
const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// A classic group.
#[derive(Debug)]
pub(crate) struct Classic {
    id: StrBytes,
    state: State,
    /// Wall time in milliseconds; -1 if unknown.
    state_since: i64,
    generation: i32,
    /// `None` until a member has joined: a group that only commits offsets.
    protocol_type: Option<StrBytes>,
    protocol: Option<StrBytes>,
    leader: Option<StrBytes>,
    members: Members,
    /// Member ids that were given out and have not joined yet (KIP-394). They hold the join barrier open.
    pending: BTreeSet<StrBytes>,
    pending_bytes: usize,
    /// Members that have not asked for the assignment of this generation.
    pending_sync: BTreeSet<StrBytes>,
    /// Present during the first rebalance of an empty group.
    initial: Option<InitialRebalance>,
}

impl Classic {
    /// An empty group. `since` is wall time in milliseconds, -1 if unknown.
    pub(crate) fn new(id: StrBytes, since: i64) -> Self {
        Self {
            id,
            state: State::Empty,
            state_since: since,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Members::default(),
            pending: BTreeSet::new(),
            pending_bytes: 0,
            pending_sync: BTreeSet::new(),
            initial: None,
        }
    }

    /// A group as the log knows it.
    pub(crate) fn restore(id: StrBytes, record: &GroupMetadata) -> Self {
        let mut group = Self::new(id, record.current_state_timestamp);
        group.generation = record.generation;
        group.protocol_type = Some(record.protocol_type.clone()).filter(|name| !name.is_empty());
        group.protocol = record.protocol.clone();
        group.leader = record.leader.clone();
        if !record.members.is_empty() {
            group.state = State::Stable;
        }
        let protocol = record.protocol.clone().unwrap_or_default();
        for member in &record.members {
            group
                .members
                .insert(member.member_id.clone(), Member::restore(member, &protocol));
        }
        group
    }

    /// The group as the log is to know it.
    pub(crate) fn snapshot(&self) -> Record {
        let members = self.members.iter().map(|(id, member)| MemberMetadata {
            member_id: id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.declared.rebalance_timeout,
            session_timeout: member.declared.session_timeout,
            subscription: member.metadata(self.protocol.as_ref()),
            assignment: member.assignment.clone(),
        });
        let value = GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since,
            members: members.collect(),
        };
        Record::Classic(ClassicRecord {
            group: self.id.clone(),
            value: Some(value),
        })
    }

    /// What is written when a request has made the group: that it exists. The request's member is not part of it.
    pub(crate) fn creation_record(&self) -> Record {
        let value = GroupMetadata {
            current_state_timestamp: self.state_since,
            ..GroupMetadata::default()
        };
        Record::Classic(ClassicRecord {
            group: self.id.clone(),
            value: Some(value),
        })
    }

    pub(crate) fn id(&self) -> &StrBytes {
        &self.id
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// Whether the group has no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    /// Whether nobody would miss it: it has neither members nor member ids that were given out.
    pub(crate) fn is_vacant(&self) -> bool {
        self.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn state_name(&self) -> &'static str {
        self.state.name()
    }

    pub(crate) fn protocol_type(&self) -> Option<&StrBytes> {
        self.protocol_type.as_ref()
    }

    fn is_leader(&self, member_id: &StrBytes) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    fn transition(&mut self, effects: &Effects<'_>, state: State) {
        self.state = state;
        self.state_since = effects.now.wall_ms;
    }

    /// What members and given out member ids take in memory, in bytes.
    fn bytes(&self) -> usize {
        self.members.bytes() + self.pending_bytes
    }

    fn add_pending(&mut self, member_id: StrBytes) {
        self.pending_bytes += MEMBER_OVERHEAD + member_id.len();
        self.pending.insert(member_id);
    }

    fn remove_pending(&mut self, member_id: &StrBytes) -> bool {
        let removed = self.pending.remove(member_id);
        if removed {
            self.pending_bytes -= MEMBER_OVERHEAD + member_id.len();
        }
        removed
    }

    /// Checks that the member is known and, if it is static, the one that has the instance id (KIP-345).
    fn validate_member(
        &self,
        member_id: &StrBytes,
        group_instance_id: Option<&StrBytes>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance) = group_instance_id {
            match self.members.static_id(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(owner) if owner != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains(member_id) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    pub(crate) fn validate_commit(&self, committer: Committer<'_>) -> Result<(), ErrorCode> {
        let Committer {
            member_id,
            group_instance_id,
            generation_or_epoch: generation,
            version: _,
        } = committer;
        if generation < 0 && self.is_empty() {
            // A tool, or a consumer that assigns its partitions itself.
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && group_instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.validate_member(member_id, group_instance_id)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.state {
            State::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub(crate) fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        if self.is_empty() || self.is_consumer() {
            Ok(())
        } else {
            Err(ErrorCode::NonEmptyGroup)
        }
    }

    pub(crate) fn retention_base(&self, offset: &CommittedOffset) -> Option<i64> {
        let from_commit = Some(offset.commit_timestamp);
        if self.protocol_type.is_none() {
            return from_commit;
        }
        match self.state {
            State::Empty if self.state_since < 0 => from_commit,
            State::Empty => Some(self.state_since),
            State::Stable if self.is_consumer() => from_commit,
            _ => None,
        }
    }

    pub(crate) fn drop_waiting(&mut self, code: ErrorCode) -> Vec<(Ticket, Reply)> {
        let mut replies = Vec::new();
        for id in self.members.ids() {
            if let Some(wait) = self.members.take_join(&id) {
                replies.push((wait.ticket, replies::join_error(wait.version, &id, code)));
            }
            if let Some(wait) = self.members.take_sync(&id) {
                replies.push((wait.ticket, replies::sync_error(code)));
            }
        }
        replies
    }
}
