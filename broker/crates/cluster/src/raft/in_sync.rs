//! Which replicas of the partitions led here are in sync.
//!
//! A replica is in sync while it has had everything that the leader had at some moment of the last [`LAG`]
//! (`replica.lag.time.max.ms`) and its broker is heard of. This is what clients are shown and what `min.insync.replicas`
//! is compared with; what is committed, Raft alone says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft_rt::WatchReceiver as _;
use takhin_runtime::Shutdown;
use takhin_runtime::clock::Instant;

use super::group::{Group, Life};
use super::host::GroupHost;
use super::parking::Parked;

/// How often replicas are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How long a replica may lack something before it counts as out of sync.
const LAG: Duration = Duration::from_secs(10);

/// Silence after which a broker's replicas count as out of sync.
const ABSENT: Duration = Duration::from_secs(3);

/// Silence after which a leader no longer counts on a broker for its majority.
const UNREACHABLE: Duration = Duration::from_secs(2);

/// What is remembered of a group led here.
pub(super) struct Led {
    begun: Instant,
    /// Index of the last entry at the look before.
    end: u64,
    /// When each replica had all that there was. Voters are taken to have had it when this began.
    caught_up: BTreeMap<u64, Instant>,
}

impl Led {
    /// When this replica was last seen to have all that there was.
    pub(super) fn caught_up(&self, node: u64) -> Option<Instant> {
        self.caught_up.get(&node).copied().filter(|at| *at > self.begun)
    }
}

/// Keeps partitions and the leader table informed until `stop`.
pub(crate) async fn watch(host: Arc<GroupHost>, groups: impl Fn() -> Vec<Arc<Group>>, stop: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = host.env.clock.sleep(LOOK) => {}
        }
        if host.links.peers().is_empty() {
            continue;
        }
        for group in groups() {
            if !look(&host, &group) {
                *group.led.lock() = None;
            }
        }
    }
}

/// How many replicas have what is committed, at least, whatever the voters are: while they change, both sets agree.
pub(super) fn majority(configs: &[BTreeSet<u64>]) -> u16 {
    let largest = configs.iter().map(BTreeSet::len).max().unwrap_or(0);
    u16::try_from(largest / 2 + 1).unwrap_or(u16::MAX)
}

/// How far the replicas of a group are.
struct Matched {
    voters: Vec<u64>,
    /// The voters; while they change, both sets of them.
    configs: Vec<BTreeSet<u64>>,
    /// Index of the last entry that each replica is known to have.
    matched: BTreeMap<u64, u64>,
    /// Index of the leader's last entry.
    last: u64,
}

impl Matched {
    /// `None` unless the group is led here.
    fn of(group: &Group) -> Option<Self> {
        let raft = match &*group.life.lock() {
            Life::Running(running) => running.raft.clone(),
            Life::Parked(parked) => return parked.leads.then(|| Self::of_parked(parked)),
            Life::Closed => return None,
        };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?.iter();
        let membership = metrics.membership_config.membership();
        Some(Self {
            voters: membership.voter_ids().collect(),
            configs: membership.get_joint_config().clone(),
            matched: replication
                .filter_map(|(node, id)| Some((*node, id.as_ref()?.index)))
                .collect(),
            last: metrics.last_log_index.unwrap_or(0),
        })
    }

    fn of_parked(parked: &Parked) -> Self {
        let voters = &parked.members.voters;
        Self {
            voters: voters.iter().copied().collect(),
            configs: vec![voters.clone()],
            matched: voters.iter().map(|voter| (*voter, parked.last)).collect(),
            last: parked.last,
        }
    }
}

/// Looks at one group; `false` if it is not led here or has no other replica.
fn look(host: &GroupHost, group: &Group) -> bool {
    let partition = &group.spec.partition;
    let (Some(epoch), Some(matched)) = (partition.leadership(), Matched::of(group)) else {
        return false;
    };
    let Matched {
        voters,
        configs,
        matched,
        last,
    } = matched;
    if let [alone] = voters[..] {
        // It may have had others until now.
        partition.set_quorum(1, 1, true);
        host.leaders
            .set_in_sync(group.spec.id, epoch, i32::try_from(alone).into_iter().collect());
        return false;
    }
    let now = host.env.clock.instant();
    let mut led = group.led.lock();
    let state = led.get_or_insert_with(|| Led {
        begun: now,
        end: last,
        caught_up: voters.iter().map(|voter| (*voter, now)).collect(),
    });
    for (node, index) in &matched {
        if *index >= state.end.min(last) {
            state.caught_up.insert(*node, now);
        }
    }
    state.end = last;
    let silence = |node: u64| {
        let heard = u32::try_from(node).ok().and_then(|node| host.links.silence(node));
        if node == host.node {
            Duration::ZERO
        } else {
            heard.unwrap_or(Duration::MAX)
        }
    };
    let is_in_sync = |node: &u64| {
        let caught_up = state.caught_up.get(node);
        caught_up.is_some_and(|at| now.duration_since(*at) < LAG) && silence(*node) < ABSENT
    };
    let in_sync: Vec<i32> = group
        .in_order(&voters)
        .into_iter()
        .filter(is_in_sync)
        .filter_map(|node| i32::try_from(node).ok())
        .collect();
    // While voters change, each of the two sets must have its majority.
    let has_quorum = configs.iter().all(|config| {
        let reachable = config.iter().filter(|voter| silence(**voter) < UNREACHABLE);
        reachable.count() > config.len() / 2
    });
    drop(led);
    let count = u16::try_from(in_sync.len()).unwrap_or(u16::MAX);
    partition.set_quorum(count, majority(&configs), has_quorum);
    host.leaders.set_in_sync(group.spec.id, epoch, in_sync);
    true
}
