//! One group's life: open the log, run openraft on it, tell the partition who leads; when it fails, say so and
//! rebuild it from disk with growing pauses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openraft::ServerState;
use openraft_rt::WatchReceiver;
use parking_lot::Mutex;
use takhin_runtime::Shutdown;
use takhin_runtime::clock::Instant;
use takhin_storage::{Checkpoint, EntryId, Log};
use tokio::sync::{Notify, watch};

use super::copy::Replacement;
use super::hard_state::{GroupId, GroupState};
use super::hold;
use super::host::{GroupHost, OpenError, log_options};
use super::in_sync;
use super::in_sync::Led;
use super::inbound::{self, Answer, Inbound};
use super::log_store::LogStore;
use super::network::Network;
use super::outbox::Outbox;
use super::state_machine::{Observer, Progress, StateMachine};
use super::types::{RaftLogId, Runtime, TypeConfig, Voter, log_id};
use super::wire;
use crate::links::Kind;
use crate::partition::Partition;
use crate::replicator::ProposalSink as _;

pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;

pub(super) type RaftMetrics = openraft::RaftMetrics<TypeConfig>;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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
}

/// A running group.
pub(crate) struct Group {
    pub(crate) spec: GroupSpec,
    preference: Mutex<Vec<u64>>,
    pub(super) running: Mutex<Option<Running>>,
    /// Applied position that was written down last.
    saved: Mutex<Option<RaftLogId>>,
    /// Replicas that lack entries which nobody else needs, and since when that is known.
    pub(super) behind: Mutex<BTreeMap<u64, Instant>>,
    /// Who keeps up, while this replica leads.
    pub(super) led: Mutex<Option<Led>>,
    stop: Shutdown,
    stopped: watch::Receiver<bool>,
    /// Held while leadership is being passed on.
    pub(super) passing: tokio::sync::Mutex<()>,
    /// A checked copy that is to take the log's place once the instance has ended.
    replacement: Mutex<Option<Replacement>>,
    /// Rung when `replacement` is there.
    replaced: Notify,
}

/// What the checkpointer and the retention manager need of an open instance.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) raft: Raft,
    inbound: Inbound,
    pub(super) log: Arc<Log>,
    pub(super) progress: Arc<Mutex<Progress>>,
    /// See `StateMachine`.
    pub(super) purge_to: Arc<Mutex<Option<RaftLogId>>>,
}

