//! What the groups of one node share: disk, flusher, votes, openraft's settings, the limit on concurrent opens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use parking_lot::RwLock;
use takhin_config::node::Durability;
use takhin_config::topic::TopicConfig;
use takhin_runtime::Env;
use takhin_storage::{Flusher, Log, LogManager, LogOptions, LogStatus, PreviousStop};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::copy::Copies;
use super::flush::flush;
use super::group::Group;
use super::hard_state::{GroupId, GroupState, HardStateStore, decode_state};
use super::in_flight::InFlight;
use crate::leaders::Leaders;
use crate::links::Links;
use crate::metrics::Metrics;
use crate::throttle::Throttles;

/// Groups that open their logs at the same time.
const CONCURRENT_OPENS: usize = 32;

/// Silence after which nobody passes leadership to a broker.
const PRESENT: Duration = Duration::from_secs(1);

/// What a host is made of.
pub(crate) struct HostOptions {
    pub(crate) env: Env,
    pub(crate) node: u64,
    pub(crate) directory: Uuid,
    pub(crate) manager: Arc<LogManager>,
    pub(crate) flusher: Flusher,
    pub(crate) journal: Arc<takhin_storage::Journal>,
    pub(crate) previous: PreviousStop,
    pub(crate) metrics: Metrics,
    pub(crate) links: Arc<dyn Links>,
    pub(crate) leaders: Arc<Leaders>,
}

pub(crate) struct GroupHost {
    pub(crate) env: Env,
    pub(crate) node: u64,
    pub(crate) directory: Uuid,
    pub(crate) manager: Arc<LogManager>,
    pub(crate) flusher: Flusher,
    pub(crate) hard_state: Arc<HardStateStore>,
    /// How the process before this one ended.
    pub(super) previous: PreviousStop,
    pub(crate) config: Arc<Config>,
    /// The same for a group that goes on leading the term that it was parked in.
    pub(super) resuming: Arc<Config>,
    pub(crate) metrics: Metrics,
    pub(crate) links: Arc<dyn Links>,
    pub(crate) leaders: Arc<Leaders>,
    /// Nodes that are to lead nothing while others can.
    draining: RwLock<Arc<BTreeSet<u64>>>,
    /// Rung when a group may want a leader.
    pub(crate) elections: Notify,
    /// Copies that are being received.
    pub(super) copies: Copies,
    /// How fast replicas are sent and take what they lack.
    pub(crate) throttles: Arc<Throttles>,
    /// What is held for replicas that have not answered.
    pub(super) in_flight: Arc<InFlight>,
    opening: Semaphore,
}

/// An open log and what the group had applied.
pub(crate) struct OpenedLog {
    pub(crate) log: Arc<Log>,
    pub(crate) state: GroupState,
}

/// Why a group did not start.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// Committed data is damaged, or seems so.
    Damaged(String),
    /// Worth another try.
    Failed(String),
}

impl GroupHost {
    /// Whether another broker was heard of within the last second.
    pub(crate) fn is_present(&self, node: u64) -> bool {
        let silence = u32::try_from(node).ok().and_then(|node| self.links.silence(node));
        silence.is_some_and(|silence| silence < PRESENT)
    }

    /// Whether another broker, which is there, has said that it leads the partition.
    pub(crate) fn hears_leader(&self, id: GroupId) -> bool {
        let leader = self.leaders.leader_of(id);
        let leader = leader.and_then(|(leader, _)| u64::try_from(leader).ok());
        leader.is_some_and(|leader| leader != self.node && self.is_present(leader))
    }

    pub(crate) fn new(options: HostOptions) -> Arc<Self> {
        let HostOptions {
            env,
            node,
            directory,
            manager,
            flusher,
            journal,
            previous,
            metrics,
            links,
            leaders,
        } = options;
        Arc::new(Self {
            node,
            directory,
            manager,
            flusher,
            previous,
            hard_state: Arc::new(HardStateStore::new(journal, env.tasks.clone())),
            throttles: Arc::new(Throttles::new(&env.clock)),
            in_flight: Arc::default(),
            env,
            config: Arc::new(config()),
            resuming: Arc::new(Config {
                enable_leader_restore: Some(true),
                ..config()
            }),
            metrics,
            links,
            leaders,
            draining: RwLock::default(),
            elections: Notify::new(),
            copies: Copies::default(),
            opening: Semaphore::new(CONCURRENT_OPENS),
        })
    }

    /// Nodes that are to lead nothing while others can.
    pub(crate) fn draining(&self) -> Arc<BTreeSet<u64>> {
        Arc::clone(&self.draining.read())
    }

    pub(crate) fn set_draining(&self, nodes: BTreeSet<u64>) {
        *self.draining.write() = Arc::new(nodes);
    }

    pub(crate) async fn opening_slot(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.opening.acquire().await.ok()
    }

