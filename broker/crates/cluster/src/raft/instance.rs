//! One group's life: open the log, run openraft on it, tell the partition who leads; park it while nobody writes; when it
//! fails, say so and rebuild it from disk with growing pauses.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft_rt::WatchReceiver as _;
use parking_lot::Mutex;
use takhin_runtime::watch;
use takhin_storage::Log;

use super::group::{Ground, Group, GroupSpec, Life, Raft, Running, ServerMetrics};
use super::hard_state::{GroupId, GroupState};
use super::host::{GroupHost, OpenError, log_options};
use super::inbound::{self, Inbound};
use super::log_store::LogStore;
use super::network::Network;
use super::outbox::Outbox;
use super::pace::Pacing;
use super::parking::Woken;
use super::progress::end_after;
use super::state_machine::{Progress, StateMachine};
use super::types::Runtime;
use super::{hold, in_sync};
use crate::partition::Partition;
use crate::replicator::ProposalSink as _;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The same for a log that was found damaged: to look at it is to read its end.
const LONGEST_DAMAGED: Duration = Duration::from_secs(300);

/// How long openraft may take to find itself where it was before the group was parked; nothing is read from the disk.
const RESUME: Duration = Duration::from_secs(10);

/// Why an instance ended.
enum Ended {
    Stopped,
    /// A copy is to take the log's place.
    Replaced,
    /// Nobody writes.
    Parked(Option<Leading>),
    Failed(String),
}

/// A term that this replica leads in.
#[derive(Clone)]
pub(super) struct Leading {
    pub(super) term: u64,
    /// Where the partition puts its proposals.
    pub(super) outbox: Outbox,
}

