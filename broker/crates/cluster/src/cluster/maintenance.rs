//! What runs beside the requests: following the image, checkpoints, retention, producers that have stopped (compaction is in
//! `cleaner.rs`); and the orderly end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use takhin_config::node::{Durability, Storage};

use super::Cluster;
use crate::partition::Partition;
use crate::raft::{Group, flush, watch_doubts, watch_elections, watch_in_sync, watch_parking};

/// Longest pause between two syncs of what topics have written that acknowledge before a sync.
const CACHED_FLUSH: Duration = Duration::from_secs(10);

/// Unsynced bytes from which such a topic does not wait for [`CACHED_FLUSH`]. Appends stand still while the file system
/// commits what a sync has written: with 3 GB to write they did for a quarter of a second.
const CACHED_FLUSH_BYTES: u64 = 16 << 20;

impl Cluster {
    pub(super) fn spawn_elections(self: &Arc<Self>) {
        let groups = || {
            let exchange = Arc::clone(&self.exchange);
            move || exchange.all_groups()
        };
        let (host, tasks) = (&self.host, &self.env.tasks);
        let elections = watch_elections(Arc::clone(host), groups(), self.stop.clone());
        let in_sync = watch_in_sync(Arc::clone(host), groups(), self.stop.clone());
        let parked = || {
            let exchange = Arc::clone(&self.exchange);
            move || exchange.groups.read().values().cloned().collect()
        };
        let parking = watch_parking(
            Arc::clone(host),
            parked(),
            self.options.park_after,
            self.stop.clone(),
        );
        let doubts = watch_doubts(Arc::clone(host), groups(), self.stop.clone());
        self.background.lock().extend([
            tasks.spawn("elections", elections),
            tasks.spawn("replicas in doubt", doubts),
            tasks.spawn("in-sync replicas", in_sync),
            tasks.spawn("parking", parking),
        ]);
    }

    pub(super) fn spawn_background(self: &Arc<Self>) {
        let tasks = &self.env.tasks;
        let handles = vec![
            tasks.spawn("peers", super::peers::follow(Arc::clone(self))),
            tasks.spawn("presence", super::presence::watch(Arc::clone(self))),
            tasks.spawn("balance", super::balance::keep(Arc::clone(self))),
            tasks.spawn("reassignments", super::reassign::keep(Arc::clone(self))),
            tasks.spawn("moves", super::moves::show(Arc::clone(self))),
            tasks.spawn("lag", super::lag::show(Arc::clone(self))),
            tasks.spawn("rebalance", super::rebalance::keep(Arc::clone(self))),
            tasks.spawn("room", super::rebalance::watch_disks(Arc::clone(self))),
            tasks.spawn("drain", super::drain::keep(Arc::clone(self))),
            tasks.spawn("members", super::members::keep(Arc::clone(self))),
            tasks.spawn("image follower", follow_image(Arc::clone(self))),
            tasks.spawn("checkpointer", checkpoint(Arc::clone(self))),
            tasks.spawn("retention", retention(Arc::clone(self))),
            tasks.spawn("producer expiry", expire_producers(Arc::clone(self))),
            tasks.spawn("orphans", super::orphans::sweep(Arc::clone(self))),
            tasks.spawn("cleaner", super::cleaner::run(Arc::clone(self))),
            tasks.spawn("recovery watcher", watch_recovery(Arc::clone(self))),
        ];
        self.background.lock().extend(handles);
    }

    pub(super) async fn close_groups(&self) {
        let all = self.all_groups();
        let mut clean = true;
        for group in &all {
            let Some(log) = group.spec.partition.log() else {
                continue;
            };
            if let Err(error) = flush(self.flusher.flusher(), &log).await {
                tracing::warn!(partition = %group.spec.id, %error, "not flushed at the end; the next start recovers");
                clean = false;
            }
        }
        self.host.checkpoint(&all);
        for group in &all {
            group.stop().await;
        }
        self.flusher.stop(&self.env).await;
        let (manager, data_dir) = (Arc::clone(&self.manager), self.data_dir.lock().take());
        let closed = self.env.tasks.blocking(move || -> Result<bool, CloseError> {
            let all = manager.close_all()?;
            if let (true, true, Some(data_dir)) = (all, clean, data_dir) {
                data_dir.close()?;
                return Ok(true);
            }
            Ok(false)
        });
        match closed.await {
            Ok(true) => tracing::info!("data directory closed cleanly"),
            Ok(false) => tracing::warn!("not everything was closed cleanly; the next start recovers"),
            Err(error) => tracing::warn!(%error, "not closed cleanly; the next start recovers"),
        }
    }

    /// Has a group forget what its leader says that all replicas have.
    pub(crate) async fn purge_as_told(&self, group: &Group, upto: u64) {
        group.purge_as_told(&self.env, &self.host, upto).await;
    }

    /// Takes a step of a copy of another replica's segments.
    pub(crate) async fn receive(&self, group: &Arc<Group>, body: Bytes) -> Result<Bytes, String> {
        group.receive(&self.host, body).await
    }

    pub(super) fn all_groups(&self) -> Vec<Arc<Group>> {
        self.exchange.all_groups()
    }
}

