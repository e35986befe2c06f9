//! Which replicas of the partitions led here are in sync.
//!
//! A replica is in sync while it has had everything that the leader had at some moment of the last [`LAG`]
//! (`replica.lag.time.max.ms`), it has answered within [`MUTE`], and its broker is heard of. This is what clients are shown and what `min.insync.replicas`
//! is compared with; what is committed, Raft alone says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::metrics::RaftServerMetrics;
use openraft_rt::{Instant as _, WatchReceiver as _};
use takhin_runtime::Shutdown;
use takhin_runtime::clock::Instant;

use super::group::{Group, Life};
use super::host::GroupHost;
use super::parking::Parked;
use super::types::TypeConfig;

/// How often replicas are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How long a replica may lack something before it counts as out of sync.
const LAG: Duration = Duration::from_secs(10);

/// How long a replica may answer nothing, while its broker does, before nothing is believed of it: twice the time in which
/// openraft asks, and a bit. So one whose log is damaged, and that is not opened again, does not count for what it had before.
const MUTE: Duration = Duration::from_secs(12);

/// Silence after which a broker's replicas count as out of sync.
const ABSENT: Duration = Duration::from_secs(3);

/// Silence after which a leader no longer counts on a broker for its majority.
const UNREACHABLE: Duration = Duration::from_secs(2);

/// What is remembered of a group led here.
pub(super) struct Led {
    begun: Instant,
    /// Index of the last entry that was committed at the look before.
    committed: u64,
    replicas: BTreeMap<u64, Lag>,
}

/// How far one replica is behind. As with Kafka it has caught up at a moment once it has what the leader had then, however
/// much has come since: who is always a little late is in sync.
struct Lag {
    /// The latest moment at which it had all that there was, as far as is known.
    caught_up: Option<Instant>,
    /// Index of the leader's last entry at some moment, which the replica has not reached yet.
    mark: (u64, Instant),
    /// The latest moment at which it was sent something that it has answered. A leader that was parked does not know it.
    answered: Instant,
}

impl Led {
    /// Voters that are `in_sync` by the leader's word are taken to have had everything when this began.
    fn begin(view: &View, now: Instant, in_sync: impl Fn(u64) -> bool) -> Self {
        let lag = |voter: &u64| {
            let lag = Lag {
                caught_up: in_sync(*voter).then_some(now),
                mark: (view.last, now),
                answered: now,
            };
            (*voter, lag)
        };
        Self {
            begun: now,
            committed: view.committed,
            replicas: view.voters.iter().map(lag).collect(),
        }
    }

    /// Takes in how far the replicas are now.
    fn learn(&mut self, view: &View, now: Instant) {
        self.replicas
            .retain(|node, _| view.voters.contains(node) || view.matched.contains_key(node));
        for (node, index) in &view.matched {
            let lag = self.replicas.entry(*node).or_insert(Lag {
                caught_up: None,
                mark: (view.last, now),
                answered: now,
            });
            lag.answered = view
                .answered
                .get(node)
                .map_or(lag.answered, |at| lag.answered.max(*at));
            if *node != view.own && now.duration_since(lag.answered) >= MUTE {
                // What it had then it may have lost since.
                lag.caught_up = lag.caught_up.map(|at| at.min(lag.answered));
                lag.mark = (view.last, now);
            } else if *index >= view.last {
                lag.caught_up = Some(now);
                lag.mark = (view.last, now);
            } else if *index >= lag.mark.0 {
                lag.caught_up = Some(lag.mark.1);
                lag.mark = (view.last, now);
            }
        }
        // A leader that was parked learns only with the next entry how far it was.
        self.committed = self.committed.max(view.committed);
    }

    /// When this replica was last seen to have all that there was.
    pub(super) fn caught_up(&self, node: u64) -> Option<Instant> {
        let caught_up = self.replicas.get(&node)?.caught_up;
        caught_up.filter(|at| *at > self.begun)
    }

    /// When this replica last had all that there was; when the leadership began, if that is not known.
    pub(super) fn behind_since(&self, node: u64) -> Instant {
        self.caught_up(node).unwrap_or(self.begun)
    }

