//! When a group wants another leader.
//!
//! openraft's own timers are long, so that thousands of idle groups cost nothing; they remain as the safety net. Here a
//! node that hears nothing of a group's leader, or hears that it has begun anew, lets go of the leader's lease. Then the
//! replicas campaign one after the other, the preferred leader first, each with a pre-vote; the leader that is doubted comes
//! last, and who is asking for votes already is waited for. A broker that is being drained comes after all others, and lets
//! its first turn pass while another replica that was in sync is there: without one the partition is still served.
//!
//! Invariants
//! - Nothing here weakens Raft: a vote is given by openraft's rules alone, and no read relies on a lease.
//! - A replica gives its pre-vote only once it has itself let go of the leader: a leader that a majority hears keeps
//!   leading, whatever one node suspects.
//! - A group is founded only by a replica that is named as a founder with its own directory, and that has neither vote nor
//!   entry (openraft refuses otherwise). All founders would write the same first entry, so it does not matter which does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::raft::TransferLeaderRequest;
use openraft_rt::WatchReceiver as _;
use takhin_runtime::clock::Instant;
use takhin_runtime::{Late, Shutdown};
use uuid::Uuid;

use super::group::{Group, Raft};
use super::hard_state::GroupId;
use super::host::GroupHost;
use super::in_sync;
use super::types::RaftVote;
use crate::links::Links;

/// Silence after which a broker is taken for dead. Pings come every tenth of a second.
const SUSPECT: Duration = Duration::from_millis(600);

/// The same for a broker whose groups are parked: nobody waits for these, and to wake thousands of them for one that was
/// only slow takes the time that it lacks. Enough for a link that broke to be made again; one that refuses connections is
/// missed at once.
const SUSPECT_AT_REST: Duration = Duration::from_secs(3);

/// The longest time by which this node's own slowness lengthens its patience with others.
const MAX_LATE: Duration = Duration::from_secs(2);

/// How often groups without a leader are looked at, and whether brokers are heard of.
const TICK: Duration = Duration::from_millis(100);

/// Between two looks, at least.
const PAUSE: Duration = Duration::from_millis(5);

/// Groups that nobody wrote to lately and that this node does something about in one tick; the others wait for the next.
const IDLE_AT_ONCE: usize = 64;

/// For how long after a write a group is not idle.
const BUSY: Duration = Duration::from_secs(10);

/// How often all groups are looked at when nothing is known to have happened.
const ROUND: Duration = Duration::from_secs(1);

/// How long a candidate has before it is the next one's turn: a pre-vote and a vote, each with a sync.
const TURN: Duration = Duration::from_millis(300);

/// No broker has this id: a transfer to it only lets go of the lease.
const NOBODY: u64 = u64::MAX;

/// What is remembered of the groups between two looks.
struct Watch {
    /// The other brokers.
    peers: BTreeMap<u32, Peer>,
    /// When all groups are looked at next.
    round_at: Option<Instant>,
    /// The leader under whose vote a group was seen last, and that leader's incarnation then.
    leaders: BTreeMap<GroupId, (RaftVote, Option<Uuid>)>,
    doubts: BTreeMap<GroupId, Doubt>,
    /// The last entry of each group, and when it was found to be another one than before.
    written: BTreeMap<GroupId, (u64, Option<Instant>)>,
    /// Brokers that have begun anew since all groups were looked at.
    begun_anew: BTreeSet<u64>,
    /// Groups that the next look passes over at first, of those that nobody waits for.
    skip: usize,
    /// [`Links::changes`] at the last look.
    links: u64,
    /// How late this node itself was lately: for so long it may not have read what others have said.
    late: Late,
}

/// What is known of another broker.
#[derive(Debug, PartialEq, Eq)]
struct Peer {
    /// Whether it is heard of, for groups that are awake and for those at rest.
    is_heard: [bool; 2],
    /// The run of its process.
    incarnation: Option<Uuid>,
}

/// A group without a leader that is heard of.
struct Doubt {
    vote: RaftVote,
    since: Instant,
    /// Whether somebody has asked for this vote just now, who gets the first turn.
    is_asked_for: bool,
    /// The turn in which this node campaigned last.
    campaigned: Option<u128>,
    /// The turn in which it was looked at last.
    looked_at: Option<u128>,
    /// The leader that is doubted: it comes last, for whatever the reason is, it has one.
    left: Option<u64>,
}

