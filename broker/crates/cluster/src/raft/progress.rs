//! How far the replicas of a group have got, as its leader knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft_rt::Instant as _;
use openraft_rt::WatchReceiver as _;
use takhin_runtime::clock::Instant;
use takhin_storage::{Log, SegmentStats};
use uuid::Uuid;

use super::group::{Group, Life};
use super::parking::Parked;
use super::types::Voter;

/// All replicas of a group at one moment, the leader among them.
pub(crate) struct GroupProgress {
    log: Arc<Log>,
    /// Index of the leader's last entry.
    pub(crate) last: u64,
    /// By broker.
    pub(crate) replicas: BTreeMap<u64, ReplicaProgress>,
}

/// One replica.
pub(crate) struct ReplicaProgress {
    pub(crate) directory: Uuid,
    pub(crate) is_voter: bool,
    /// Index of the last entry that it is known to have; `None` before the first answer.
    pub(crate) matched: Option<u64>,
    /// Age of the newest request that it has answered; `None` before the first answer.
    pub(crate) answered: Option<Duration>,
    /// Bytes of a copy of segments that it has been sent and that has not taken its log's place yet.
    pub(crate) copied: u64,
    /// When a look, one each half a second, found last that it lacked nothing.
    pub(crate) caught_up: Option<Instant>,
    /// The same, or since when its leader leads, if that is later; `None` before the first look.
    pub(crate) behind_since: Option<Instant>,
}

impl GroupProgress {
    /// The offset after the entry at `index` of the leader's log; `None` if that has deleted the entry.
    pub(crate) fn end_after(&self, index: u64) -> Option<i64> {
        end_after(&self.log, index)
    }
}

impl GroupProgress {
    /// Bytes of the leader's segments that a replica lacks, which may not be a member yet; those of the segment in which
    /// its log ends in proportion to the entries.
    pub(crate) fn lag_bytes(&self, replica: Option<&ReplicaProgress>) -> u64 {
        let stats = self.log.stats();
        let matched = replica.and_then(|replica| replica.matched);
        let copied = replica.map_or(0, |replica| replica.copied);
        bytes_after(&stats.segments, matched).saturating_sub(copied)
    }
}

/// Bytes of the entries after `index`.
fn bytes_after(segments: &[SegmentStats], index: Option<u64>) -> u64 {
    let next = index.map_or(0, |index| index.saturating_add(1));
    let lacking = segments.iter().map(|segment| {
        let (first, end) = (segment.id.first_index, segment.end.first_index);
        let (entries, lacks) = (end.saturating_sub(first), end.saturating_sub(next.max(first)));
        let share = u128::from(segment.bytes) * u128::from(lacks) / u128::from(entries.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    });
    lacking.sum()
}

/// The offset after the entry at `index`; `None` if the log has deleted the entry.
pub(super) fn end_after(log: &Log, index: u64) -> Option<i64> {
    let end = log.end();
    if end.last.is_some_and(|last| last.index == index) {
        return Some(end.log_end_offset);
    }
    let heads = log.heads(index..index.checked_add(1)?).ok()?;
    heads.first().map(|head| head.next_offset)
}

impl Group {
    /// How far all replicas have got; `None` unless this one leads.
    pub(crate) fn progress(&self) -> Option<GroupProgress> {
        let running = match &*self.life.lock() {
            Life::Running(running) => running.clone(),
            Life::Parked(parked) => return parked.progress(),
            Life::Closed => return None,
        };
        let metrics = running.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (replication, heartbeat) = (metrics.replication.as_ref()?, metrics.heartbeat.as_ref()?);
        let membership = metrics.membership_config.membership();
        let led = self.led.lock();
        let replica = |(node, voter): (&u64, &Voter)| {
            let progress = ReplicaProgress {
                directory: voter.directory,
                is_voter: membership.voter_ids().any(|voter| voter == *node),
                copied: u32::try_from(*node).map_or(0, |node| self.standing.copied(node)),
                matched: replication.get(node).and_then(|id| Some(id.as_ref()?.index)),
                answered: heartbeat.get(node).and_then(|at| Some(at.as_ref()?.elapsed())),
                caught_up: led.as_ref().and_then(|led| led.caught_up(*node)),
                behind_since: led.as_ref().map(|led| led.behind_since(*node)),
            };
            (*node, progress)
        };
        Some(GroupProgress {
            log: running.ground.log,
            last: metrics.last_log_index.unwrap_or(0),
            replicas: membership.nodes().map(replica).collect(),
        })
    }
}

impl Parked {
    /// Everybody has everything. Nobody was asked lately, so that nothing is known of when.
    fn progress(&self) -> Option<GroupProgress> {
        let replica = |(node, voter): (&u64, &Voter)| {
            let progress = ReplicaProgress {
                directory: voter.directory,
                is_voter: true,
                matched: Some(self.last),
                answered: None,
                copied: 0,
                caught_up: None,
                behind_since: None,
            };
            (*node, progress)
        };
        self.leads.then(|| GroupProgress {
            log: Arc::clone(&self.ground.log),
            last: self.last,
            replicas: self.members.nodes.iter().map(replica).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use takhin_storage::SegmentId;

    use super::*;

    #[test]
    fn a_lag_is_counted_in_bytes_of_segments() {
        let at = |first_index| SegmentId {
            base_offset: 0,
            first_index,
        };
        let segment = |first, end, bytes| SegmentStats {
            id: at(first),
            bytes,
            end: at(end),
        };
        let segments = [segment(5, 15, 1000), segment(15, 19, 100), segment(19, 19, 0)];
        let lag = |index| bytes_after(&segments, index);
        assert_eq!([lag(None), lag(Some(4)), lag(Some(5))], [1100, 1100, 1000]);
        assert_eq!([lag(Some(14)), lag(Some(16)), lag(Some(18))], [100, 50, 0]);
        assert_eq!(lag(Some(u64::MAX)), 0);
    }
}
