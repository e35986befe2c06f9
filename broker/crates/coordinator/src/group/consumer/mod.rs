//! A consumer group (KIP-848): the coordinator assigns, and each member is led to its assignment by its heartbeats.
//!
//! Three epochs follow one another. The *group epoch* rises when members, subscriptions or topics change. A *target
//! assignment* is then made for it. Each member is *reconciled* with the target: it first gives up what is no longer its
//! own and says so, then its *member epoch* rises, and it gets what is free. What another member has not given up is free
//! later, so that no partition has two owners.
//!
//! ```text
//!   Empty --- join ---> Assigning --- target made ---> Reconciling --- all members have it ---> Stable
//!     ^                     ^                                                                     |
//!     | last one leaves     +--------- members, subscriptions or topics change -------------------+
//! ```
//!
//! All that lasts is changed by [`Consumer::replay`] alone: a handler that decides on a record replays it at once, and a
//! new leader replays the log. Sessions and the topics' version are not kept and begin anew with a leader. Rules without
//! a source beside them are those of Kafka's `GroupMetadataManager`.

mod admit;
mod classic;
mod convert;
mod describe;
mod embedded;
mod heartbeat;
mod leave;
mod offsets;
mod reconcile;
mod regex;
mod request;
mod target;

use std::collections::BTreeMap;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::StrBytes;
use uuid::Uuid;

pub(crate) use self::request::validate as validate_request;
use crate::group::Effects;
use crate::records::{
    ConsumerMember, ConsumerRecord, CurrentAssignment, MemberState, Partitions, Record, ResolvedRegex,
};
use crate::timers::Timer;

/// The member epoch of a request that joins.
pub(crate) const JOIN_EPOCH: i32 = 0;
/// The member epoch of one that leaves.
const LEAVE_EPOCH: i32 = -1;
/// The member epoch of a static member that leaves for a while, in requests and in the log.
const LEAVE_STATIC_EPOCH: i32 = -2;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    metadata: ConsumerMember,
    current: CurrentAssignment,
}

impl Member {
    fn new() -> Self {
        Self {
            metadata: ConsumerMember {
                rebalance_timeout_ms: -1,
                ..ConsumerMember::default()
            },
            current: CurrentAssignment {
                epoch: 0,
                previous_epoch: -1,
                state: MemberState::Stable,
                assigned: Partitions::new(),
                revoking: Partitions::new(),
            },
        }
    }

    fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.current.state == MemberState::Stable && self.current.epoch == target_epoch
    }

    /// Its regular expression, if it has one; the empty one matches nothing.
    fn regex(&self) -> Option<&str> {
        self.metadata.regex.as_deref().filter(|regex| !regex.is_empty())
    }
}

/// A consumer group.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    id: StrBytes,
    epoch: i32,
    /// Hash of the topics as they were when the epoch was last decided.
    metadata_hash: i64,
    target_epoch: i32,
    target: BTreeMap<String, Partitions>,
    members: BTreeMap<String, Member>,
    /// Member ids by instance id.
    instances: BTreeMap<String, String>,
    /// Who has each partition, or still has to give it up.
    owners: BTreeMap<(Uuid, i32), String>,
    regexes: BTreeMap<String, ResolvedRegex>,
    /// Kafka 4.0 wrote a record that is to be deleted.
    has_partition_metadata: bool,
    /// Version of the topics that `metadata_hash` and `regexes` were last checked against. Not in the log.
    checked: Option<u64>,
}

impl Consumer {
    /// A group without members.
    pub(crate) fn new(id: StrBytes) -> Self {
        Self {
            id,
            epoch: 0,
            metadata_hash: 0,
            target_epoch: 0,
            target: BTreeMap::new(),
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            owners: BTreeMap::new(),
            regexes: BTreeMap::new(),
            has_partition_metadata: false,
            checked: None,
        }
    }

    /// The group epoch.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Number of members.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Kafka's name of the state.
    pub(crate) fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self
            .members
            .values()
            .all(|member| member.is_reconciled_to(self.target_epoch))
        {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Whether a member subscribes to the topic, by name or by regular expression.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.members.values().any(|member| {
            member.metadata.topics.contains(topic)
                || member
                    .regex()
                    .and_then(|regex| self.regexes.get(regex))
                    .is_some_and(|resolved| resolved.topics.contains(topic))
        })
    }