/// Watches the node's groups until `stop`.
pub(crate) async fn watch(host: Arc<GroupHost>, groups: impl Fn() -> Vec<Arc<Group>>, stop: Shutdown) {
    let mut watch = Watch::new();
    let begun = host.env.clock.instant();
    let links = host.links.changes();
    loop {
        // A thousand groups that open at once ring a thousand times.
        let due = host.env.clock.instant() + PAUSE;
        host.env.clock.sleep(PAUSE).await;
        watch.late.note(due, host.env.clock.instant());
        let due = host.env.clock.instant() + TICK;
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = host.elections.notified() => watch.round_at = None,
            // Who refuses connections now is not waited for until the next tick.
            _ = links.wait_for(|changes| *changes != watch.links) => {}
            () = host.env.clock.sleep(TICK) => watch.late.note(due, host.env.clock.instant()),
        }
        watch.links = links.get();
        let peers = host.links.peers();
        if peers.is_empty() {
            // Groups with one voter elect it when they open.
            continue;
        }
        let all = watch.is_round(&host, &peers, begun);
        let mut groups = groups();
        if all {
            watch.forget_all_but(&groups);
            watch.see_writes(&groups, host.env.clock.instant());
        } else {
            groups.retain(|group| watch.doubts.contains_key(&group.spec.id));
        }
        watch.look_at_all(&host, groups, all, begun).await;
    }
}

