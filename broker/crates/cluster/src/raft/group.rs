//! A group as the rest of the node sees it: what it replicates, whether openraft runs, what it is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openraft_rt::WatchReceiver as _;
use parking_lot::Mutex;
use takhin_runtime::clock::Instant;
use takhin_runtime::{Shutdown, watch};
use takhin_storage::{Checkpoint, EntryId, Log};
use tokio::sync::Notify;

use super::copy::Replacement;
use super::doubt::Doubt;
use super::hard_state::{GroupId, GroupState};
use super::host::GroupHost;
use super::in_sync::Led;
use super::inbound::{Answer, Inbound};
use super::pace::Standing;
use super::parking::{Parked, Parking};
use super::state_machine::{Observer, Progress, StateMachine};
use super::types::{RaftLogId, TypeConfig, Voter, log_id};
use super::wire;
use crate::links::Kind;
use crate::partition::Partition;

pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(super) type ServerMetrics = openraft::metrics::RaftServerMetrics<TypeConfig>;

pub(super) type RaftMetrics = openraft::RaftMetrics<TypeConfig>;

/// What a group is to replicate, and how.
#[derive(Clone)]
pub(crate) struct GroupSpec {
    pub(crate) id: GroupId,
    pub(crate) partition: Arc<Partition>,
    /// What this replica is in the group.
    pub(crate) voter: Voter,
    /// The voters that the group is founded with. Only a replica that is one of them, and has neither vote nor entry, ever
    /// founds it; a replica that was added later is brought in by the others.
    pub(crate) founders: BTreeMap<u64, Voter>,
    /// The brokers of the replicas in the order in which they are to lead, at first.
    pub(crate) preference: Vec<u64>,
    /// Sees every committed batch from the first on, at each start.
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// Whether openraft may end while nobody writes.
    pub(crate) may_park: bool,
}

/// A running group.
pub(crate) struct Group {
    pub(crate) spec: GroupSpec,
    preference: Mutex<Vec<u64>>,
    pub(super) life: Mutex<Life>,
    /// Rung for all who wait when `life` changes.
    pub(super) lived: Notify,
    pub(super) parking: Parking,
    /// Applied position that was written down last.
    saved: Mutex<Option<RaftLogId>>,
    /// Replicas that lack entries which nobody else needs, and since when that is known.
    pub(super) behind: Mutex<BTreeMap<u64, Instant>>,
    /// Who keeps up, while this replica leads.
    pub(super) led: Mutex<Option<Led>>,
    /// Whom this replica must not throttle, while it leads.
    pub(super) standing: Arc<Standing>,
    /// Whether this replica has no vote.
    pub(super) receives: AtomicBool,
    /// Whether this replica may lack what it has answered for.
    pub(super) doubt: Arc<Doubt>,
    /// Whether the log was opened before in this process, with all that it may lack written down.
    pub(super) was_open: AtomicBool,
    pub(super) stop: Shutdown,
    stopped: watch::Receiver<bool>,
    /// Held while leadership is being passed on.
    pub(super) passing: tokio::sync::Mutex<()>,
    /// A checked copy that is to take the log's place once the instance has ended.
    pub(super) replacement: Mutex<Option<Replacement>>,
    /// Rung when `replacement` is there.
    pub(super) replaced: Notify,
}

/// Whether openraft runs for a group.
pub(super) enum Life {
    /// It is being opened, or has failed.
    Closed,
    Running(Running),
    /// Nobody has written for a while.
    Parked(Box<Parked>),
}

/// What openraft runs on.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) log: Arc<Log>,
    pub(super) progress: Arc<Mutex<Progress>>,
    /// See `StateMachine`.
    pub(super) purge_to: Arc<Mutex<Option<RaftLogId>>>,
}

/// openraft, running.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) raft: Raft,
    pub(super) inbound: Inbound,
    pub(super) ground: Ground,
}