    fn key(&self) -> String {
        self.id.to_string()
    }

    /// Changes the state by a record, and appends it to the outcome.
    fn write(&mut self, effects: &mut Effects<'_>, record: ConsumerRecord) {
        self.replay(&record);
        effects.record(Record::Consumer(record));
    }

    fn write_epoch(&mut self, effects: &mut Effects<'_>, epoch: i32, metadata_hash: i64) {
        let group_id = self.key();
        if self.has_partition_metadata {
            let record = ConsumerRecord::PartitionMetadata {
                group_id: group_id.clone(),
                value: None,
            };
            self.write(effects, record);
        }
        let value = Some(crate::records::GroupEpoch { epoch, metadata_hash });
        self.write(effects, ConsumerRecord::Group { group_id, value });
    }

    /// The epoch after this one. Kafka's overflows after 2^31 rebalances; ours stays.
    fn next_epoch(&self) -> i32 {
        self.epoch.saturating_add(1)
    }

    /// Changes the state by a record of this group. The tombstone of the group itself is its owner's affair.
    ///
    /// A log that is being compacted may show a partition with two members on the way; the later record wins, and the end
    /// is the same as before compaction.
    pub(crate) fn replay(&mut self, record: &ConsumerRecord) {
        match record {
            ConsumerRecord::Group { value, .. } => {
                if let Some(value) = value {
                    self.epoch = value.epoch;
                    self.metadata_hash = value.metadata_hash;
                }
            }
            ConsumerRecord::PartitionMetadata { value, .. } => {
                self.has_partition_metadata = value.is_some();
            }
            ConsumerRecord::Member { member_id, value, .. } => {
                self.replay_member(member_id, value.as_ref());
            }
            ConsumerRecord::TargetEpoch { value, .. } => self.target_epoch = value.unwrap_or(-1),
            ConsumerRecord::Target { member_id, value, .. } => {
                match value {
                    Some(value) => self.target.insert(member_id.clone(), value.clone()),
                    None => self.target.remove(member_id),
                };
            }
            ConsumerRecord::Current { member_id, value, .. } => {
                self.replay_current(member_id, value.as_ref());
            }
            ConsumerRecord::Regex { regex, value, .. } => {
                match value {
                    Some(value) => self.regexes.insert(regex.clone(), value.clone()),
                    None => self.regexes.remove(regex),
                };
            }
        }
    }

    fn replay_member(&mut self, id: &str, value: Option<&ConsumerMember>) {
        let old = self.members.get(id);
        if let Some(instance) = old.and_then(|old| old.metadata.instance_id.as_ref())
            && self.instances.get(instance).is_some_and(|owner| owner == id)
        {
            self.instances.remove(instance);
        }
        let Some(value) = value else {
            self.replay_current(id, None);
            self.members.remove(id);
            return;
        };
        if let Some(instance) = &value.instance_id {
            self.instances.insert(instance.clone(), id.to_owned());
        }
        let member = self.members.entry(id.to_owned()).or_insert_with(Member::new);
        member.metadata = value.clone();
    }

    fn replay_current(&mut self, id: &str, value: Option<&CurrentAssignment>) {
        let member = match value {
            Some(_) => self.members.entry(id.to_owned()).or_insert_with(Member::new),
            None => match self.members.get_mut(id) {
                Some(member) => member,
                None => return,
            },
        };
        for slot in slots(&member.current.assigned).chain(slots(&member.current.revoking)) {
            if self.owners.get(&slot).is_some_and(|owner| owner == id) {
                self.owners.remove(&slot);
            }
        }
        member.current = match value {
            Some(value) => value.clone(),
            None => CurrentAssignment {
                epoch: LEAVE_EPOCH,
                previous_epoch: LEAVE_EPOCH,
                ..Member::new().current
            },
        };
        for slot in slots(&member.current.assigned).chain(slots(&member.current.revoking)) {
            self.owners.insert(slot, id.to_owned());
        }
    }