    pub(super) async fn open_log(self: &Arc<Self>, group: &Group) -> Result<OpenedLog, OpenError> {
        let spec = &group.spec;
        let failed = |e: &dyn std::error::Error| OpenError::Failed(describe(e));
        let expected = group.expect_loss(self).await;
        let expected = expected.map_err(|e| OpenError::Failed(e.to_string()))?;
        let (manager, id) = (Arc::clone(&self.manager), spec.id.into());
        let options = log_options(&spec.partition.config());
        let opened = self.env.tasks.blocking(move || manager.open(id, options)).await;
        let (log, report) = opened.map_err(|e| failed(&e))?;
        for action in &report.actions {
            tracing::warn!(partition = %spec.id, ?action, "recovery");
        }
        if !expected {
            // It may have failed a moment ago.
            let begun = group.find_loss(self, &report).await;
            begun.map_err(|e| failed(&e))?;
        }
        if let LogStatus::Damaged(at) = log.status() {
            spec.partition.attach_damaged(Arc::clone(&log), group.is_alone());
            let (path, position) = (at.path.display(), at.position);
            return Err(OpenError::Damaged(format!(
                "{path}: byte {position}, offset {}: {}",
                at.offset, at.damage
            )));
        }
        self.read_note(spec.id).await.map_err(OpenError::Failed)?;
        let state = self.hard_state.state(spec.id).map_err(|e| failed(&e))?;
        Ok(OpenedLog { log, state })
    }

    /// A log that came as a copy brings along what was applied at its end; it is durable here before the copy forgets it.
    async fn read_note(&self, id: GroupId) -> Result<(), String> {
        let (manager, partition) = (Arc::clone(&self.manager), id.into());
        let note = self.env.tasks.blocking(move || manager.note(partition)).await;
        let Some(note) = note.map_err(|e| describe(&e))? else {
            return Ok(());
        };
        let state = decode_state(&note).ok_or("the note of a copied log cannot be decoded")?;
        let saved = self.hard_state.save_state(id, &state).await;
        saved.map_err(|e| describe(&e))?;
        let manager = Arc::clone(&self.manager);
        let cleared = self
            .env
            .tasks
            .blocking(move || manager.clear_note(partition))
            .await;
        cleared.map_err(|e| describe(&e))
    }

    /// Puts a changed topic configuration into force in a group.
    ///
    /// Once this returns everything that was acknowledged is as safe as the new configuration promises: a topic that
    /// becomes flushed has its log synced first.
    pub(crate) async fn configure(&self, group: &Group, config: &Arc<TopicConfig>) {
        let partition = &group.spec.partition;
        let id = group.spec.id;
        if config.durability == Durability::Cached
            && let Err(error) = self.hard_state.set_cached(id, true).await
        {
            // Until it can be told after a loss of power, nothing counts before it is on the disk.
            tracing::warn!(partition = %id, %error, "stays flushed until the broker begins anew");
            partition.set_config(Arc::new(TopicConfig {
                durability: Durability::Flushed,
                ..TopicConfig::clone(config)
            }));
            return;
        }
        partition.set_config(Arc::clone(config));
        let Some(log) = partition.log() else {
            // Opening: it goes by the configuration that it finds then.
            return;
        };
        log.set_options(log_options(config));
        // A failure shows as the log's state, and the group's supervisor sees to it.
        if config.durability == Durability::Flushed
            && (log.unsynced_bytes() == 0 || flush(&self.flusher, &log).await.is_ok())
            && !group.doubt.is_any()
            && let Err(error) = self.hard_state.set_cached(id, false).await
        {
            tracing::warn!(partition = %id, %error, "counts as cached until the broker begins anew");
        }
    }

    /// Writes down where each group stands, so that the next start scans only what came after.
    pub(crate) fn checkpoint<'a>(&self, groups: impl IntoIterator<Item = &'a Arc<Group>>) {
        let states: Vec<(GroupId, GroupState)> = groups
            .into_iter()
            .filter_map(|group| Some((group.spec.id, group.state()?)))
            .collect();
        // Watermarks first: an applied position without the watermark that covers it would be believed of a log that
        // recovery may still cut.
        let written = self
            .manager
            .store_watermarks(false)
            .and_then(|_| self.hard_state.save_states(&states));
        if let Err(error) = written {
            tracing::warn!(%error, "checkpoint not written; the next start scans more");
        }
    }
}

/// The storage settings of a topic.
pub(in crate::raft) fn log_options(config: &TopicConfig) -> LogOptions {
    LogOptions {
        segment_bytes: config.segment_bytes,
        // Only closed segments are compacted, so one must close before a record in it is overdue (Kafka's maxSegmentMs).
        segment_ms: match config.cleanup_policy.compact {
            true => config.segment_ms.min(config.max_compaction_lag_ms),
            false => config.segment_ms,
        },
        index_interval_bytes: config.index_interval_bytes,
        // An entry of the offset index has twelve bytes.
        index_max_entries: config.segment_index_bytes / 12,
        ..LogOptions::default()
    }
}

/// An error with its causes on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Long native timers as the safety net: elections are called for by [`super::elections`].
fn config() -> Config {
    Config {
        cluster_name: "takhin".into(),
        heartbeat_interval: 5_000,
        election_timeout_min: 20_000,
        election_timeout_max: 40_000,
        heartbeat_min_interval: Some(0),
        max_payload_entries: 256,
        snapshot_policy: SnapshotPolicy::Never,
        // A snapshot is only a position; what is purged, `Group::purge` says.
        max_in_snapshot_log_to_keep: u64::MAX,
        log_stage_capacity: Some(8),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        // A replica of a cached topic that has lost the end of its log is sent it again; what it must not do before it has
        // it, `doubt` sees to.
        allow_log_reversion: Some(true),
        ..Config::default()
    }
}