impl Group {
    pub(super) async fn supervise(self: &Arc<Self>, host: &Arc<GroupHost>) {
        let mut pause = FIRST_PAUSE;
        let mut resumed: Option<(Ground, Option<Leading>)> = None;
        // What is boxed here goes while the group is parked; in its place it would be kept as long as this runs.
        loop {
            let opened = match resumed.take() {
                Some((ground, leading)) => Box::pin(self.resume(host, ground, leading)).await,
                None => Box::pin(self.open(host)).await,
            };
            let reason = match opened {
                Ok(instance) => {
                    let begun = host.env.clock.instant();
                    match Box::pin(instance.serve(self, host)).await {
                        Ended::Stopped => return,
                        Ended::Replaced => {
                            self.take_place(host).await;
                            continue;
                        }
                        Ended::Parked(leading) => match self.rest(host, leading).await {
                            Woken::Stopped => return,
                            Woken::Replaced => {
                                self.take_place(host).await;
                                continue;
                            }
                            Woken::Needed(ground, leading) => {
                                resumed = Some((ground, leading));
                                continue;
                            }
                        },
                        Ended::Failed(reason) => {
                            if begun.elapsed() > LONGEST_PAUSE {
                                pause = FIRST_PAUSE;
                            }
                            reason
                        }
                    }
                }
                Err(OpenError::Damaged(reason)) => {
                    // The readable prefix is served until a person acts. Looked at again all the same: a disk that fails
                    // may show less than it has.
                    self.spec.partition.offline(reason, self.is_alone());
                    if self.is_stopped_within(host, pause).await {
                        return;
                    }
                    pause = (pause * 2).min(LONGEST_DAMAGED);
                    continue;
                }
                Err(OpenError::Failed(reason)) => reason,
            };
            tracing::error!(partition = %self.spec.id, %reason, "partition is offline");
            host.metrics.group_failed();
            self.spec.partition.offline(reason, self.is_alone());
            if self.is_stopped_within(host, pause).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn is_stopped_within(&self, host: &GroupHost, pause: Duration) -> bool {
        let stopped = host.env.clock.timeout(pause, self.stop.wait()).await;
        stopped.is_ok()
    }

    /// Ends openraft; a group that is parked leads on.
    async fn end(&self, host: &GroupHost, raft: &Raft, is_parked: bool) {
        if !is_parked {
            self.leave(host);
        }
        // Joining fails only if the core task panicked, which `Failed` has reported.
        let _ = raft.shutdown().await;
        if !is_parked {
            self.set_life(Life::Closed);
        }
    }

    /// This replica leads no longer, if it did.
    pub(super) fn leave(&self, host: &GroupHost) {
        self.standing.forget();
        self.spec.partition.step_down();
        host.leaders.give_up(self.spec.id);
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
        let opened = host.open_log(self).await?;
        let log = opened.log;
        check_vote(host, spec.id, &log)?;
        let state = opened.state;
        check_applied(&state, &log)?;
        let recalled = self.recall(host, &log).await;
        recalled.map_err(|e| OpenError::Failed(e.to_string()))?;
        spec.partition
            .attach(Arc::clone(&log), log.end().last.map_or(0, |id| id.term.into()));
        // It was elected while this one was not open: clients of the epoch before are to hear of it from the first moment.
        if let Some(word) = host.leaders.of(spec.id)
            && let Ok(term) = u64::try_from(word.epoch)
        {
            spec.partition.follow(term);
        }
        // The configuration may have changed while the log was being opened; from `attach` on a change finds the log.
        log.set_options(log_options(&spec.partition.config()));
        let applied = state.applied.filter(|_| spec.observer.is_none());
        // What openraft applies from here on may be hidden entries alone, which move no high watermark.
        if let Some(id) = applied
            && let Some(committed) = end_after(&log, id.index)
        {
            spec.partition.committed(**id.committed_leader_id(), committed);
        }
        let progress = Arc::new(Mutex::new(Progress {
            applied,
            membership: state.membership,
        }));
        let ground = Ground {
            log,
            progress,
            purge_to: Arc::default(),
        };
        let (store, machine, term_begun) = assemble(host, spec, &ground, 0);
        let raft = launch(host, self, store, machine).await;
        let raft = raft.map_err(OpenError::Failed)?;
        Ok(self.begin(host, raft, ground, term_begun, None))
    }

    /// Runs openraft where it ended when the group was parked.
    ///
    /// Invariant: a replica that leads a term goes on leading it. This is safe because the process has not ended since:
    /// the log holds every entry that it has ever sent to others in that term, which after a crash is not known.
    async fn resume(
        self: &Arc<Self>,
        host: &Arc<GroupHost>,
        ground: Ground,
        leading: Option<Leading>,
    ) -> Result<Instance, OpenError> {
        let term = leading.as_ref().map(|leading| leading.term);
        let (store, machine, term_begun) = assemble(host, &self.spec, &ground, term.unwrap_or(0));
        let resumed = relaunch(host, self, store, machine, term);
        let resumed = host.env.clock.timeout(RESUME, resumed).await;
        let resumed = resumed
            .map_err(|_| "openraft does not begin".to_owned())
            .flatten();
        match resumed {
            Ok(raft) => Ok(self.begin(host, raft, ground, term_begun, leading)),
            Err(reason) => {
                self.set_life(Life::Closed);
                self.leave(host);
                Err(OpenError::Failed(reason))
            }
        }
    }

    /// openraft runs: whoever waited for it is let in.
    fn begin(
        &self,
        host: &GroupHost,
        raft: Raft,
        ground: Ground,
        term_begun: watch::Receiver<u64>,
        leading: Option<Leading>,
    ) -> Instance {
        // openraft's own timers too.
        let may_campaign = self.may_campaign(&raft.server_metrics().borrow_watched());
        raft.runtime_config().elect(may_campaign);
        let doubt = Arc::clone(&self.doubt);
        let (inbound, appends) = Inbound::new(raft.clone(), Arc::clone(&host.links), host.node, doubt);
        let log = Arc::clone(&ground.log);
        let running = Running {
            raft: raft.clone(),
            inbound: inbound.clone(),
            ground,
        };
        let mut life = self.life.lock();
        if let Life::Parked(parked) = std::mem::replace(&mut *life, Life::Running(running)) {
            // In the order in which they came, and before any that come now.
            for asking in parked.let_in(&inbound) {
                drop(host.env.tasks.spawn("raft request", asking));
            }
        }
        drop(life);
        self.lived.notify_waiters();
        host.elections.notify_one();
        Instance {
            raft,
            log,
            term_begun,
            appends,
            leading,
        }
    }
}

/// What openraft is given to run on. `term` is the one that this replica leads in already, or 0.
fn assemble(
    host: &Arc<GroupHost>,
    spec: &GroupSpec,
    ground: &Ground,
    term: u64,
) -> (LogStore, StateMachine, watch::Receiver<u64>) {
    let (begun, term_begun) = watch::channel(term);
    let store = LogStore {
        group: spec.id,
        env: host.env.clone(),
        log: Arc::clone(&ground.log),
        flusher: host.flusher.clone(),
        hard_state: Arc::clone(&host.hard_state),
        partition: Arc::clone(&spec.partition),
        order: Arc::default(),
        begins_after: Arc::default(),
        full_bodies: spec.observer.is_some(),
        in_flight: Arc::clone(&host.in_flight),
    };
    let machine = StateMachine {
        partition: Arc::clone(&spec.partition),
        log: Arc::clone(&ground.log),
        observer: spec.observer.clone(),
        progress: Arc::clone(&ground.progress),
        purge_to: Arc::clone(&ground.purge_to),
        current: Arc::default(),
        term_begun: begun,
    };
    (store, machine, term_begun)
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

/// An empty log of which entries were applied has lost them: what it answered for is not known any more.
fn check_applied(state: &GroupState, log: &Log) -> Result<(), OpenError> {
    match (state.applied, log.end().last) {
        (Some(applied), None) => Err(OpenError::Damaged(format!(
            "the log is empty, but {} of its entries were applied: restore the partition's directory, or move the replica \
             to another broker and back",
            applied.index + 1
        ))),
        _ => Ok(()),
    }
}

fn network(host: &GroupHost, group: &Group, log: &Arc<Log>) -> Network {
    let pacing = Pacing {
        env: host.env.clone(),
        own: host.node,
        links: Arc::clone(&host.links),
        throttles: Arc::clone(&host.throttles),
        partition: Arc::clone(&group.spec.partition),
        standing: Arc::clone(&group.standing),
    };
    Network {
        pacing,
        in_flight: Arc::clone(&host.in_flight),
        group: group.spec.id,
        log: Arc::clone(log),
    }
}

/// Starts openraft. A group whose only voter is this node is founded and elects itself here; for others see
/// [`super::elections`].
async fn launch(
    host: &Arc<GroupHost>,
    group: &Group,
    store: LogStore,
    machine: StateMachine,
) -> Result<Raft, String> {
    let seed = host.env.rng.next_u64();
    let (id, config) = (host.node, Arc::clone(&host.config));
    let network = network(host, group, &store.log);
    let spec = &group.spec;
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
            let is_named = group.is_named(&raft.server_metrics().borrow_watched());
            if voters == [id] && is_named {
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

/// Starts openraft again on what it had; returns once it knows that it leads in this term, if it is to, or that somebody
/// else has begun a later one meanwhile.
async fn relaunch(
    host: &Arc<GroupHost>,
    group: &Group,
    store: LogStore,
    machine: StateMachine,
    leads: Option<u64>,
) -> Result<Raft, String> {
    let seed = host.env.rng.next_u64();
    let is_to_lead = leads.is_some();
    let config = Arc::clone(if is_to_lead { &host.resuming } else { &host.config });
    let (id, network) = (host.node, network(host, group, &store.log));
    Runtime::scope(seed, async move {
        let raft = Raft::new(id, config, network, store, machine)
            .await
            .map_err(|e| e.to_string())?;
        let mut metrics = raft.server_metrics();
        let begun = |metrics: &ServerMetrics| leads.is_none_or(|term| has_begun(metrics, term));
        while !begun(&metrics.borrow_and_update()) {
            metrics.changed().await.map_err(|_| why_ended(&raft))?;
        }
        Ok(raft)
    })
    .await
}

/// openraft running on an open log.
struct Instance {
    raft: Raft,
    log: Arc<Log>,
    term_begun: watch::Receiver<u64>,
    appends: tokio::sync::mpsc::Receiver<inbound::Append>,
    /// The term that the partition serves under already.
    leading: Option<Leading>,
}

impl Instance {
    async fn serve(mut self, group: &Arc<Group>, host: &GroupHost) -> Ended {
        let partition = &group.spec.partition;
        let mut metrics = self.raft.server_metrics();
        let mut leading = self.leading.take();
        let send = |leading: Option<&Leading>| {
            let outbox = leading.map(|leading| leading.outbox.clone());
            Box::pin(send_in_touch(outbox, self.raft.clone(), Arc::clone(partition)))
        };
        let mut sending = send(leading.as_ref());
        let holding = hold::report(self.raft.clone(), Arc::clone(&self.log), Arc::clone(partition));
        let mut holding = Box::pin(holding);
        let mut receiving = Box::pin(inbound::serve(self.raft.clone(), self.appends));
        let ended = loop {
            let term_begun = *self.term_begun.borrow_and_update();
            let (now, is_done, other) = {
                let metrics = metrics.borrow_and_update();
                set_timers(group, &self.raft, &metrics);
                group.note_vote(&metrics);
                if leading.is_none() {
                    in_sync::expect_to_lead(host, group, &metrics);
                }
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
            if leading.is_some() && now != leading.as_ref().map(|leading| leading.term) {
                group.leave(host);
                leading = None;
            }
            if let Some(term) = other {
                partition.follow(term);
            }
            if let (Some(term), None) = (now, &leading) {
                // A new outbox: what the old one still holds was answered when the partition stepped down.
                let outbox = begin_to_lead(group, host, &self.raft, &self.log, term);
                leading = Some(Leading { term, outbox });
                sending = send(leading.as_ref());
            }
            tokio::select! {
                biased;
                () = group.stop.wait() => break Ended::Stopped,
                () = group.replaced.notified() => break Ended::Replaced,
                // These metrics change with leadership, not with every entry; they end with openraft's core task.
                changed = metrics.changed() => if changed.is_err() { break Ended::Failed(why_ended(&self.raft)) },
                _ = self.term_begun.changed() => {}
                () = partition.rejection() => {}
                order = group.parking.ordered() => if let Some(parked) = group.may_park(host, &order, leading.as_ref()) {
                    group.parking.fall_asleep();
                    group.set_life(Life::Parked(Box::new(parked)));
                    break Ended::Parked(leading);
                },
                never = group.retire(host), if is_done => match never {},
                never = &mut receiving => match never {},
                never = &mut holding => match never {},
                never = &mut sending => match never {},
            }
        };
        group
            .end(host, &self.raft, matches!(ended, Ended::Parked(_)))
            .await;
        ended
    }
}

/// Sends what is in `outbox` from when a majority has been heard of in this term: openraft refuses proposals before, which a
/// leader that was parked would take for the end of its term.
async fn send_in_touch(outbox: Option<Outbox>, raft: Raft, partition: Arc<Partition>) -> Infallible {
    let Some(outbox) = outbox else {
        return std::future::pending().await;
    };
    let is_alone = raft.voter_ids().count() == 1;
    let mut metrics = raft.data_metrics();
    while !is_alone && metrics.borrow_and_update().last_quorum_acked.is_none() {
        if metrics.changed().await.is_err() {
            // openraft has ended, which its supervisor sees.
            return std::future::pending().await;
        }
    }
    outbox.ring();
    outbox.send_to(raft, partition).await
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
    let replicas = group.in_order(&voters).into_iter();
    let was_in_sync = in_sync::handed_over(host, group);
    let in_sync = replicas.filter(|node| was_in_sync(*node));
    let in_sync: Vec<i32> = in_sync.filter_map(|node| i32::try_from(node).ok()).collect();
    // That this term has begun is on a majority, whatever is known of the others.
    let majority = in_sync::majority(&configs);
    let count = u16::try_from(in_sync.len()).unwrap_or(u16::MAX).max(majority);
    partition.set_quorum(count, majority, true);
    partition.lead(term, Arc::clone(log), Arc::new(outbox.clone()));
    group.standing.learn(&configs, was_in_sync);
    host.leaders
        .lead(group.spec.id, partition.leader_epoch(), in_sync);
    outbox
}

fn why_ended(raft: &Raft) -> String {
    match &raft.metrics().borrow_watched().running_state {
        Err(fatal) => fatal.to_string(),
        Ok(()) => "the replication group ended".into(),
    }
}

/// Which of openraft's own timers run.
fn set_timers(group: &Group, raft: &Raft, metrics: &ServerMetrics) {
    let config = raft.runtime_config();
    // Without other replicas nobody needs a heartbeat and nobody else campaigns.
    config.tick(has_others(metrics));
    config.elect(group.may_campaign(metrics));
}

/// Whether the group has replicas elsewhere, or is not founded yet.
fn has_others(metrics: &ServerMetrics) -> bool {
    metrics.membership_config.membership().nodes().count() != 1
}

/// The term in which this node leads and whose first entry has been applied.
fn leading_term(metrics: &ServerMetrics, term_begun: u64) -> Option<u64> {
    let term = metrics.vote.leader_id.term;
    (metrics.state == ServerState::Leader && term_begun == term).then_some(term)
}

/// Whether openraft has found that it leads in `term`, where it is to go on, or has heard of a later one. Of that it may hear with
/// the first answer of another replica, before anybody has seen that it led.
fn has_begun(metrics: &ServerMetrics, term: u64) -> bool {
    metrics.state == ServerState::Leader || metrics.vote.leader_id.term > term
}

/// The term of another replica that has told this one that it leads.
fn followed_term(metrics: &ServerMetrics, node: u64) -> Option<u64> {
    let (vote, leader) = (metrics.vote, metrics.vote.leader_id);
    (vote.is_committed() && leader.voted_for != node).then_some(leader.term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::RaftVote;

    fn metrics(state: ServerState, vote: RaftVote) -> ServerMetrics {
        ServerMetrics {
            id: 1,
            vote,
            state,
            current_leader: None,
            membership_config: Arc::default(),
            committed_membership_config: Arc::default(),
        }
    }

    #[test]
    fn a_leader_that_was_parked_is_not_waited_for_once_a_later_term_has_begun() {
        use ServerState::{Follower, Leader, Learner};
        assert!(!has_begun(&metrics(Learner, RaftVote::new(0, 0)), 7));
        assert!(!has_begun(&metrics(Follower, RaftVote::new_committed(7, 1)), 7));
        assert!(has_begun(&metrics(Leader, RaftVote::new_committed(7, 1)), 7));
        assert!(has_begun(&metrics(Follower, RaftVote::new(8, 2)), 7));
    }
}