/// Why the data directory was not closed.
#[derive(Debug, thiserror::Error)]
enum CloseError {
    #[error(transparent)]
    Logs(#[from] takhin_storage::ManagerError),
    #[error(transparent)]
    Directory(#[from] takhin_storage::DataDirError),
}

async fn follow_image(cluster: Arc<Cluster>) {
    let mut image = cluster.controller.image();
    loop {
        cluster.learn_draining(&image);
        cluster.learn_rates(&image);
        cluster.reconcile(&image).await;
        image = tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            next = cluster.controller.image_after(image.end_offset) => next,
        };
    }
}

/// Syncs what cached topics have written, so that a recovery scans seconds of data and not all of it. Nobody waits:
/// a failure shows as the log's state.
fn flush_cached(cluster: &Cluster, groups: &[Arc<Group>], from_bytes: u64) {
    for group in groups {
        if group.spec.partition.config().durability == Durability::Cached
            && let Some(log) = group.spec.partition.log()
            && log.unsynced_bytes() >= from_bytes
        {
            cluster.flusher.flusher().submit(log, drop);
        }
    }
}

/// Once every log has been opened, a later kill is only a kill: a power loss before this run is overcome, or it is
/// written down what it may have cost.
async fn watch_recovery(cluster: Arc<Cluster>) {
    let opened = cluster.each_partition(|partition| partition.log().is_some());
    tokio::select! {
        biased;
        () = cluster.stop.wait() => return,
        () = opened => {}
    }
    let watched = Arc::clone(&cluster);
    let recovered = move || {
        watched
            .data_dir
            .lock()
            .as_ref()
            .map_or(Ok(()), |data_dir| data_dir.recovered())
    };
    if let Err(error) = cluster.env.tasks.blocking(recovered).await {
        tracing::warn!(%error, "the next start repeats the recovery of this one");
    }
}

async fn checkpoint(cluster: Arc<Cluster>) {
    let mut flush_at = cluster.env.clock.instant();
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(cluster.options.checkpoint_interval) => {}
        }
        // Nothing is written down of a partition that is deleted meanwhile: made anew, it would be taken for the old one.
        let _turn = cluster.reconciling.lock().await;
        let groups = cluster.all_groups();
        if cluster.env.clock.instant() >= flush_at {
            flush_at = cluster.env.clock.instant() + CACHED_FLUSH;
            flush_cached(&cluster, &groups, 0);
        } else {
            flush_cached(&cluster, &groups, CACHED_FLUSH_BYTES);
        }
        let (host, disk) = (Arc::clone(&cluster.host), Arc::clone(&cluster.env.disk));
        let (gate, options) = (Arc::clone(&cluster.disk_gate), cluster.options.clone());
        cluster
            .env
            .tasks
            .blocking(move || {
                gate.update(&disk, &options.data_dir, options.min_free_bytes);
                host.checkpoint(&groups);
            })
            .await;
    }
}

async fn retention(cluster: Arc<Cluster>) {
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = pause(&cluster, |storage| storage.retention_check_interval) => {}
        }
        for group in cluster.all_groups() {
            let partition = Arc::clone(&group.spec.partition);
            let now_ms = cluster.env.clock.now_ms();
            if group.spec.observer.is_none() {
                cluster
                    .env
                    .tasks
                    .blocking(move || retain(&partition, now_ms))
                    .await;
            }
            tokio::select! {
                biased;
                () = cluster.stop.wait() => return,
                () = group.purge_deleted(&cluster.env, &cluster.host) => {}
            }
        }
    }
}

/// Forgets idempotent producers that have stopped writing. As in Kafka each replica does so by its own clock: a leader
/// that remembers longer than another only finds more duplicates.
async fn expire_producers(cluster: Arc<Cluster>) {
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = pause(&cluster, |storage| storage.producer_expiration_check_interval) => {}
        }
        let expiration = cluster
            .controller
            .image()
            .settings
            .node
            .storage
            .producer_expiration;
        let expiration_ms = i64::try_from(expiration.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = cluster.env.clock.now_ms().saturating_sub(expiration_ms);
        let groups = cluster.all_groups();
        let expire = move || {
            for group in &groups {
                group.spec.partition.expire_producers(oldest_ms);
            }
        };
        // Nothing blocks, but a table may be long.
        cluster.env.tasks.blocking(expire).await;
    }
}

/// Lasts as long as the pause is set to be, from its beginning on; a change of the setting holds for this one already.
pub(super) async fn pause(cluster: &Cluster, length: impl Fn(&Storage) -> Duration) {
    let began = cluster.env.clock.instant();
    loop {
        let image = cluster.controller.image();
        let pause = length(&image.settings.node.storage);
        tokio::select! {
            biased;
            () = cluster.env.clock.sleep_until(began + pause) => return,
            _ = cluster.controller.image_after(image.end_offset) => {}
        }
    }
}

/// Rolls an aged segment and proposes the log start that the topic's limits ask for.
fn retain(partition: &Partition, now_ms: i64) {
    let (Some(log), Some(_)) = (partition.log(), partition.leadership()) else {
        return;
    };
    let config = partition.config();
    // Without the policy only DeleteRecords moves the log start.
    let (retention_ms, retention_bytes) = match config.cleanup_policy.delete {
        true => (config.retention_ms, config.retention_bytes),
        false => (-1, -1),
    };
    let point = log.roll_if_expired(now_ms).and_then(|_| {
        let bound = partition.offsets().high_watermark;
        log.retention_point(now_ms, retention_ms, retention_bytes, bound)
    });
    match point {
        Ok(Some(offset)) => {
            tracing::info!(partition = %partition.id(), log_start_offset = offset, "retention moves the log start");
            // Refused while leadership changes hands; the next round asks again.
            let _ = partition.propose_log_start(offset);
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(partition = %partition.id(), %error, "retention could not look at the log")
        }
    }
}