impl Watch {
    fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            round_at: None,
            leaders: BTreeMap::new(),
            doubts: BTreeMap::new(),
            written: BTreeMap::new(),
            begun_anew: BTreeSet::new(),
            skip: 0,
            links: 0,
            late: Late::new(SUSPECT, MAX_LATE),
        }
    }

    /// Looks at these groups, first at those that were written to last: somebody waits for them. Where many have lost their
    /// leader, what the others' elections cost would make these wait.
    async fn look_at_all(
        &mut self,
        host: &GroupHost,
        mut groups: Vec<Arc<Group>>,
        all: bool,
        begun: Instant,
    ) {
        let written = |group: &Arc<Group>| self.written.get(&group.spec.id).and_then(|(_, at)| *at);
        groups.sort_by_cached_key(|group| std::cmp::Reverse(written(group)));
        let now = host.env.clock.instant();
        let busy =
            groups.partition_point(|group| written(group).is_some_and(|at| now.duration_since(at) < BUSY));
        // Some may stay without a leader for long: the next look goes on behind those that this one has come to.
        if let Some(skip) = self.skip.checked_rem(groups.len() - busy) {
            groups[busy..].rotate_left(skip);
        }
        let mut left = IDLE_AT_ONCE;
        for (place, group) in groups.iter().enumerate() {
            if left == 0 {
                self.skip = self.skip.wrapping_add(place - busy);
                self.round_at = None;
                return;
            }
            let has_acted = match group.raft() {
                Some(raft) => self.look(host, group, &raft, begun).await,
                None => self.look_at_parked(host, group, begun),
            };
            left -= usize::from(has_acted && place >= busy);
        }
        self.skip = 0;
        if all {
            self.begun_anew.clear();
        }
    }

    /// The silence after which another broker is suspected.
    fn patience(&self, suspect: Duration) -> Duration {
        suspect + self.late.by()
    }

    /// Notes which groups have other entries than at the last round.
    fn see_writes(&mut self, groups: &[Arc<Group>], now: Instant) {
        for group in groups {
            let last = group.spec.partition.log().and_then(|log| log.end().last);
            let last = last.map_or(0, |id| id.index);
            let known = self.written.entry(group.spec.id).or_insert((last, None));
            if known.0 != last {
                *known = (last, Some(now));
            }
        }
    }

    /// Whether it is time to look at all groups: some broker has gone, come or begun anew, or a while has passed.
    fn is_round(&mut self, host: &GroupHost, peers: &[u32], begun: Instant) -> bool {
        let now = host.env.clock.instant();
        let state = |node: &u32| {
            let heard = |suspect| {
                is_heard(
                    host,
                    u64::from(*node),
                    now.duration_since(begun),
                    self.patience(suspect),
                )
            };
            let peer = Peer {
                is_heard: [SUSPECT, SUSPECT_AT_REST].map(heard),
                incarnation: host.links.incarnation(*node),
            };
            (*node, peer)
        };
        let state: BTreeMap<_, _> = peers.iter().map(state).collect();
        let has_begun_anew = |(node, peer): (&u32, &Peer)| {
            let before = self.peers.get(node).and_then(|before| before.incarnation);
            (before.is_some() && before != peer.incarnation).then_some(u64::from(*node))
        };
        let begun_anew: Vec<u64> = state.iter().filter_map(has_begun_anew).collect();
        for node in begun_anew.iter().filter_map(|node| i32::try_from(*node).ok()) {
            host.leaders.begun_anew(node);
        }
        self.begun_anew.extend(begun_anew);
        let gone = peers.iter().filter(|node| host.links.is_gone(**node));
        host.leaders
            .set_gone(gone.filter_map(|node| i32::try_from(*node).ok()).collect());
        let is_round = self.peers != state || self.round_at.is_none_or(|at| now >= at);
        if is_round {
            self.round_at = Some(now + ROUND);
            self.peers = state;
        }
        is_round
    }

    fn forget_all_but(&mut self, groups: &[Arc<Group>]) {
        let most = self.leaders.len().max(self.doubts.len()).max(self.written.len());
        if most > groups.len() {
            let living: BTreeSet<GroupId> = groups.iter().map(|group| group.spec.id).collect();
            self.leaders.retain(|id, _| living.contains(id));
            self.doubts.retain(|id, _| living.contains(id));
            self.written.retain(|id, _| living.contains(id));
        }
    }

    /// Looks at a group that runs; whether anything was done about it.
    async fn look(&mut self, host: &GroupHost, group: &Group, raft: &Raft, begun: Instant) -> bool {
        let id = group.spec.id;
        let (vote, state, is_named, mut configs) = stands(group, raft);
        let founding = configs.iter().all(BTreeSet::is_empty);
        if founding {
            configs = vec![group.spec.founders.keys().copied().collect()];
        }
        let voters: BTreeSet<u64> = configs.iter().flatten().copied().collect();
        let voters: Vec<u64> = voters.into_iter().collect();
        let is_voter = voters.contains(&host.node) && (founding || is_named);
        if state == ServerState::Leader || voters.len() < 2 || !is_voter {
            self.doubts.remove(&id);
            self.leaders.insert(id, (vote, None));
            return false;
        }
        let now = host.env.clock.instant();
        let (running, patience) = (now.duration_since(begun), self.patience(SUSPECT));
        let is_heard = |node: u64| node == host.node || is_heard(host, node, running, patience);
        let was_led = self.leaders.contains_key(&id);
        if self.is_led(host, id, &vote, is_heard) {
            self.doubts.remove(&id);
            return false;
        }
        let doubt = self.doubt(id, vote, was_led, now);
        let turn = now.duration_since(doubt.since).as_millis() / TURN.as_millis();
        let draining = host.draining();
        let mut present: Vec<u64> = group
            .in_order(&voters)
            .into_iter()
            .filter(|node| is_heard(*node))
            .collect();
        present.sort_by_key(|node| (draining.contains(node), doubt.left == Some(*node)));
        let Some(turn) = turn.checked_sub(u128::from(doubt.is_asked_for)) else {
            return false;
        };
        let has_majority = in_sync::has_majority(&configs, |node| present.contains(&node));
        if !has_majority || doubt.campaigned == Some(turn) {
            return false;
        }
        let turn_number = usize::try_from(turn).unwrap_or(usize::MAX);
        let is_mine = present[turn_number % present.len()] == host.node;
        if doubt.looked_at.replace(turn) == Some(turn) && !is_mine {
            return false;
        }
        // Openraft refuses what follows only when the group has stopped, which its supervisor sees.
        let _ = raft
            .handle_transfer_leader(TransferLeaderRequest::new(vote, NOBODY, None))
            .await;
        if group.doubt.is_any() {
            // It may stay so for long, and others are not to wait for it.
            return false;
        }
        let yields = draining.contains(&host.node)
            && turn_number < present.len()
            && has_other_in_sync(host, id, &present, &draining);
        if is_mine && !yields {
            doubt.campaigned = Some(turn);
            if founding && group.is_founder(host) {
                // An error means that another founder was quicker.
                let _ = raft.initialize(group.spec.founders.clone()).await;
            }
            let _ = raft.trigger().elect(true).await;
        }
        true
    }

    /// The doubt about a group under this vote. When the vote has changed, somebody has won, or has tried and failed: all
    /// turns begin anew.
    fn doubt(&mut self, id: GroupId, vote: RaftVote, was_led: bool, now: Instant) -> &mut Doubt {
        let known = self.doubts.get(&id);
        let is_news = known.map_or(was_led, |known| known.vote != vote);
        let doubted = vote.is_committed().then_some(vote.leader_id().voted_for);
        let left = doubted.or_else(|| known.and_then(|known| known.left));
        let doubt = Doubt {
            vote,
            since: now,
            is_asked_for: is_news && !vote.is_committed(),
            campaigned: None,
            looked_at: None,
            left,
        };
        if is_news {
            self.doubts.remove(&id);
        }
        self.doubts.entry(id).or_insert(doubt)
    }

    /// Wakes a parked group whose leader is not there any more, or which leads a replica that may have lost something;
    /// whether it did.
    fn look_at_parked(&mut self, host: &GroupHost, group: &Group, begun: Instant) -> bool {
        let Some((vote, voters)) = group.parked_under() else {
            return false;
        };
        let is_needed = if vote.leader_id().voted_for == host.node {
            !self.begun_anew.is_disjoint(&voters)
        } else {
            let running = host.env.clock.instant().duration_since(begun);
            let patience = self.patience(SUSPECT_AT_REST);
            let is_heard = |node: u64| node == host.node || is_heard(host, node, running, patience);
            !self.is_led(host, group.spec.id, &vote, is_heard)
        };
        if is_needed {
            group.wake();
        }
        is_needed
    }

    /// Whether the leader of this vote is there and still the one that won it.
    fn is_led(
        &mut self,
        host: &GroupHost,
        id: GroupId,
        vote: &RaftVote,
        is_heard: impl Fn(u64) -> bool,
    ) -> bool {
        let leader = vote.leader_id().voted_for;
        // This node's own vote, when it does not lead: it did before it began anew, or it has given up.
        if !vote.is_committed() || leader == host.node {
            self.leaders.remove(&id);
            return false;
        }
        let incarnation = u32::try_from(leader)
            .ok()
            .and_then(|leader| host.links.incarnation(leader));
        let known = self.leaders.entry(id).or_insert((*vote, incarnation));
        if known.0 != *vote || known.1.is_none() {
            *known = (*vote, incarnation);
        }
        let given_up =
            i32::try_from(vote.leader_id().term).is_ok_and(|epoch| host.leaders.has_given_up(id, epoch));
        known.1 == incarnation && is_heard(leader) && !given_up
    }
}

