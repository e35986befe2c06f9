//! Forgetting entries: when segments go, and for compaction.

use std::time::Duration;

use openraft_rt::WatchReceiver as _;
use takhin_runtime::Env;
use takhin_storage::Log;

use super::flush::flush;
use super::group::{Ground, Group, Raft, RaftMetrics, below};
use super::hard_state::GroupState;
use super::host::GroupHost;
use super::state_machine::Progress;
use super::types::log_id;
use super::wire;
use crate::links::{Class, Kind};

/// How long a purge is waited for.
const PURGE_WAIT: Duration = Duration::from_secs(5);

/// How long a replica may hold the purging of what it lacks back, for instance while its broker restarts.
const LEAVE_BEHIND: Duration = Duration::from_secs(600);

impl Group {
    /// Lets openraft forget the entries of segments that lie wholly below the log start; storage deletes a segment
    /// when both agree that it is not needed.
    pub(crate) async fn purge_deleted(&self, env: &Env, host: &GroupHost) {
        let Some(ground) = self.ground() else {
            return;
        };
        let log_start = ground.log.end().log_start_offset;
        let segments = ground.log.stats().segments;
        let below = segments
            .iter()
            .take_while(|segment| segment.end.base_offset <= log_start);
        let last = below.last();
        if let Some(upto) = last.and_then(|segment| segment.end.first_index.checked_sub(1)) {
            self.purge(env, host, upto).await;
        }
    }

    /// Has openraft forget entries up to and including `upto`, as far as every replica has them, here and on the other
    /// replicas. Does nothing unless this replica leads.
    ///
    /// A replica that lacks entries holds them back for [`LEAVE_BEHIND`]; then it will need a copy of the segments, see
    /// [`super::copy`].
    ///
    /// # Cancel safety
    /// Safe; what was asked of openraft still happens.
    pub(crate) async fn purge(&self, env: &Env, host: &GroupHost, upto: u64) {
        if self.spec.partition.leadership().is_none() || self.awake_in_touch(host).await.is_none() {
            return;
        }
        let Some((upto, others)) = self.dispensable(host, upto) else {
            return;
        };
        self.purge_as_told(env, host, upto).await;
        for node in others {
            let body = wire::encode_purge(self.spec.id, upto);
            let told = host
                .links
                .call(node, Class::Control, 0, Kind::Purge, body, PURGE_WAIT);
            if let Err(error) = told.await {
                // Told again with the next look at the segments.
                tracing::debug!(partition = %self.spec.id, %error, "a replica does not know what it may forget");
            }
        }
    }

    /// The last entry up to `upto` that no replica waits for, and the brokers of the other replicas; `None` unless this
    /// replica leads.
    fn dispensable(&self, host: &GroupHost, upto: u64) -> Option<(u64, Vec<u32>)> {
        let metrics = self.raft()?.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let nodes = metrics.membership_config.membership().nodes();
        let nodes: Vec<u64> = nodes.map(|(id, _)| *id).filter(|id| *id != host.node).collect();
        let now = host.env.clock.instant();
        let mut behind = self.behind.lock();
        behind.retain(|node, _| nodes.contains(node));
        let mut dispensable = Some(upto);
        for node in &nodes {
            let has = replication
                .get(node)
                .and_then(|id| id.as_ref().map(|id| id.index));
            if has >= Some(upto) {
                behind.remove(node);
            } else if now.duration_since(*behind.entry(*node).or_insert(now)) < LEAVE_BEHIND {
                dispensable = dispensable.min(has);
            }
        }
        let others = nodes.into_iter().filter_map(|node| u32::try_from(node).ok());
        Some((dispensable?, others.collect()))
    }

    /// Has openraft forget every entry up to and including `upto`, as far as they are applied, up to where one of this
    /// replica's segments ends: a copy for another replica consists of whole segments.
    ///
    /// What a restart needs of them, the applied position and the membership, is made durable before. Returns when it is
    /// done or cannot be done now; nobody is told, since the log says how far it is purged.
    ///
    /// # Cancel safety
    /// Safe; what was asked of openraft still happens.
    pub(crate) async fn purge_as_told(&self, env: &Env, host: &GroupHost, upto: u64) {
        let Some(Ground { log, purge_to, .. }) = self.ground() else {
            return;
        };
        let purged = log.end().purged;
        let Some(upto) = segment_end(&log, upto) else {
            return;
        };
        if self.spec.observer.is_some() || purged.is_some_and(|purged| purged.index >= upto) {
            return;
        }
        let Some(running) = self.awake().await else {
            return;
        };
        if let Err(reason) = self.save_applied(host, &running.ground, upto).await {
            tracing::debug!(partition = %self.spec.id, reason, "not purged");
            return;
        }
        let raft = &running.raft;
        let snapshot = |m: &RaftMetrics| m.snapshot.as_ref().is_some_and(|id| id.index >= upto);
        let purged = |m: &RaftMetrics| m.purged.as_ref().is_some_and(|id| id.index >= upto);
        let purge = async {
            // These calls fail only when the group has stopped; its supervisor is told by other means.
            if !snapshot(&raft.metrics().borrow_watched()) {
                let term = log.epoch_history().epoch_at(upto);
                *purge_to.lock() = term.map(|term| log_id(term.into(), upto));
                let triggered = raft.trigger().snapshot().await.is_ok();
                if !(triggered && reached(raft, snapshot).await) {
                    return;
                }
            }
            if raft.trigger().purge_log(upto).await.is_ok() {
                reached(raft, purged).await;
            }
        };
        if env.clock.timeout(PURGE_WAIT, purge).await.is_err() {
            tracing::debug!(partition = %self.spec.id, upto, "purging takes long");
        }
    }

    /// Makes durable that `upto` is applied.
    async fn save_applied(&self, host: &GroupHost, ground: &Ground, upto: u64) -> Result<(), String> {
        flush(&host.flusher, &ground.log)
            .await
            .map_err(|e| e.to_string())?;
        let Progress { applied, membership } = ground.progress.lock().clone();
        let applied = below(applied, &ground.log.checkpoint());
        if applied.is_none_or(|id| id.index < upto) {
            return Err("not applied yet".to_owned());
        }
        let state = GroupState { applied, membership };
        let saved = host.hard_state.save_state(self.spec.id, &state).await;
        saved.map_err(|e| e.to_string())
    }
}

/// The last entry of the last segment that ends at `upto` or before.
fn segment_end(log: &Log, upto: u64) -> Option<u64> {
    let segments = log.stats().segments;
    let last = segments
        .iter()
        .rev()
        .find(|segment| segment.id.first_index <= upto.saturating_add(1))?;
    last.id.first_index.checked_sub(1)
}

/// Waits until the metrics of a group say so; `false` if it stopped before.
async fn reached(raft: &Raft, so: impl Fn(&RaftMetrics) -> bool) -> bool {
    let mut metrics = raft.metrics();
    loop {
        if so(&metrics.borrow_watched()) {
            return true;
        }
        if metrics.changed().await.is_err() {
            return false;
        }
    }
}
