//! Parking: while nobody writes to a partition, openraft ends and what it held in memory goes.
//!
//! ```text
//!  nothing written for a while, every replica has everything and is heard of
//!        │ leader                                   follower
//!        ├─ "I am to park at entry n of term t" ──▶ has n, knows that it is committed, follows t: parks, and says so
//!        ▼ all have said so, and nothing has been written meanwhile
//!      parks: no heartbeats, no timers
//!        │ a proposal · a request of another replica · a replica's broker has begun anew · the leader is missed
//!        ▼
//!      openraft begins where it ended
//! ```
//! A partition that is parked answers reads as ever, and whoever leads it goes on leading it in the same term: proposals
//! wait in its [`Outbox`](super::outbox) until openraft takes them. Nobody is told.
//!
//! Invariants
//! - A replica parks only with everything committed that it has, so that it knows the high watermark; the leader only after
//!   all others. A leader that stays awake wakes those that have parked with its next heartbeat.
//! - A parked replica keeps its vote and its log, and answers no vote, append or transfer but through openraft. So nothing
//!   here weakens Raft.
//! - A replica that is parked gives no pre-vote while it leads or hears of its leader: what one broker suspects, that has been away
//!   itself, deposes nobody.
//! - A replica whose broker has begun anew may lack what it had not synced: its leader wakes and sends it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::{self, StreamExt as _};
use openraft::ServerState;
use openraft::raft::VoteResponse;
use openraft_rt::WatchReceiver as _;
use parking_lot::Mutex;
use takhin_runtime::clock::Instant;
use takhin_runtime::{Shutdown, memory};
use tokio::sync::Notify;

use super::group::{Ground, Group, Life, RaftMetrics, Running};
use super::host::GroupHost;
use super::inbound::{Answer, Inbound};
use super::instance::Leading;
use super::members::Members;
use super::types::RaftVote;
use super::wire;
use crate::links::{Class, Kind};

/// Looks for groups to park in the time after which one is parked.
const LOOKS: u32 = 4;

/// Groups that are parked at a time.
const AT_A_TIME: usize = 32;

/// Groups parked between two looks from which on it is worth the while to give memory back to the system.
const MANY: usize = 64;

/// How long another replica may take to park.
const ANSWER: Duration = Duration::from_secs(1);

/// Requests of other brokers that may wait until openraft runs; the next one is refused, and is made again.
const MAX_WAITING: usize = 32;

/// What remains of openraft.
pub(super) struct Parked {
    pub(super) ground: Ground,
    pub(super) vote: RaftVote,
    /// Index of the last entry, which is committed.
    pub(super) last: u64,
    /// All of them have everything.
    pub(super) members: Members,
    /// Whether this replica leads.
    pub(super) leads: bool,
    waiting: Vec<(Kind, Bytes, Answer)>,
}

impl Parked {
    /// Keeps a request until openraft runs; whether it did.
    pub(super) fn put(&mut self, kind: Kind, body: Bytes, answer: Answer) -> bool {
        if self.waiting.len() >= MAX_WAITING {
            answer(Err("the partition is waking up".to_owned()));
            return false;
        }
        self.waiting.push((kind, body, answer));
        true
    }

    /// The answer to one who asks whether it would be voted for, if that can be told in its sleep: no, while this replica
    /// leads, or hears of the one that does. openraft, which has only just begun, would know of nobody's lease.
    pub(super) fn refusal(
        &self,
        body: &Bytes,
        hears_leader: impl FnOnce() -> bool,
    ) -> Option<Result<Bytes, String>> {
        let candidate = match wire::decode_vote(body.clone()) {
            Ok(request) => request.vote.leader_id().voted_for,
            Err(error) => return Some(Err(error.to_string())),
        };
        let refuses = self.leads || self.vote.leader_id().voted_for != candidate && hears_leader();
        let reply = || wire::encode_vote_reply(&VoteResponse::new(self.vote, None, false));
        refuses.then(|| Ok(reply()))
    }

    /// Hands openraft what waited for it; what it returns is to be driven.
    pub(super) fn let_in(self, inbound: &Inbound) -> Vec<BoxFuture<'static, ()>> {
        let waiting = self.waiting.into_iter();
        let taken = waiting.filter_map(|(kind, body, answer)| inbound.take(kind, body, answer));
        taken.collect()
    }
}

/// Where a group is to park.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    vote: RaftVote,
    last: u64,
}

/// A group's way in and out of parking.
#[derive(Default)]
pub(super) struct Parking {
    order: Mutex<Option<Order>>,
    ordered: Notify,
    needed: Notify,
    /// The leader's vote and last entry when it was looked at last, and since when they have been so.
    quiet: Mutex<Option<(Order, Instant)>>,
}

impl Parking {
    fn order(&self, order: Order) {
        *self.order.lock() = Some(order);
        self.ordered.notify_one();
    }