    /// The records that delete the group, in Kafka's order.
    pub(crate) fn tombstones(&self) -> Vec<Record> {
        let group_id = || self.key();
        let current = self.members.keys().map(|member_id| ConsumerRecord::Current {
            group_id: group_id(),
            member_id: member_id.clone(),
            value: None,
        });
        let target = self.target.keys().map(|member_id| ConsumerRecord::Target {
            group_id: group_id(),
            member_id: member_id.clone(),
            value: None,
        });
        let members = self.members.keys().map(|member_id| ConsumerRecord::Member {
            group_id: group_id(),
            member_id: member_id.clone(),
            value: None,
        });
        let regexes = self.regexes.keys().map(|regex| ConsumerRecord::Regex {
            group_id: group_id(),
            regex: regex.clone(),
            value: None,
        });
        let target_epoch = ConsumerRecord::TargetEpoch {
            group_id: group_id(),
            value: None,
        };
        let topics = self
            .has_partition_metadata
            .then(|| ConsumerRecord::PartitionMetadata {
                group_id: group_id(),
                value: None,
            });
        let group = ConsumerRecord::Group {
            group_id: group_id(),
            value: None,
        };
        current
            .chain(target)
            .chain([target_epoch])
            .chain(members)
            .chain(regexes)
            .chain(topics)
            .chain([group])
            .map(Record::Consumer)
            .collect()
    }

    /// Sessions of a group that was read from the log begin now.
    pub(crate) fn loaded(&mut self, effects: &mut Effects<'_>) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.keep_alive(effects, &id);
            self.arm_revocation(effects, &id);
        }
    }

    /// Begins the member's session anew.
    fn keep_alive(&self, effects: &mut Effects<'_>, id: &str) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let timeout = match &member.metadata.classic {
            Some(classic) => crate::group::millis(classic.session_timeout_ms),
            None => effects.config.consumer_session_timeout(&self.id),
        };
        effects.arm(&self.id, Timer::Session(crate::group::own(id)), timeout);
    }

    /// Gives a member its rebalance timeout if one of the outcome's records from `first` on has told it to give up
    /// partitions. Members of the classic protocol have other timers.
    fn arm_rebalance(&self, effects: &mut Effects<'_>, first: usize, id: &str) {
        let stepped = effects.outcome.records.iter().skip(first).any(|record| {
            matches!(record, Record::Consumer(ConsumerRecord::Current { member_id, value: Some(_), .. })
                if member_id == id)
        });
        if stepped {
            self.arm_revocation(effects, id);
        }
    }

    fn arm_revocation(&self, effects: &mut Effects<'_>, id: &str) {
        let timer = Timer::Revocation(crate::group::own(id));
        match self.members.get(id) {
            Some(member)
                if member.current.state == MemberState::UnrevokedPartitions
                    && member.metadata.classic.is_none() =>
            {
                let timeout = crate::group::millis(member.metadata.rebalance_timeout_ms);
                effects.arm(&self.id, timer, timeout);
            }
            _ => effects.timers.cancel(&self.id, timer),
        }
    }

    fn cancel_timers(&self, effects: &mut Effects<'_>, id: &str) {
        for timer in [
            Timer::Session,
            Timer::Revocation,
            Timer::MemberJoin,
            Timer::MemberSync,
        ] {
            effects.timers.cancel(&self.id, timer(crate::group::own(id)));
        }
    }
}

/// Partitions one by one.
fn slots(partitions: &Partitions) -> impl Iterator<Item = (Uuid, i32)> + '_ {
    partitions
        .iter()
        .flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
}

/// Partitions from one by one.
fn collect(slots: impl Iterator<Item = (Uuid, i32)>) -> Partitions {
    let mut partitions = Partitions::new();
    for (topic, partition) in slots {
        partitions.entry(topic).or_default().insert(partition);
    }
    partitions
}

#[cfg(test)]
impl Consumer {
    /// Compares what lasts with that of another leader.
    pub(crate) fn assert_same(&self, other: &Self) {
        assert_eq!(
            (self.epoch, self.metadata_hash, self.target_epoch),
            (other.epoch, other.metadata_hash, other.target_epoch)
        );
        assert_eq!(self.members, other.members);
        assert_eq!(self.target, other.target);
        assert_eq!(self.instances, other.instances);
        assert_eq!(self.owners, other.owners);
        assert_eq!(self.regexes, other.regexes);
        assert_eq!(self.has_partition_metadata, other.has_partition_metadata);
    }
}
