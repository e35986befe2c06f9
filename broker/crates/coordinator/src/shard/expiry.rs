//! What happens because time passes: timers of groups, and offsets that nobody needs any more.

use std::ops::Bound;
use std::time::Duration;

use takhin_protocol::messages::StrBytes;

use super::Shard;
use crate::config::GroupConfig;
use crate::group::{Effects, Group};
use crate::outcome::{Now, Outcome};
use crate::records::{CommittedOffset, Record};
use crate::topics::Topics;

/// Groups whose offsets are looked at in one call.
const GROUPS_PER_CALL: usize = 1000;

/// The search for expired offsets. It goes through the groups in steps, so that no call takes long or fills more than a
/// batch.
#[derive(Debug)]
pub(super) struct Cleanup {
    due: Duration,
    /// The last group that was done, within a search.
    after: Option<StrBytes>,
}

impl Cleanup {
    pub(super) fn first(now: Now, config: &GroupConfig) -> Self {
        Self {
            due: now
                .monotonic
                .saturating_add(config.offsets_retention_check_interval),
            after: None,
        }
    }

    /// When the next step is due, by the monotonic clock.
    pub(super) fn due(&self) -> Duration {
        self.due
    }
}

impl Shard {
    /// Handles timers that are due, and expires offsets. Does at most one batch's worth of it: until
    /// [`Self::next_deadline`] lies in the future there is more to do.
    pub fn expire(&mut self, now: Now, topics: &dyn Topics) -> Outcome {
        let mut outcome = Outcome::default();
        self.expire_timers(now, topics, &mut outcome);
        let due = self
            .cleanup
            .as_ref()
            .is_some_and(|cleanup| cleanup.due <= now.monotonic);
        if outcome.records.is_empty() && due {
            self.expire_offsets(now, &mut outcome);
        }
        outcome
    }

    /// A timer writes no more than the record of an empty group or the tombstones of a member, so half a batch leaves
    /// room for the last one. A group that would change its kind does so only if there is room.
    fn expire_timers(&mut self, now: Now, topics: &dyn Topics, outcome: &mut Outcome) {
        let mut bytes = 0;
        while bytes <= self.config.max_batch_bytes / 2 {
            let Some((id, timer)) = self.timers.pop_due(now.monotonic) else {
                return;
            };
            let before = outcome.records.len();
            if let Some(group) = self.groups.get_mut(&id) {
                let mut effects = Effects {
                    now,
                    config: &self.config,
                    timers: &mut self.timers,
                    outcome: &mut *outcome,
                };
                group.expire(&mut effects, timer);
            }
            self.settle(now, topics, &id, outcome);
            bytes += outcome.records[before..].iter().map(Record::size).sum::<usize>();
        }
    }

    /// One step of the search (KIP-211).
    fn expire_offsets(&mut self, now: Now, outcome: &mut Outcome) {
        let after = self.cleanup.as_ref().and_then(|cleanup| cleanup.after.clone());
        let from = after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let ids: Vec<StrBytes> = self
            .groups
            .range((from, Bound::Unbounded))
            .take(GROUPS_PER_CALL)
            .map(|(id, _)| id.clone())
            .collect();
        let mut cleanup = Cleanup {
            due: now.monotonic,
            after,
        };
        let mut room = self.config.max_batch_bytes;
        let mut done = ids.len() < GROUPS_PER_CALL;
        for id in ids {
            let expired = self.expired(&id, now.wall_ms);
            let fitting = expired.iter().scan(room, |room, record| {
                *room = room.checked_sub(record.size())?;
                Some(*room)
            });
            let fitting: Vec<usize> = fitting.collect();
            room = fitting.last().copied().unwrap_or(room);
            let whole = fitting.len() == expired.len();
            let mut records = expired;
            records.truncate(fitting.len());
            self.apply(outcome, records);
            if !whole {
                done = false;
                break;
            }
            cleanup.after = Some(id);
        }
        if done {
            cleanup = Cleanup::first(now, &self.config);
        }
        self.cleanup = Some(cleanup);
    }

    /// Tombstones for the expired offsets of a group, and for the group if it has nothing left.
    fn expired(&self, id: &StrBytes, wall_ms: i64) -> Vec<Record> {
        let Some(group) = self.groups.get(id) else {
            return Vec::new();
        };
        let held = self
            .offsets
            .of_group(id)
            .map_or(0, |topics| topics.values().map(|topic| topic.len()).sum());
        let mut offsets = self
            .offsets
            .tombstones(id, |offset| self.is_old(group, offset, wall_ms));
        // Whether a topic is read is found out once for all its partitions.
        let mut last: Option<(StrBytes, bool)> = None;
        offsets.retain(|record| match &last {
            Some((topic, unread)) if *topic == record.topic => *unread,
            _ => {
                last.insert((record.topic.clone(), !group.is_subscribed_to(&record.topic)))
                    .1
            }
        });
        let all = offsets.len() == held;
        let mut records: Vec<Record> = offsets.into_iter().map(Record::Offset).collect();
        if all && group.is_deletable() {
            records.extend(group.tombstones());
        }
        records
    }

    fn is_old(&self, group: &Group, offset: &CommittedOffset, wall_ms: i64) -> bool {
        let Some(base) = group.retention_base(offset) else {
            return false;
        };
        let retention = i64::try_from(self.config.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        match offset.expire_timestamp {
            Some(at) => wall_ms >= at,
            None => wall_ms.saturating_sub(base) >= retention,
        }
    }
}
