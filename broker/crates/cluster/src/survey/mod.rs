//! The cluster as one broker sees it at one moment, and what is to be thought of it: is it healthy, how far is a broker
//! drained, may it be stopped?
//!
//! ```text
//! image ─────────────┐
//! words of leaders ──┤
//! silence of brokers ┼─▶ Survey ─▶ health / drain / restart_safety ─▶ Findings
//! their reports ─────┘
//! ```
//!
//! Everything here decides by value; `cluster/survey.rs` gathers. What is not known counts against stopping a broker.

mod decommission;
mod drain;
mod findings;
mod health;
mod restart;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use decommission::DecommissionProgress;
pub use drain::DrainProgress;
pub use findings::{Concern, ConcernKind, Findings};
pub(crate) use health::{is_skewed, skew};
pub use restart::RestartSafety;

use crate::leaders::Leadership;
use crate::metadata::{Image, TopicInfo};
use crate::partition::PartitionId;

/// Silence after which a broker is taken for gone.
const SILENT: Duration = Duration::from_secs(2);

/// By how much wall clocks may differ. Nothing that is decided depends on them, but what is told and deleted by age does.
const MAX_SKEW: Duration = Duration::from_secs(60);

/// What a broker says of itself when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BrokerReport {
    /// Release that it runs.
    pub version: String,
    /// Whether it has not yet begun to open its partitions.
    pub is_starting: bool,
    /// Partitions with a replica there that is not open, or whose storage is offline.
    pub closed: usize,
    /// Bytes of the logs of its partitions.
    #[serde(default)]
    pub log_bytes: u64,
    /// Its data directory's file system; `None` if that cannot be read.
    pub disk: Option<DiskReport>,
    /// Its wall clock, milliseconds since 1970. Brokers of earlier builds do not say.
    #[serde(default)]
    pub clock_ms: Option<i64>,
    /// By how many milliseconds that is ahead of the clock of the broker that asked, to a second; noted by that one.
    #[serde(skip)]
    pub ahead_ms: Option<i64>,
    /// Of the partitions that it leads, those with replicas that lack more than what is under way, and the brokers of
    /// these replicas. The metadata's group has the topic id 1.
    pub(crate) behind: Vec<(Uuid, i32, Vec<i32>)>,
    /// Whether there are more than `behind` tells.
    pub(crate) has_more_behind: bool,
}

/// The file system of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Its size in bytes.
    pub total: u64,
    /// Bytes that are free.
    pub free: u64,
    /// `storage.min_free_space` in bytes.
    pub floor: u64,
    /// Whether records are refused because less than that is free, or was until lately.
    pub is_full: bool,
}

/// The cluster as one broker sees it at one moment.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The metadata.
    pub image: Arc<Image>,
    /// Broker id of the controller; -1 if there is none.
    pub controller: i32,
    /// What the brokers that answered say of themselves.
    pub reports: BTreeMap<i32, BrokerReport>,
    /// Voters of the metadata group; empty if they are not known.
    pub(crate) voters: BTreeSet<i32>,
    pub(crate) metadata: PartitionId,
    /// What leaders say, with the word of the metadata's.
    pub(crate) words: BTreeMap<PartitionId, Leadership>,
    /// How long each registered broker has been silent; zero for the one that looks.
    pub(crate) silence: BTreeMap<i32, Duration>,
}

/// A partition of the survey.
pub(crate) struct Seen<'a> {
    pub(crate) topic: &'a Arc<TopicInfo>,
    pub(crate) index: i32,
    pub(crate) id: PartitionId,
    /// All that have a replica, those that are being added and removed included.
    pub(crate) replicas: &'a [i32],
    /// How many replicas it has when nothing is being added or removed.
    pub(crate) factor: usize,
    pub(crate) is_moving: bool,
    /// The leader that is there.
    pub(crate) leader: Option<i32>,
    /// The replicas that the last leader called in sync and whose brokers are there.
    pub(crate) in_sync: Vec<i32>,
}

impl Seen<'_> {
    /// A majority of its replicas.
    pub(crate) fn majority(&self) -> usize {
        self.factor / 2 + 1
    }

    /// How many replicas a write needs.
    pub(crate) fn needed(&self) -> usize {
        self.majority()
            .max(usize::from(self.topic.config.min_insync_replicas))
    }
}

/// What a broker carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Replicas that are placed on it.
    pub replicas: usize,
    /// Partitions that it leads.
    pub leaders: usize,
}

impl Survey {
    /// How long a registered broker has been silent, if that is long enough to take it for gone.
    pub fn silent_for(&self, broker: i32) -> Option<Duration> {
        let silence = self.silence.get(&broker).copied().unwrap_or(Duration::MAX);
        (silence >= SILENT).then_some(silence)
    }

    /// What each registered broker carries.
    pub fn loads(&self) -> BTreeMap<i32, Load> {
        let brokers = self.image.brokers.keys();
        let mut loads: BTreeMap<i32, Load> = brokers.map(|id| (*id, Load::default())).collect();
        for seen in self.partitions() {
            for replica in seen.replicas {
                if let Some(load) = loads.get_mut(replica) {
                    load.replicas += 1;
                }
            }
            if let Some(load) = seen.leader.and_then(|leader| loads.get_mut(&leader)) {
                load.leaders += 1;
            }
        }
        loads
    }

    fn is_there(&self, broker: i32) -> bool {
        self.silent_for(broker).is_none()
    }

    fn partitions(&self) -> impl Iterator<Item = Seen<'_>> {
        self.image.topics.values().flat_map(move |topic| {
            let partitions = (0..).zip(&topic.partitions);
            partitions.map(move |(index, placement)| {
                let id = PartitionId {
                    topic_id: topic.id,
                    index,
                };
                let word = self.words.get(&id);
                let leader = word.map(|word| word.leader).filter(|leader| *leader >= 0);
                let in_sync = word.map_or(&[][..], |word| &word.in_sync);
                let there = in_sync.iter().filter(|broker| self.is_there(**broker));
                Seen {
                    topic,
                    index,
                    id,
                    replicas: &placement.replicas,
                    factor: placement.replication_factor(),
                    is_moving: placement.reassignment.is_some(),
                    leader: leader.filter(|leader| self.is_there(*leader)),
                    in_sync: there.copied().collect(),
                }
            })
        })
    }

    /// Voters of the metadata group that are there.
    fn voters_there(&self) -> usize {
        self.voters.iter().filter(|voter| self.is_there(**voter)).count()
    }
}
