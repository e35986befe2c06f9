//! A group, of whichever kind.

pub(crate) mod classic;
pub(crate) mod consumer;

use std::time::Duration;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::StrBytes;

pub(crate) use self::classic::Classic;
pub(crate) use self::consumer::Consumer;
use crate::config::GroupConfig;
use crate::outcome::{Now, Outcome, Reply, Ticket};
use crate::records::{ClassicRecord, CommittedOffset, Record};
use crate::timers::{Timer, Timers};

/// A group. Its committed offsets are kept apart from it, since they do not depend on its kind.
#[derive(Debug)]
pub(crate) enum Group {
    /// Members synchronize through JoinGroup and SyncGroup, and one of them assigns.
    Classic(Classic),
    /// The coordinator assigns, and members follow by their heartbeats (KIP-848).
    Consumer(Consumer),
}

/// What a commit claims about its sender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committer<'a> {
    pub(crate) member_id: &'a StrBytes,
    pub(crate) group_instance_id: Option<&'a StrBytes>,
    /// The generation of a classic group, the member epoch of a consumer group; negative if it is none.
    pub(crate) generation_or_epoch: i32,
    /// Version of its OffsetCommit.
    pub(crate) version: i16,
}

impl Group {
    /// Whether the group has no members.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    /// Whether the group holds nothing that its deletion would take from anybody; offsets count elsewhere.
    pub(crate) fn is_deletable(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_vacant(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    /// Name of its state as tools print it.
    pub(crate) fn state_name(&self) -> &'static str {
        match self {
            Group::Classic(group) => group.state_name(),
            Group::Consumer(group) => group.state_name(),
        }
    }

    /// Name of its kind as tools print it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Group::Classic(_) => "Classic",
            Group::Consumer(_) => "Consumer",
        }
    }

    /// `consumer`, `connect` and the like; empty for a group that only commits.
    pub(crate) fn protocol_type(&self) -> StrBytes {
        match self {
            Group::Classic(group) => group.protocol_type().cloned().unwrap_or_default(),
            Group::Consumer(_) => StrBytes::from_static_str("consumer"),
        }
    }

    /// Whether a live member reads the topic, as far as the coordinator can know.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed_to(topic),
            Group::Consumer(group) => group.is_subscribed_to(topic),
        }
    }

    /// Since when, in wall time, the retention of this offset counts; `None` while it does not expire (KIP-211).
    pub(crate) fn retention_base(&self, offset: &CommittedOffset) -> Option<i64> {
        match self {
            Group::Classic(group) => group.retention_base(offset),
            // Kafka counts from the commit, and spares what is subscribed.
            Group::Consumer(_) => Some(offset.commit_timestamp),
        }
    }

    /// Checks that the sender may commit offsets.
    pub(crate) fn validate_commit(&self, committer: Committer<'_>) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) => group.validate_commit(committer),
            Group::Consumer(group) => group.validate_commit(
                committer.member_id,
                committer.generation_or_epoch,
                Some(committer.version),
            ),
        }
    }

    /// Checks that the sender may fetch offsets. A classic group asks nothing.
    pub(crate) fn validate_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(_) => Ok(()),
            Group::Consumer(group) => group.validate_fetch(member_id, epoch),
        }
    }

    /// Checks that offsets of the group may be deleted; each topic is asked for with [`Self::is_subscribed_to`].
    pub(crate) fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) => group.validate_offset_delete(),
            Group::Consumer(_) => Ok(()),
        }
    }

    /// The records that delete the group, without those of its offsets.
    pub(crate) fn tombstones(&self) -> Vec<Record> {
        match self {
            Group::Classic(group) => {
                vec![Record::Classic(ClassicRecord {
                    group: group.id().clone(),
                    value: None,
                })]
            }
            Group::Consumer(group) => group.tombstones(),
        }
    }

    /// Starts the timers of a group that was read from the log.
    pub(crate) fn loaded(&mut self, effects: &mut Effects<'_>) {
        match self {
            Group::Classic(group) => group.loaded(effects),
            Group::Consumer(group) => group.loaded(effects),
        }
    }

    /// One of its timers is due.
    pub(crate) fn expire(&mut self, effects: &mut Effects<'_>, timer: Timer) {
        match self {
            Group::Classic(group) => group.expire(effects, timer),
            Group::Consumer(group) => group.expire(effects, timer),
        }
    }

    /// Answers all requests that wait in this group.
    pub(crate) fn drop_waiting(&mut self, code: ErrorCode) -> Vec<(Ticket, Reply)> {
        match self {
            Group::Classic(group) => group.drop_waiting(code),
            // Its requests are answered at once.
            Group::Consumer(_) => Vec::new(),
        }
    }
}

/// What a group reaches beyond itself while it handles a request or a timer.
#[derive(Debug)]
pub(crate) struct Effects<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a GroupConfig,
    pub(crate) timers: &'a mut Timers,
    pub(crate) outcome: &'a mut Outcome,
}

impl Effects<'_> {
    pub(crate) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.outcome.replies.push((ticket, reply));
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.outcome.records.push(record);
    }

    /// Arms a timer `after` this call.
    pub(crate) fn arm(&mut self, group: &StrBytes, timer: Timer, after: Duration) {
        self.timers
            .arm(group, timer, self.now.monotonic.saturating_add(after));
    }
}

/// A copy of a string of a request. What is kept must not hold on to the frame that it came in.
pub(crate) fn own(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A duration of a request in milliseconds; negative is none.
pub(crate) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
