//! What a partition knows, behind one short lock.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use takhin_config::topic::TopicConfig;
use takhin_runtime::clock::Instant;
use takhin_storage::{Log, ProducerTable};
use tokio::sync::Notify;

use super::control::PartitionId;
use super::in_flight::Queue;
use super::types::Offsets;
use super::waiter::Waiter;
use crate::disk_gate::DiskGate;
use crate::replicator::Replicator;

/// Fetches that may wait for one partition; the oldest is woken early (and answers with what there is) when one
/// more arrives.
const MAX_WAITERS: usize = 16 * 1024;

/// One partition on this broker.
pub struct Partition {
    id: PartitionId,
    config: RwLock<Arc<TopicConfig>>,
    disk: Arc<DiskGate>,
    pub(super) state: Mutex<State>,
    /// Highest term in which a proposal was rejected; 0 before the first.
    pub(super) rejected: AtomicU64,
    pub(super) rejection: Notify,
    pub(super) acks_changed: Notify,
}

/// What the partition may do.
pub(super) enum Phase {
    /// Opening, or some other broker leads.
    Following,
    /// Serving under this term.
    Leading {
        term: u64,
        replicator: Arc<dyn Replicator>,
        /// Another replica is to lead: what is under way ends, nothing more is taken.
        handing_over: bool,
    },
    /// Storage failed; a supervisor is at it.
    Offline {
        reason: String,
        /// Whether nobody else can lead, so that what can be read here is all that anybody has to say.
        is_alone: bool,
    },
    /// The topic was deleted.
    Deleted,
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) log: Option<Arc<Log>>,
    /// Last known leader epoch; -1 before the first.
    pub(super) epoch: i32,
    /// Offset that the next proposed batch gets: the log end plus what was proposed and not yet appended.
    pub(super) next_offset: i64,
    /// First offset not committed.
    pub(super) high_watermark: i64,
    /// Producer state including proposed batches.
    pub(super) producers: ProducerTable,
    pub(super) queue: Queue,
    /// Replicas in sync, this one among them.
    pub(super) in_sync: u16,
    /// `min.insync.replicas`, of which every commit asks.
    pub(super) min_insync: u16,
    /// How many replicas a commit says to have a record, at least: a majority.
    pub(super) majority: u16,
    /// The offset after what each voting replica has, the highest first, as far as it was told. Wanted only where
    /// `min.insync.replicas` is more than a majority.
    pub(super) ends: Vec<i64>,
    /// Whether a majority of the replicas is heard of.
    pub(super) has_quorum: bool,
    /// When this broker took nothing more because it passes its leadership on, if it does, or has done so last.
    pub(super) passing_since: Option<Instant>,
    waiters: Vec<Arc<Waiter>>,
}

impl State {
    pub(super) fn take_waiters(&mut self) -> Vec<Arc<Waiter>> {
        std::mem::take(&mut self.waiters)
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Partition {
    pub(crate) fn new(id: PartitionId, config: Arc<TopicConfig>, disk: Arc<DiskGate>) -> Arc<Self> {
        let state = State {
            phase: Phase::Following,
            log: None,
            epoch: -1,
            next_offset: 0,
            high_watermark: 0,
            producers: ProducerTable::default(),
            queue: Queue::default(),
            in_sync: 1,
            min_insync: config.min_insync_replicas,
            majority: 1,
            ends: Vec::new(),
            has_quorum: true,
            passing_since: None,
            waiters: Vec::new(),
        };
        let state = Mutex::new(state);
        Arc::new(Self {
            id,
            config: RwLock::new(config),
            disk,
            state,
            rejected: AtomicU64::new(0),
            rejection: Notify::new(),
            acks_changed: Notify::new(),
        })
    }

    /// Topic id and index.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The topic's effective configuration as of now.
    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config.read())
    }

    /// From now on the partition goes by `config`.
    pub(crate) fn set_config(&self, config: Arc<TopicConfig>) {
        let min_insync = config.min_insync_replicas;
        *self.config.write() = config;
        self.state.lock().min_insync = min_insync;
        self.acks_changed.notify_one();
    }

