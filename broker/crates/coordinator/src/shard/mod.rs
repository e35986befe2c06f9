//! One partition of `__consumer_offsets` as a state machine.

mod admin;
mod census;
mod classic;
mod consumer;
mod expiry;
mod offsets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::StrBytes;

pub use self::census::GroupView;
use self::expiry::Cleanup;
use crate::config::GroupConfig;
use crate::group::{Classic, Effects, Group};
use crate::offsets::Offsets;
use crate::outcome::{Context, Now, Outcome, Reply, Ticket};
use crate::records::Record;
use crate::timers::Timers;

/// Longest group id, in bytes: the key of its records has a 16-bit length.
const MAX_GROUP_ID_BYTES: usize = i16::MAX as usize;

/// One partition of `__consumer_offsets` as a state machine.
///
/// Its life: [`Shard::new`], [`Shard::replay`] of the log, [`Shard::loaded`] once, then handlers and
/// [`Shard::expire`] in any order; at the end [`Shard::drop_waiting`]. All calls are synchronous, and their records are
/// appended in the order of the calls. Who calls arms one timer, for [`Shard::next_deadline`].
///
/// A handler checks what belongs to the coordinator. Authorization, and whether this broker owns the group, are checked
/// before. A request that cannot be answered yet has its reply in the outcome of a later call.
///
/// Bounds are in [`GroupConfig`].
#[derive(Debug)]
pub struct Shard {
    config: GroupConfig,
    groups: BTreeMap<StrBytes, Group>,
    offsets: Offsets,
    timers: Timers,
    /// Offsets committed since loading, by group; for metrics.
    commits: BTreeMap<StrBytes, u64>,
    /// Set when the shard is loaded.
    cleanup: Option<Cleanup>,
}

impl Shard {
    /// A shard with nothing in it.
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config,
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
            timers: Timers::default(),
            commits: BTreeMap::new(),
            cleanup: None,
        }
    }

    /// Takes other settings. Timers that run keep their deadlines: what is set for members holds from their next request
    /// on.
    pub fn configure(&mut self, config: GroupConfig) {
        self.config = config;
    }

    /// Applies a record of the log, in the log's order and before [`Self::loaded`].
    pub fn replay(&mut self, record: &Record) {
        match record {
            Record::Offset(record) => {
                self.offsets.apply(record);
                if record.value.is_some() && !self.groups.contains_key(&record.group) {
                    let group = Classic::new(record.group.clone(), -1);
                    self.groups.insert(record.group.clone(), Group::Classic(group));
                }
            }
            Record::Classic(record) => match &record.value {
                Some(value) => {
                    let group = Classic::restore(record.group.clone(), value);
                    self.groups.insert(record.group.clone(), Group::Classic(group));
                }
                None => self.remove_group(&record.group),
            },
            Record::Consumer(record) => self.replay_consumer(record),
        }
    }

    fn remove_group(&mut self, id: &StrBytes) {
        self.groups.remove(id);
        self.commits.remove(id);
        self.timers.cancel_group(id);
    }

    /// The log was replayed to its end and this broker leads: sessions of members begin now.
    pub fn loaded(&mut self, now: Now) {
        self.cleanup = Some(Cleanup::first(now, &self.config));
        let mut outcome = Outcome::default();
        let mut effects = Effects {
            now,
            config: &self.config,
            timers: &mut self.timers,
            outcome: &mut outcome,
        };
        for group in self.groups.values_mut() {
            group.loaded(&mut effects);
        }
        debug_assert_eq!(
            outcome,
            Outcome::default(),
            "nobody waits yet, so nothing can be decided"
        );
    }

    /// When [`Self::expire`] is to be called, by the monotonic clock. Every call can change it, and it may be past: then
    /// at once. `None` before [`Self::loaded`].
    pub fn next_deadline(&self) -> Option<Duration> {
        let cleanup = self.cleanup.as_ref()?.due();
        Some(self.timers.next().map_or(cleanup, |timer| timer.min(cleanup)))
    }

    /// This broker has lost the shard: answers all requests that wait with NOT_COORDINATOR. The shard is to be dropped.
    pub fn drop_waiting(&mut self) -> Vec<(Ticket, Reply)> {
        let groups = self.groups.values_mut();
        groups
            .flat_map(|group| group.drop_waiting(ErrorCode::NotCoordinator))
            .collect()
    }

    /// Puts deletions into outcomes of one batch each, and applies them.
    fn in_batches(&mut self, records: Vec<Record>) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::default()];
        let mut bytes = 0;
        for record in records {
            self.replay(&record);
            bytes += record.size();
            if bytes > self.config.max_batch_bytes {
                bytes = record.size();
                outcomes.push(Outcome::default());
            }
            if let Some(last) = outcomes.last_mut() {
                last.records.push(record);
            }
        }
        outcomes
    }

    /// Applies records that fit one batch. Returns whether they do; if not, nothing has happened.
    fn apply(&mut self, outcome: &mut Outcome, records: Vec<Record>) -> bool {
        if records.iter().map(Record::size).sum::<usize>() > self.config.max_batch_bytes {
            return false;
        }
        for record in &records {
            self.replay(record);
        }
        outcome.records.extend(records);
        true
    }
}

/// The outcome of a request that is answered at once and changes nothing.
fn answer(cx: &Context<'_>, reply: Reply) -> Outcome {
    Outcome {
        records: Vec::new(),
        replies: vec![(cx.ticket, reply)],
    }
}

/// Checks the id of a group that a request may make. Old clients commit with an empty one, so that is checked elsewhere.
fn check_group_id_length(id: &str) -> Result<(), ErrorCode> {
    if id.len() > MAX_GROUP_ID_BYTES {
        Err(ErrorCode::InvalidGroupId)
    } else {
        Ok(())
    }
}

/// Checks the group id of a request of a member.
fn check_group_id(id: &str) -> Result<(), ErrorCode> {
    if id.is_empty() {
        Err(ErrorCode::InvalidGroupId)
    } else {
        check_group_id_length(id)
    }
}