    /// Waits until the group is to park.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn ordered(&self) -> Order {
        loop {
            self.ordered.notified().await;
            if let Some(order) = self.order.lock().take() {
                return order;
            }
        }
    }

    /// From now on [`Self::wake`] counts; what called for a group that ran is forgotten.
    pub(super) fn fall_asleep(&self) {
        let _ = self.needed.notified().now_or_never();
    }

    pub(super) fn wake(&self) {
        self.needed.notify_one();
    }
}

/// Why a parked group is parked no longer.
pub(super) enum Woken {
    Stopped,
    /// A copy is to take the log's place.
    Replaced,
    /// openraft is to run, and the partition to go on leading, if it did.
    Needed(Ground, Option<Leading>),
}

impl Group {
    /// Waits until the group is needed.
    pub(super) async fn rest(&self, host: &GroupHost, leading: Option<Leading>) -> Woken {
        let proposed = async {
            match &leading {
                Some(leading) => leading.outbox.filled().await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            () = self.stop.wait() => Some(Woken::Stopped),
            () = self.replaced.notified() => Some(Woken::Replaced),
            () = self.parking.needed.notified() => None,
            () = proposed => None,
        };
        host.metrics.woken();
        match (ended, self.ground()) {
            (None, Some(ground)) => Woken::Needed(ground, leading),
            (ended, _) => {
                self.leave(host);
                self.set_life(Life::Closed);
                // Only this task ends the parking of a group, so what it ran on is there unless it was to end.
                ended.unwrap_or(Woken::Stopped)
            }
        }
    }

    pub(crate) fn is_parked(&self) -> bool {
        matches!(&*self.life.lock(), Life::Parked(_))
    }

    /// Has openraft run, if the group is parked.
    pub(super) fn wake(&self) {
        if self.is_parked() {
            self.parking.wake();
        }
    }

    /// openraft, woken if the group is parked; `None` if it is not open.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn awake(&self) -> Option<Running> {
        loop {
            let changed = self.lived.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            match &*self.life.lock() {
                Life::Running(running) => return Some(running.clone()),
                Life::Closed => return None,
                Life::Parked(_) => self.parking.wake(),
            }
            changed.await;
        }
    }

    /// openraft as [`Self::awake`] gives it; on a leader that was parked, once the other replicas have said again that they
    /// have everything, or a moment has passed.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn awake_in_touch(&self, host: &GroupHost) -> Option<Running> {
        if let Some(running) = self.running() {
            return Some(running);
        }
        let running = self.awake().await?;
        let mut metrics = running.raft.metrics();
        let in_touch = async {
            // openraft looks for the end of their logs by halves: the first answers say too little.
            let have_all = |metrics: &RaftMetrics| {
                let mut matched = metrics.replication.iter().flat_map(|all| all.values());
                matched.all(|id| id.as_ref().map(|id| id.index) >= metrics.last_log_index)
            };
            while !have_all(&metrics.borrow_and_update()) && metrics.changed().await.is_ok() {}
        };
        let _ = host.env.clock.timeout(ANSWER, in_touch).await;
        Some(running)
    }

    /// What another replica, which leads, asks: that this one park.
    pub(super) fn agree_to_park(&self, body: Bytes) -> Result<(), String> {
        let order = decode(body).map_err(|e| e.to_string())?;
        if self.doubt.is_any() {
            return Err("the replica may lack acknowledged records".to_owned());
        }
        let life = self.life.lock();
        match &*life {
            Life::Running(running) => {
                let metrics = running.raft.metrics();
                at(&metrics.borrow_watched(), &order)?;
                self.parking.order(order);
                Ok(())
            }
            Life::Parked(parked) if parked.vote == order.vote && parked.last == order.last => Ok(()),
            Life::Parked(_) => Err("parked elsewhere".to_owned()),
            Life::Closed => Err("the partition is not open".to_owned()),
        }
    }

    /// What remains if the group parks now as ordered; `None` if that is no longer right.
    pub(super) fn may_park(
        &self,
        host: &GroupHost,
        order: &Order,
        leading: Option<&Leading>,
    ) -> Option<Parked> {
        let partition = &self.spec.partition;
        let running = self.running()?;
        let metrics = running.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leads = order.vote.leader_id().voted_for == host.node;
        let is_quiet = match leading {
            Some(Leading { term, outbox }) => {
                leads
                    && *term == order.vote.leader_id().term
                    && outbox.is_empty()
                    && partition.is_settled()
                    && partition.in_flight() == 0
                    && partition.leadership().is_some()
                    && !partition.is_over(*term)
                    && self.passing.try_lock().is_ok()
            }
            None => !leads && partition.leadership().is_none() && metrics.state == ServerState::Follower,
        };
        if !is_quiet || at(&metrics, order).is_err() {
            return None;
        }
        let nodes = metrics.membership_config.membership().nodes();
        let nodes: std::collections::BTreeMap<_, _> = nodes.map(|(id, voter)| (*id, voter.clone())).collect();
        let voters: BTreeSet<u64> = nodes.keys().copied().collect();
        Some(Parked {
            ground: running.ground,
            vote: order.vote,
            last: order.last,
            members: Members {
                up_to_date: voters.clone(),
                voters,
                nodes,
                is_changing: false,
                half_changed: None,
            },
            leads,
            waiting: Vec::new(),
        })
    }

    /// The vote and the voters of a parked group.
    pub(super) fn parked_under(&self) -> Option<(RaftVote, BTreeSet<u64>)> {
        match &*self.life.lock() {
            Life::Parked(parked) => Some((parked.vote, parked.members.voters.clone())),
            Life::Running(_) | Life::Closed => None,
        }
    }

    /// Where this replica, which leads, may park, if nothing has changed for `after`.
    fn due(&self, host: &GroupHost, after: Duration) -> Option<Order> {
        let order = self.park_point(host);
        let now = host.env.clock.instant();
        let mut quiet = self.parking.quiet.lock();
        let since = match (&*quiet, order) {
            (Some((before, since)), Some(order)) if *before == order => *since,
            _ => now,
        };
        *quiet = order.map(|order| (order, since));
        order.filter(|_| now.duration_since(since) >= after)
    }

    /// Where this replica could park now: it leads, everything is committed, and everybody is there and has it.
    fn park_point(&self, host: &GroupHost) -> Option<Order> {
        let partition = &self.spec.partition;
        partition.leadership()?;
        let raft = self.raft()?;
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index?;
        let order = Order {
            vote: metrics.vote,
            last,
        };
        let replication = metrics.replication.as_ref()?;
        let has_all = |(node, matched): (&u64, &Option<_>)| {
            let matched: &Option<super::types::RaftLogId> = matched;
            let is_there = *node == host.node || host.is_present(*node);
            is_there && matched.as_ref().is_some_and(|id| id.index == last)
        };
        let is_quiet = metrics.state == ServerState::Leader
            && partition.in_flight() == 0
            && partition.is_settled()
            && replication.iter().all(has_all)
            && at(&metrics, &order).is_ok();
        is_quiet.then_some(order)
    }

    /// Has the other replicas park, and then this one.
    async fn park(&self, host: &GroupHost, order: Order) {
        let Some(members) = self.members() else { return };
        let others = members.nodes.iter().filter(|(node, _)| **node != host.node);
        let asked = others.map(async |(node, voter)| {
            let node = u32::try_from(*node).map_err(|e| e.to_string())?;
            let body = encode(self, voter, &order);
            let agreed = host.links.call(node, Class::Control, 0, Kind::Park, body, ANSWER);
            agreed.await.map(drop).map_err(|e| e.to_string())
        });
        match try_join_all(asked).await {
            Ok(_) => self.parking.order(order),
            Err(reason) => {
                // Those that have parked are woken by the next heartbeat; all have to be quiet anew.
                *self.parking.quiet.lock() = None;
                tracing::debug!(partition = %self.spec.id, reason, "not parked");
            }
        }
    }
}