    /// Whether what is committed is answered only once more replicas than a majority have it.
    pub(crate) fn holds_acks(&self) -> bool {
        let state = self.state.lock();
        state.min_insync > state.majority
    }

    /// Returns once [`Self::holds_acks`] may have changed.
    ///
    /// # Cancel safety
    /// Safe; a change that nobody waited for is kept.
    pub(crate) async fn acks_changed(&self) {
        self.acks_changed.notified().await;
    }

    /// Whether the disk has room for more records.
    pub(super) fn has_room(&self) -> bool {
        !self.disk.is_low()
    }

    /// The leader epoch, if this broker leads, serves and is to go on doing so.
    pub fn leadership(&self) -> Option<i32> {
        let state = self.state.lock();
        match state.phase {
            Phase::Leading { handing_over, .. } => (!handing_over).then_some(state.epoch),
            Phase::Following | Phase::Offline { .. } | Phase::Deleted => None,
        }
    }

    /// Since when leadership is being passed on, or was when this broker led last; `None` where it leads.
    pub(crate) fn passing_since(&self) -> Option<Instant> {
        self.state.lock().passing_since
    }

    /// Last known leader epoch; -1 before the first election.
    pub fn leader_epoch(&self) -> i32 {
        self.state.lock().epoch
    }

    /// Whether everything that was proposed here is committed, or this broker does not lead.
    ///
    /// Where that is not so, a reader up to the high watermark does not see what may yet come before what is proposed next.
    /// A change wakes those who [`Self::wait`].
    pub fn is_settled(&self) -> bool {
        let state = self.state.lock();
        !matches!(state.phase, Phase::Leading { .. }) || state.high_watermark >= state.next_offset
    }

    /// Why storage is offline, if it is.
    pub fn offline_reason(&self) -> Option<String> {
        match &self.state.lock().phase {
            Phase::Offline { reason, .. } => Some(reason.clone()),
            Phase::Following | Phase::Leading { .. } | Phase::Deleted => None,
        }
    }

    /// Batches waiting for an answer.
    pub fn in_flight(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// The positions, consistent with one another.
    pub fn offsets(&self) -> Offsets {
        self.state.lock().offsets()
    }

    /// Forgets producers without an open transaction whose last batch is from before `oldest_ms`, in milliseconds of record
    /// time: in the log, and in the table that a leader keeps ahead of it.
    pub(crate) fn expire_producers(&self, oldest_ms: i64) {
        self.state.lock().producers.expire(oldest_ms);
        if let Some(log) = self.log() {
            log.expire_producers(oldest_ms);
        }
    }

    /// Registers a waiter for the next news.
    ///
    /// News that arrived before the call is not seen: register first, then read, then wait.
    pub fn wait(&self, waiter: &Arc<Waiter>) {
        let mut state = self.state.lock();
        if state.waiters.len() >= MAX_WAITERS {
            state.waiters.retain(|other| !other.is_woken());
        }
        if state.waiters.len() >= MAX_WAITERS {
            state.waiters.swap_remove(0).wake();
        }
        state.waiters.push(Arc::clone(waiter));
    }
}

impl State {
    /// The first offset that `acks=all` is not yet answered for.
    ///
    /// Invariant: everything below is committed, and `min_insync` replicas have it.
    pub(super) fn acknowledged(&self) -> i64 {
        if self.min_insync <= self.majority {
            return self.high_watermark;
        }
        let last = usize::from(self.min_insync) - 1;
        self.ends.get(last).map_or(0, |end| self.high_watermark.min(*end))
    }

    pub(super) fn offsets(&self) -> Offsets {
        let end = self.log.as_ref().map(|log| log.end());
        let log_start_offset = end.as_ref().map_or(0, |end| end.log_start_offset);
        let log_end_offset = end.as_ref().map_or(0, |end| end.log_end_offset);
        // After a restart the high watermark is unknown until the new term commits; it is never below the log start.
        let high_watermark = self
            .high_watermark
            .clamp(log_start_offset, log_end_offset.max(log_start_offset));
        Offsets {
            log_start_offset,
            last_stable_offset: high_watermark,
            high_watermark,
            log_end_offset,
        }
    }
}