/// Lets go of the leader's lease if it is the leader itself that asks for votes: it leads no longer, for instance because it
/// has begun anew before anybody missed it. Also if it is known to be gone: who asks has only been quicker to see to it.
pub(super) async fn let_go_of(raft: &Raft, links: &dyn Links, candidate: u64) {
    let vote = raft.server_metrics().borrow_watched().vote;
    let leader = vote.leader_id().voted_for;
    let is_gone = || u32::try_from(leader).is_ok_and(|leader| links.is_gone(leader));
    if vote.is_committed() && (leader == candidate || is_gone()) {
        // Refused only when the group has stopped, which its supervisor sees.
        let _ = raft
            .handle_transfer_leader(TransferLeaderRequest::new(vote, NOBODY, None))
            .await;
    }
}

/// The vote and role of a replica, whether it is a member itself, and the sets of voters, each of which has to elect a leader.
fn stands(group: &Group, raft: &Raft) -> (RaftVote, ServerState, bool, Vec<BTreeSet<u64>>) {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let configs = metrics.membership_config.membership().get_joint_config().clone();
    (metrics.vote, metrics.state, group.is_named(&metrics), configs)
}

/// Whether one of the nodes that are `present` and not `draining` was in sync by the last leader's word.
fn has_other_in_sync(host: &GroupHost, id: GroupId, present: &[u64], draining: &BTreeSet<u64>) -> bool {
    let in_sync = host.leaders.of(id).map_or_else(Vec::new, |word| word.in_sync);
    let in_sync = in_sync
        .into_iter()
        .filter_map(|broker| u64::try_from(broker).ok());
    let mut others = in_sync.filter(|node| *node != host.node && present.contains(node));
    others.any(|node| !draining.contains(&node))
}

/// Whether a broker was heard of lately. One that was never heard of gets as long as any other from the beginning on.
fn is_heard(host: &GroupHost, node: u64, running: Duration, patience: Duration) -> bool {
    let silence = u32::try_from(node).ok().and_then(|node| host.links.silence(node));
    silence.unwrap_or(running) < patience
}