impl Group {
    /// Starts the group's supervisor.
    pub(crate) fn start(host: Arc<GroupHost>, spec: GroupSpec) -> Arc<Self> {
        let stop = Shutdown::new();
        let (ended, stopped) = watch::channel(false);
        let preference = Mutex::new(spec.preference.clone());
        let group = Arc::new(Self {
            spec,
            preference,
            life: Mutex::new(Life::Closed),
            lived: Notify::new(),
            parking: Parking::default(),
            saved: Mutex::new(None),
            behind: Mutex::default(),
            led: Mutex::default(),
            standing: Arc::default(),
            receives: AtomicBool::new(false),
            doubt: Arc::default(),
            was_open: AtomicBool::new(false),
            stop,
            stopped,
            passing: tokio::sync::Mutex::default(),
            replacement: Mutex::default(),
            replaced: Notify::new(),
        });
        let supervised = Arc::clone(&group);
        let tasks = host.env.tasks.clone();
        tasks.spawn("raft group", async move {
            supervised.supervise(&host).await;
            ended.send_replace(true);
        });
        group
    }

    /// Ends the group and waits until it no longer touches its files.
    pub(crate) async fn stop(&self) {
        self.stop.trigger();
        let mut stopped = self.stopped.clone();
        // The sender lives in the supervisor; an error means that it is gone, which is what we wait for.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    /// What to write down so that the next start begins here; nothing if that has not changed since the last call.
    pub(crate) fn state(&self) -> Option<GroupState> {
        if self.spec.observer.is_some() {
            // Its records are replayed from the first one at each start.
            return None;
        }
        let ground = self.ground()?;
        let Progress { applied, membership } = ground.progress.lock().clone();
        let applied = below(applied, &ground.log.checkpoint());
        let mut saved = self.saved.lock();
        if applied == *saved {
            return None;
        }
        *saved = applied;
        Some(GroupState { applied, membership })
    }

    /// Ends the group's instance, and begins anew with this copy in the log's place if the log still lacks what it holds;
    /// `None` takes back what has not begun. Whether there was a copy that is not in place yet.
    pub(super) fn replace(&self, replacement: Option<Replacement>) -> bool {
        let is_new = replacement.is_some();
        let before = std::mem::replace(&mut *self.replacement.lock(), replacement);
        if is_new {
            self.replaced.notify_one();
        }
        before.is_some()
    }

    /// Whether the group is open, and its log holds this entry.
    pub(super) fn holds(&self, last: EntryId) -> bool {
        self.ground().is_some_and(|ground| ground.log.has(last))
    }

    /// Whether the group is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_triggered()
    }