    /// Index of the last entry that was committed at the last look.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    fn is_late(&self, node: u64, now: Instant) -> bool {
        let caught_up = self.replicas.get(&node).and_then(|lag| lag.caught_up);
        caught_up.is_none_or(|at| now.duration_since(at) >= LAG)
    }
}

/// A group at one moment, as its leader sees it.
struct View {
    own: u64,
    voters: Vec<u64>,
    /// The sets of voters, two while they change.
    configs: Vec<BTreeSet<u64>>,
    /// Index of the last entry that each replica is known to have.
    matched: BTreeMap<u64, u64>,
    /// When the leader sent the newest request that each replica has answered.
    answered: BTreeMap<u64, Instant>,
    last: u64,
    committed: u64,
    has_receivers: bool,
}

impl View {
    /// `None` unless this replica leads.
    fn of(host: &GroupHost, group: &Group) -> Option<Self> {
        let now = host.env.clock.instant();
        let raft = match &*group.life.lock() {
            Life::Running(running) => running.raft.clone(),
            Life::Parked(parked) => return parked.leads.then(|| Self::of_parked(host.node, now, parked)),
            Life::Closed => return None,
        };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let answers = metrics.heartbeat.iter().flatten();
        Some(Self {
            own: host.node,
            answered: answers
                .filter_map(|(node, at)| Some((*node, now.checked_sub(at.as_ref()?.elapsed())?)))
                .collect(),
            has_receivers: membership.nodes().count() > voters.len(),
            voters,
            configs: membership.get_joint_config().clone(),
            matched: replication
                .iter()
                .filter_map(|(node, id)| Some((*node, id.as_ref()?.index)))
                .collect(),
            last: metrics.last_log_index.unwrap_or(0),
            committed: metrics.cluster_committed.as_ref().map_or(0, |id| id.index),
        })
    }