/// Why an instance ended.
enum Ended {
    Stopped,
    /// A copy is to take the log's place.
    Replaced,
    Failed(String),
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
            running: Mutex::new(None),
            saved: Mutex::new(None),
            behind: Mutex::default(),
            led: Mutex::default(),
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
        let running = self.running.lock().clone()?;
        let Progress { applied, membership } = running.progress.lock().clone();
        let applied = below(applied, &running.log.checkpoint());
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
        let running = self.running.lock();
        running.as_ref().is_some_and(|running| running.log.has(last))
    }

    /// Whether the group is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_triggered()
    }

    /// Takes what another broker asks of this group. What it returns is to be driven until it ends.
    pub(crate) fn ask(&self, kind: Kind, mut body: Bytes, answer: Answer) -> Option<BoxFuture<'static, ()>> {
        if let Err(reason) = wire::meant_for(&self.spec.voter, &mut body) {
            answer(Err(reason));
            return None;
        }
        let Some(running) = self.running.lock().clone() else {
            answer(Err("the partition is not open".to_owned()));
            return None;
        };
        running.inbound.take(kind, body, answer)
    }

    /// Whether this node, with the directory that it has, is one of those that may found the group.
    pub(super) fn is_founder(&self, host: &GroupHost) -> bool {
        let own = self.spec.founders.get(&host.node);
        own.is_some_and(|own| own.directory == host.directory)
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

    /// `voters` in the order in which they are to lead.
    pub(crate) fn in_order(&self, voters: &[u64]) -> Vec<u64> {
        let preference = self.preference.lock();
        let place = |voter: &u64| preference.iter().position(|other| other == voter);
        let mut ordered = voters.to_vec();
        ordered.sort_by_key(|voter| (place(voter).unwrap_or(usize::MAX), *voter));
        ordered
    }

    /// Whether the group holds anything here: a founding entry, a vote. `false` also while it is not open.
    pub(crate) async fn is_initialized(&self) -> bool {
        match self.raft() {
            Some(raft) => raft.is_initialized().await.unwrap_or(false),
            None => false,
        }
    }

    /// Founds the group with these voters; they elect a leader then. Does nothing if the group holds anything.
    pub(crate) async fn found(&self, voters: BTreeMap<u64, Voter>) {
        if let Some(raft) = self.raft() {
            // Openraft refuses a group that holds anything, which is as well.
            let _ = raft.initialize(voters).await;
        }
    }

    /// The leader as far as this replica knows; it may be gone.
    pub(crate) fn leader(&self) -> Option<u64> {
        let raft = self.raft()?;
        raft.server_metrics().borrow_watched().current_leader
    }

    /// openraft's handle, while the group is open.
    pub(super) fn raft(&self) -> Option<Raft> {
        self.running.lock().as_ref().map(|running| running.raft.clone())
    }

    async fn supervise(self: &Arc<Self>, host: &Arc<GroupHost>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let reason = match self.open(host).await {
                Ok(instance) => {
                    let begun = host.env.clock.instant();
                    match instance.serve(self, host).await {
                        Ended::Stopped => return,
                        Ended::Replaced => {
                            self.take_place(host).await;
                            continue;
                        }
                        Ended::Failed(reason) => {
                            if begun.elapsed() > LONGEST_PAUSE {
                                pause = FIRST_PAUSE;
                            }
                            reason
                        }
                    }
                }
                Err(OpenError::Damaged(reason)) => {
                    // Opening again would find the same damage: the readable prefix is served until a person acts.
                    self.spec.partition.offline(reason);
                    self.stop.wait().await;
                    return;
                }
                Err(OpenError::Failed(reason)) => reason,
            };
            tracing::error!(partition = %self.spec.id, %reason, "partition is offline");
            host.metrics.group_failed();
            self.spec.partition.offline(reason);
            tokio::select! {
                biased;
                () = self.stop.wait() => return,
                () = host.env.clock.sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The instance has ended, so that nothing is acknowledged any more that the copy might lack.
    async fn take_place(&self, host: &GroupHost) {
        let replacement = self.replacement.lock().take();
        if let Some(replacement) = replacement {
            replacement.take_place(host, self.spec.id).await;
        }
    }

    async fn open(self: &Arc<Self>, host: &Arc<GroupHost>) -> Result<Instance, OpenError> {
        let _slot = host.opening_slot().await;
        let spec = &self.spec;
        let opened = host.open_log(spec).await?;
        let log = opened.log;
        check_vote(host, spec.id, &log)?;
        let state = opened.state;
        spec.partition
            .attach(Arc::clone(&log), log.end().last.map_or(0, |id| id.term.into()));
        // The configuration may have changed while the log was being opened; from `attach` on a change finds the log.
        log.set_options(log_options(&spec.partition.config()));
        let applied = state.applied.filter(|_| spec.observer.is_none());
        if applied.map(|id| id.index) == log.end().last.map(|id| id.index) && applied.is_some() {
            spec.partition.committed(log.end().log_end_offset);
        }
        let progress = Arc::new(Mutex::new(Progress {
            applied,
            membership: state.membership,
        }));
        let (begun, term_begun) = watch::channel(0);
        let purge_to = Arc::default();
        let store = LogStore {
            group: spec.id,
            env: host.env.clone(),
            log: Arc::clone(&log),
            flusher: host.flusher.clone(),
            hard_state: Arc::clone(&host.hard_state),
            partition: Arc::clone(&spec.partition),
            order: Arc::default(),
            begins_after: Arc::default(),
            full_bodies: spec.observer.is_some(),
        };
        let machine = StateMachine {
            partition: Arc::clone(&spec.partition),
            log: Arc::clone(&log),
            observer: spec.observer.clone(),
            progress: Arc::clone(&progress),
            purge_to: Arc::clone(&purge_to),
            current: Arc::default(),
            term_begun: begun,
        };
        let raft = launch(host, spec, store, machine)
            .await
            .map_err(OpenError::Failed)?;
        let (inbound, appends) = Inbound::new(raft.clone());
        *self.running.lock() = Some(Running {
            raft: raft.clone(),
            inbound,
            log: Arc::clone(&log),
            progress,
            purge_to,
        });
        host.elections.notify_one();
        Ok(Instance {
            raft,
            log,
            term_begun,
            appends,
        })
    }
}

/// Raft section 5.4: a voter that has forgotten its vote might vote twice in one term. Only the founding entry (term 0) is
/// written before the first vote.
fn check_vote(host: &GroupHost, id: GroupId, log: &Log) -> Result<(), OpenError> {
    let vote = host.hard_state.vote(id);
    let vote = vote.map_err(|e| OpenError::Failed(e.to_string()))?;
    match log.end().last {
        Some(last) if vote.is_none() && last.term > 0 => Err(OpenError::Damaged(format!(
            "the log reaches term {}, but the vote store knows no vote of this partition; restore the directory's journal \
             from the same moment as its partitions, or delete the replica",
            last.term
        ))),
        _ => Ok(()),
    }
}

/// Starts openraft. A group whose only voter is this node is founded and elects itself here; for others see
/// [`super::elections`].
async fn launch(
    host: &Arc<GroupHost>,
    spec: &GroupSpec,
    store: LogStore,
    machine: StateMachine,
) -> Result<Raft, String> {
    let seed = host.env.rng.next_u64();
    let (id, config) = (host.node, Arc::clone(&host.config));
    let network = Network {
        env: host.env.clone(),
        links: Arc::clone(&host.links),
        group: spec.id,
        log: Arc::clone(&store.log),
    };
    let own = spec.founders.get(&id);
    let alone = spec.founders.len() == 1 && own.is_some_and(|own| own.directory == host.directory);
    let founders = spec.founders.clone();
    // openraft draws its randomness from a task-local seed that its tasks inherit from this scope.
    Runtime::scope(seed, async move {
        let raft = Raft::new(id, config, network, store, machine)
            .await
            .map_err(|e| e.to_string())?;
        // A crash may come between the founding entry and the first vote: then there is a log to be elected on.
        if raft.is_initialized().await.map_err(|e| e.to_string())? {
            let voters: Vec<u64> = raft.voter_ids().collect();
            if voters == [id] {
                raft.trigger().elect(false).await.map_err(|e| e.to_string())?;
            }
        } else if alone {
            raft.initialize(founders).await.map_err(|e| e.to_string())?;
            raft.trigger().elect(false).await.map_err(|e| e.to_string())?;
        }
        Ok(raft)
    })
    .await
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

/// openraft running on an open log.
struct Instance {
    raft: Raft,
    log: Arc<Log>,
    term_begun: watch::Receiver<u64>,
    appends: tokio::sync::mpsc::Receiver<inbound::Append>,
}

impl Instance {
    async fn serve(mut self, group: &Arc<Group>, host: &GroupHost) -> Ended {
        let partition = &group.spec.partition;
        let id = group.spec.id;
        let mut metrics = self.raft.server_metrics();
        let mut leading = None;
        let mut sending = Box::pin(Outbox::default().send_to(self.raft.clone(), Arc::clone(partition)));
        let mut holding = Box::pin(hold::report(
            self.raft.clone(),
            Arc::clone(&self.log),
            Arc::clone(partition),
        ));
        let mut receiving = Box::pin(inbound::serve(self.raft.clone(), self.appends));
        let ended = loop {
            let term_begun = *self.term_begun.borrow_and_update();
            let (now, is_done, other) = {
                let metrics = metrics.borrow_and_update();
                // Without other replicas nobody needs a heartbeat and nobody else campaigns.
                self.raft.runtime_config().tick(has_others(&metrics));
                let now = leading_term(&metrics, term_begun);
                // openraft refuses proposals and leads on while it hears of no majority, or passes leadership on. Here
                // one refusal ends the term: see `Partition::is_over`.
                let is_done = now.is_some_and(|term| partition.is_over(term));
                (
                    now.filter(|_| !is_done),
                    is_done,
                    followed_term(&metrics, host.node),
                )
            };
            if leading.is_some() && now != leading {
                partition.step_down();
                host.leaders.give_up(id);
                leading = None;
            }
            if let Some(term) = other {
                partition.follow(term);
            }
            if let (Some(term), None) = (now, leading) {
                // A new outbox: what the old one still holds was answered when the partition stepped down.
                let outbox = begin_to_lead(group, host, &self.raft, &self.log, term);
                sending = Box::pin(outbox.send_to(self.raft.clone(), Arc::clone(partition)));
                leading = now;
            }
            tokio::select! {
                biased;
                () = group.stop.wait() => break Ended::Stopped,
                () = group.replaced.notified() => break Ended::Replaced,
                // These metrics change with leadership, not with every entry; they end with openraft's core task.
                changed = metrics.changed() => if changed.is_err() { break Ended::Failed(why_ended(&self.raft)) },
                _ = self.term_begun.changed() => {}
                () = partition.rejection() => {}
                never = group.retire(host), if is_done => match never {},
                never = &mut receiving => match never {},
                never = &mut holding => match never {},
                never = &mut sending => match never {},
            }
        };
        partition.step_down();
        host.leaders.give_up(id);
        // Joining fails only if the core task panicked, which `Failed` has reported.
        let _ = self.raft.shutdown().await;
        *group.running.lock() = None;
        ended
    }
}

/// Has the partition serve under a term whose first entry has been applied.
fn begin_to_lead(group: &Group, host: &GroupHost, raft: &Raft, log: &Arc<Log>, term: u64) -> Outbox {
    host.metrics.leadership_gained();
    let partition = &group.spec.partition;
    let outbox = Outbox::default();
    let (voters, configs) = {
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        (voters, membership.get_joint_config().clone())
    };
    // At first all are taken to be in sync: whoever is not is found out at the next look.
    let count = u16::try_from(voters.len()).unwrap_or(u16::MAX);
    partition.set_quorum(count, in_sync::majority(&configs), true);
    partition.lead(term, Arc::clone(log), Arc::new(outbox.clone()));
    let replicas = group.in_order(&voters).into_iter();
    let replicas = replicas.filter_map(|node| i32::try_from(node).ok());
    host.leaders
        .lead(group.spec.id, partition.leader_epoch(), replicas.collect());
    outbox
}

fn why_ended(raft: &Raft) -> String {
    match &raft.metrics().borrow_watched().running_state {
        Err(fatal) => fatal.to_string(),
        Ok(()) => "the replication group ended".into(),
    }
}

/// Whether the group has replicas elsewhere, or is not founded yet.
fn has_others(metrics: &openraft::metrics::RaftServerMetrics<TypeConfig>) -> bool {
    metrics.membership_config.membership().nodes().count() != 1
}

/// The term in which this node leads and whose first entry has been applied.
fn leading_term(metrics: &openraft::metrics::RaftServerMetrics<TypeConfig>, term_begun: u64) -> Option<u64> {
    let term = metrics.vote.leader_id.term;
    (metrics.state == ServerState::Leader && term_begun == term).then_some(term)
}

/// The term of another replica that has told this one that it leads.
fn followed_term(metrics: &openraft::metrics::RaftServerMetrics<TypeConfig>, node: u64) -> Option<u64> {
    let (vote, leader) = (metrics.vote, metrics.vote.leader_id);
    (vote.is_committed() && leader.voted_for != node).then_some(leader.term)
}