/// Whether openraft is where it is to park: nothing beyond, nothing that is not committed, no change of voters.
fn at(metrics: &RaftMetrics, order: &Order) -> Result<(), String> {
    let membership = metrics.membership_config.membership();
    let receivers = membership.learner_ids().count();
    let is_there = metrics.vote == order.vote
        && order.vote.is_committed()
        && metrics.last_log_index == Some(order.last)
        && metrics.last_applied.as_ref().map(|id| id.index) == Some(order.last)
        && membership.get_joint_config().len() == 1
        && receivers == 0;
    is_there
        .then_some(())
        .ok_or_else(|| "the replica is somewhere else".to_owned())
}

/// Parks what this node leads and nobody has written to for `after`, until `stop`.
pub(crate) async fn watch(
    host: Arc<GroupHost>,
    groups: impl Fn() -> Vec<Arc<Group>>,
    after: Duration,
    stop: Shutdown,
) {
    if after.is_zero() {
        return;
    }
    let mut before = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = host.env.clock.sleep(after / LOOKS) => {}
        }
        let mut groups = groups();
        let parked = groups.iter().filter(|group| group.is_parked()).count();
        if parked >= before + MANY && !host.env.tasks.is_simulated() {
            host.env.tasks.blocking(memory::give_back).await;
        }
        before = parked;
        groups.retain(|group| group.spec.may_park);
        let due = groups.into_iter().filter_map(|group| {
            let order = group.due(&host, after)?;
            Some((group, order))
        });
        let parking = stream::iter(due.collect::<Vec<_>>());
        let parking =
            parking.for_each_concurrent(AT_A_TIME, async |(group, order)| group.park(&host, order).await);
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = parking => {}
        }
    }
}

fn encode(group: &Group, voter: &super::types::Voter, order: &Order) -> Vec<Bytes> {
    let mut out = wire::addressed(group.spec.id, voter);
    wire::put_vote(&mut out, &order.vote);
    out.put_u64(order.last);
    vec![out.freeze()]
}

fn decode(mut body: Bytes) -> Result<Order, wire::WireError> {
    use bytes::Buf as _;
    let vote = wire::take_vote(&mut body)?;
    wire::need(&body, 8)?;
    let last = body.get_u64();
    Ok(Order { vote, last })
}