    fn of_parked(own: u64, now: Instant, parked: &Parked) -> Self {
        let voters = &parked.members.voters;
        Self {
            own,
            answered: voters.iter().map(|voter| (*voter, now)).collect(),
            voters: voters.iter().copied().collect(),
            configs: vec![voters.clone()],
            matched: voters.iter().map(|voter| (*voter, parked.last)).collect(),
            last: parked.last,
            committed: parked.last,
            has_receivers: false,
        }
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

/// Prepares for that this replica wins: openraft sends from then on, before the term begins here, and is not to overlook a
/// throttle.
pub(super) fn expect_to_lead(host: &GroupHost, group: &Group, metrics: &RaftServerMetrics<TypeConfig>) {
    let membership = metrics.membership_config.membership();
    let was_in_sync = handed_over(host, group);
    group.standing.learn(membership.get_joint_config(), was_in_sync);
}

/// Whether a replica counts as in sync when this node begins to lead: whom the last leader counted, and this node itself.
/// All, if nobody has said.
pub(super) fn handed_over(host: &GroupHost, group: &Group) -> impl Fn(u64) -> bool + use<> {
    let (own, word) = (host.node, host.leaders.of(group.spec.id));
    move |node| {
        let was_in_sync = |in_sync: &[i32]| in_sync.iter().any(|broker| u64::try_from(*broker) == Ok(node));
        node == own || word.as_ref().is_none_or(|word| was_in_sync(&word.in_sync))
    }
}

/// How many replicas have what is committed, at least, whatever the voters are: while they change, both sets agree.
pub(super) fn majority(configs: &[BTreeSet<u64>]) -> u16 {
    let largest = configs.iter().map(BTreeSet::len).max().unwrap_or(0);
    u16::try_from(largest / 2 + 1).unwrap_or(u16::MAX)
}

/// Whether those that are `present` can decide: while voters change, each of the two sets must have its majority.
pub(super) fn has_majority(configs: &[BTreeSet<u64>], is_present: impl Fn(u64) -> bool) -> bool {
    configs.iter().all(|config| {
        let present = config.iter().filter(|voter| is_present(**voter));
        present.count() > config.len() / 2
    })
}

/// Looks at one group; `false` if it is not led here or has no other replica.
fn look(host: &GroupHost, group: &Group) -> bool {
    let partition = &group.spec.partition;
    let (Some(epoch), Some(view)) = (partition.leadership(), View::of(host, group)) else {
        return false;
    };
    if let [alone] = view.voters[..] {
        // It may have had others until now.
        partition.set_quorum(1, 1, true);
        group.standing.learn(&view.configs, |_| true);
        host.leaders
            .set_in_sync(group.spec.id, epoch, i32::try_from(alone).into_iter().collect());
        if !view.has_receivers {
            return false;
        }
    }
    let in_sync = in_sync(host, group, &view);
    if view.voters.len() == 1 {
        return true;
    }
    group
        .standing
        .learn(&view.configs, |node| in_sync.contains(&node));
    let has_quorum = has_majority(&view.configs, |voter| silence(host, voter) < UNREACHABLE);
    let count = u16::try_from(in_sync.len()).unwrap_or(u16::MAX);
    partition.set_quorum(count, majority(&view.configs), has_quorum);
    let brokers = in_sync.into_iter().filter_map(|node| i32::try_from(node).ok());
    host.leaders.set_in_sync(group.spec.id, epoch, brokers.collect());
    true
}

/// Remembers how far all replicas are; the voters that are in sync, in the order in which they are to lead.
fn in_sync(host: &GroupHost, group: &Group, view: &View) -> Vec<u64> {
    let now = host.env.clock.instant();
    let mut led = group.led.lock();
    let led = led.get_or_insert_with(|| Led::begin(view, now, handed_over(host, group)));
    led.learn(view, now);
    let is_in_sync = |node: &u64| !led.is_late(*node, now) && silence(host, *node) < ABSENT;
    group
        .in_order(&view.voters)
        .into_iter()
        .filter(is_in_sync)
        .collect()
}

/// Since when a node was not heard of.
fn silence(host: &GroupHost, node: u64) -> Duration {
    if node == host.node {
        return Duration::ZERO;
    }
    let heard = u32::try_from(node).ok().and_then(|node| host.links.silence(node));
    heard.unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(matched: u64, last: u64, answered: Instant) -> View {
        View {
            own: 1,
            answered: BTreeMap::from([(2, answered)]),
            voters: vec![1, 2],
            configs: vec![BTreeSet::from([1, 2])],
            matched: BTreeMap::from([(1, last), (2, matched)]),
            last,
            committed: matched,
            has_receivers: false,
        }
    }

    #[test]
    fn a_replica_that_is_always_late_is_in_sync_and_one_that_falls_behind_is_not() {
        let begun = Instant::now();
        let mut led = Led::begin(&view(0, 0, begun), begun, |_| true);
        // A thousand entries a second, of which the other one lacks those of the last three seconds.
        let mut now = begun;
        for step in 1..200_u64 {
            now = begun + LOOK * u32::try_from(step).unwrap();
            let last = step * 500;
            led.learn(&view(last.saturating_sub(3000), last, now), now);
            assert!(!led.is_late(2, now), "after {step} looks");
        }
        let caught_up = led.caught_up(2).unwrap();
        assert!(now.duration_since(caught_up) >= Duration::from_secs(3));
        // From now on it receives half of what is written.
        let behind = (1..200_u64).find(|step| {
            let at = now + LOOK * u32::try_from(*step).unwrap();
            led.learn(&view(96_500 + step * 250, 99_500 + step * 500, at), at);
            led.is_late(2, at)
        });
        assert!(behind.is_some());
    }

    /// As one whose log is damaged, on a broker that has begun anew.
    #[test]
    fn a_replica_that_answers_nothing_falls_out_of_sync_whatever_it_had() {
        let begun = Instant::now();
        let mut led = Led::begin(&view(7, 7, begun), begun, |_| true);
        let mut at = |seconds: u64, answered: u64| {
            let at = |seconds| begun + Duration::from_secs(seconds);
            led.learn(&view(7, 7, at(answered)), at(seconds));
            [1, 2].map(|node| led.is_late(node, at(seconds)))
        };
        assert_eq!(at(100, 95), [false, false]);
        assert_eq!(at(106, 95), [false, false]);
        assert_eq!(at(108, 95), [false, true]);
        assert_eq!(at(109, 108), [false, false]);
    }
}