    /// Takes what another broker asks of this group. What it returns is to be driven until it ends. `hears_leader` says whether
    /// the broker hears of another one that leads it.
    pub(crate) fn ask(
        &self,
        kind: Kind,
        mut body: Bytes,
        answer: Answer,
        hears_leader: impl FnOnce() -> bool,
    ) -> Option<BoxFuture<'static, ()>> {
        if let Err(reason) = wire::meant_for(&self.spec.voter, &mut body) {
            answer(Err(reason));
            return None;
        }
        if kind == Kind::Park {
            answer(self.agree_to_park(body).map(|()| Bytes::new()));
            return None;
        }
        let mut life = self.life.lock();
        let inbound = match &mut *life {
            Life::Running(running) => {
                if kind == Kind::Transfer && !self.is_named(&running.raft.server_metrics().borrow_watched()) {
                    answer(Err("the replica knows of older members only".to_owned()));
                    return None;
                }
                running.inbound.clone()
            }
            Life::Parked(parked) => {
                let refusal = (kind == Kind::PreVote)
                    .then(|| parked.refusal(&body, hears_leader))
                    .flatten();
                let wakes = match refusal {
                    Some(refusal) => {
                        answer(refusal);
                        // A leader that is doubted has all hear of it again.
                        parked.leads
                    }
                    None => parked.put(kind, body, answer),
                };
                if wakes {
                    self.parking.wake();
                }
                return None;
            }
            Life::Closed => {
                drop(life);
                answer(Err("the partition is not open".to_owned()));
                return None;
            }
        };
        drop(life);
        if kind == Kind::Append {
            self.count_received(body.len());
        }
        inbound.take(kind, body, answer)
    }

    /// Whether this node, with the directory that it has, is one of those that may found the group.
    pub(super) fn is_founder(&self, host: &GroupHost) -> bool {
        let own = self.spec.founders.get(&host.node);
        own.is_some_and(|own| own.directory == host.directory)
    }

    /// Whether the members that openraft goes by name this very replica.
    ///
    /// Invariant: a replica campaigns only under members that do. One that was added after another one of its broker had
    /// been removed hears of older members first, from a snapshot or entry by entry, and these may name that other one,
    /// alone even: to give itself that one's vote would be to lead a term beside the leader, without what is committed.
    pub(super) fn is_named(&self, metrics: &ServerMetrics) -> bool {
        let members = metrics.membership_config.membership();
        let named = members.get_node(&metrics.id);
        // A release that knew one broker only did not name its directory.
        named.is_some_and(|named| *named == self.spec.voter || named.directory.is_nil())
    }

    /// Whether openraft may campaign by its own timers.
    pub(super) fn may_campaign(&self, metrics: &ServerMetrics) -> bool {
        !self.doubt.is_any() && self.is_named(metrics)
    }

    /// From now on the replicas on these brokers are to lead in this order.
    pub(crate) fn prefer(&self, order: &[i32]) {
        let order = order.iter().map(|broker| u64::from(broker.unsigned_abs()));
        let mut preference = self.preference.lock();
        // Asked at every change of the metadata, and seldom news.
        if !order.clone().eq(preference.iter().copied()) {
            *preference = order.collect();
        }
    }

    /// The replica that is to lead.
    pub(crate) fn preferred(&self) -> Option<u64> {
        self.preference.lock().first().copied()
    }

    /// Whether no other replica can lead. A leader adds others only after the metadata have named them, so that nobody is
    /// overlooked while replicas are moved.
    pub(super) fn is_alone(&self) -> bool {
        self.preference.lock().len() <= 1
    }

    /// `voters` in the order in which they are to lead.
    pub(crate) fn in_order(&self, voters: &[u64]) -> Vec<u64> {
        let preference = self.preference.lock();
        let place = |voter: &u64| preference.iter().position(|other| other == voter);
        let mut ordered = voters.to_vec();
        ordered.sort_by_key(|voter| (place(voter).unwrap_or(usize::MAX), *voter));
        ordered
    }

    /// Whether the group holds anything here: a founding entry, a vote.
    ///
    /// `None` while its log is not open: nothing is known then, least of all that there is nothing.
    pub(crate) async fn is_initialized(&self) -> Option<bool> {
        self.raft()?.is_initialized().await.ok()
    }

    /// Founds the group with these voters; they elect a leader then. Does nothing if the group holds anything.
    pub(crate) async fn found(&self, voters: BTreeMap<u64, Voter>) {
        if let Some(raft) = self.raft() {
            // Openraft refuses a group that holds anything, which is as well.
            let _ = raft.initialize(voters).await;
        }
    }

    /// Has the other replicas hear at once how far the log is committed, if this one leads.
    pub(crate) async fn send_heartbeat(&self) {
        if let Some(raft) = self.raft() {
            // An error means that the group has stopped, which its supervisor sees.
            let _ = raft.trigger().heartbeat().await;
        }
    }

    /// The leader as far as this replica knows; it may be gone.
    pub(crate) fn leader(&self) -> Option<u64> {
        let raft = self.raft()?;
        raft.server_metrics().borrow_watched().current_leader
    }

    /// openraft's handle, while it runs.
    pub(super) fn raft(&self) -> Option<Raft> {
        match &*self.life.lock() {
            Life::Running(running) => Some(running.raft.clone()),
            Life::Closed | Life::Parked(_) => None,
        }
    }

    pub(super) fn running(&self) -> Option<Running> {
        match &*self.life.lock() {
            Life::Running(running) => Some(running.clone()),
            Life::Closed | Life::Parked(_) => None,
        }
    }

    /// What openraft runs on, or ran on before the group was parked.
    pub(super) fn ground(&self) -> Option<Ground> {
        match &*self.life.lock() {
            Life::Running(running) => Some(running.ground.clone()),
            Life::Parked(parked) => Some(parked.ground.clone()),
            Life::Closed => None,
        }
    }

    pub(super) fn set_life(&self, life: Life) {
        *self.life.lock() = life;
        self.lived.notify_waiters();
    }
}

/// The applied position to write down: never above what the checkpoint says is on disk.
pub(super) fn below(applied: Option<RaftLogId>, checkpoint: &Checkpoint) -> Option<RaftLogId> {
    let durable = checkpoint.last.map(|id| log_id(id.term.into(), id.index));
    if applied.map(|id| id.index) <= durable.map(|id| id.index) {
        applied
    } else {
        durable
    }
}
