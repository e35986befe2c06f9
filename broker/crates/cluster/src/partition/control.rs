//! What the group's supervisor tells a partition: leadership gained and lost, storage offline, deletion.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use takhin_protocol::ids::{PartitionIndex, TopicId, TopicPartition};
use takhin_runtime::clock::Instant;
use takhin_storage::Log;
use uuid::Uuid;

use super::in_flight::{self, InFlight};
use super::state::{Partition, Phase, State};
use super::types::ProduceError;
use crate::replicator::{ProposalSink, Replicator};

/// Names a partition for ever: topic ids are not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// Topic id.
    pub topic_id: Uuid,
    /// Index within the topic.
    pub index: i32,
}

impl std::fmt::Display for PartitionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.index)
    }
}

impl From<PartitionId> for TopicPartition {
    fn from(id: PartitionId) -> Self {
        Self {
            topic_id: TopicId(id.topic_id),
            partition: PartitionIndex(id.index),
        }
    }
}

impl Partition {
    /// Begins to lead under `term`, once in each term at most: nothing was proposed in it yet, and its first entry has been
    /// applied, so everything in the log is committed and the log knows every producer.
    pub(crate) fn lead(&self, term: u64, log: Arc<Log>, replicator: Arc<dyn Replicator>) {
        let end = log.end();
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Deleted) {
            return;
        }
        state.phase = Phase::Leading {
            term,
            replicator,
            handing_over: false,
        };
        state.passing_since = None;
        state.epoch = i32::try_from(term).unwrap_or(i32::MAX);
        state.next_offset = end.log_end_offset;
        state.high_watermark = state.high_watermark.max(end.log_end_offset);
        state.producers = log.producers();
        state.ends = Vec::new();
        state.log = Some(log);
        let waiters = state.take_waiters();
        drop(state);
        waiters.into_iter().for_each(|waiter| waiter.wake());
    }

    /// So many replicas are in sync now, and a majority of all is heard of, or not: a leader without one accepts nothing,
    /// since another may lead by now. `majority` is how many replicas have what is committed, at least.
    ///
    /// Whoever waits for more replicas than are in sync is told so: it may take for ever, and elsewhere there may be a
    /// leader that has them.
    pub(crate) fn set_quorum(&self, in_sync: u16, majority: u16, has_quorum: bool) {
        let mut state = self.state.lock();
        let wanted = state.min_insync.max(majority);
        state.in_sync = in_sync;
        state.has_quorum = has_quorum;
        if state.majority != majority {
            state.majority = majority;
            self.acks_changed.notify_one();
        }
        if in_sync >= wanted {
            return;
        }
        let failed = state.queue.take_held();
        drop(state);
        in_flight::fail(
            failed,
            &ProduceError::NotEnoughReplicasAfterAppend { in_sync, wanted },
        );
    }

    /// The offsets after what each voting replica has.
    pub(crate) fn replicated(&self, mut ends: Vec<i64>) {
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let mut state = self.state.lock();
        state.ends = ends;
        let acknowledged = state.acknowledged();
        let taken: Vec<_> = state.queue.take_committed(acknowledged).collect();
        drop(state);
        in_flight::succeed(taken);
    }

    /// Attaches the log for reading, before leadership is known.
    pub(crate) fn attach(&self, log: Arc<Log>, term: u64) {
        let mut state = self.state.lock();
        state.epoch = state.epoch.max(i32::try_from(term).unwrap_or(i32::MAX));
        state.log = Some(log);
        if !matches!(state.phase, Phase::Deleted) {
            state.phase = Phase::Following;
        }
    }

    /// Attaches a log whose committed part is damaged: what is readable below the damage is served by the only replica,
    /// nothing else.
    pub(crate) fn attach_damaged(&self, log: Arc<Log>, is_alone: bool) {
        let end = log.end();
        let mut state = self.state.lock();
        let epoch = end
            .last
            .map_or(-1, |id| i32::try_from(id.term).unwrap_or(i32::MAX));
        state.epoch = state.epoch.max(epoch);
        if is_alone {
            // With one voter everything in the readable prefix of a committed log is committed; with others, nobody knows.
            state.high_watermark = end.log_end_offset;
        }
        state.log = Some(log);
    }

    /// Another replica leads under `term`: whoever waits here with an older epoch is to hear of it.
    pub(crate) fn follow(&self, term: u64) {
        let epoch = i32::try_from(term).unwrap_or(i32::MAX);
        let mut state = self.state.lock();
        if epoch <= state.epoch || !matches!(state.phase, Phase::Following) {
            return;
        }
        state.epoch = epoch;
        let waiters = state.take_waiters();
        drop(state);
        waiters.into_iter().for_each(|waiter| waiter.wake());
    }

    /// Stops leading: queued batches are answered with an unknown outcome, waiting fetches wake.
    pub(crate) fn step_down(&self) {
        self.leave(Phase::Following, &ProduceError::Unknown);
    }

    /// Storage failed: nothing is accepted until a supervisor has rebuilt the group, and nothing read unless this is the
    /// only replica.
    pub(crate) fn offline(&self, reason: String, is_alone: bool) {
        let error = ProduceError::StorageOffline {
            reason: reason.clone(),
        };
        self.leave(Phase::Offline { reason, is_alone }, &error);
    }

    /// The topic is gone.
    pub(crate) fn delete(&self) {
        self.leave(Phase::Deleted, &ProduceError::Deleted);
    }

    fn leave(&self, phase: Phase, error: &ProduceError) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Deleted) {
            return;
        }
        state.phase = phase;
        let queued = state.queue.take_all();
        let waiters = state.take_waiters();
        drop(state);
        in_flight::fail(queued, error);
        waiters.into_iter().for_each(|waiter| waiter.wake());
    }

    /// Whether a proposal of this term has been rejected. Nothing more may be proposed in it then: of what was proposed
    /// before, nobody here knows how much is still on its way into the log.
    pub(crate) fn is_over(&self, term: u64) -> bool {
        self.rejected.load(Ordering::Acquire) >= term
    }

    /// What waits here, if there are entries of `term` and this replica leads in an earlier one: another leads by now, and
    /// what stands where this one's proposals were to stand may be that one's. The supervisor hears of it, too, but maybe
    /// later.
    fn replaced_by(&self, state: &mut State, term: u64) -> VecDeque<InFlight> {
        match state.phase {
            Phase::Leading { term: led, .. } if term > led => {
                self.end_term(led);
                state.queue.take_all()
            }
            _ => VecDeque::new(),
        }
    }

    /// Has nothing more be proposed in this term.
    pub(crate) fn end_term(&self, term: u64) {
        if self.rejected.fetch_max(term, Ordering::AcqRel) < term {
            self.rejection.notify_one();
        }
    }

    /// Takes nothing more from now on, for as long as this replica leads. What is under way goes on, and is read on.
    pub(crate) fn hand_over(&self, now: Instant) {
        let mut state = self.state.lock();
        if let Phase::Leading { handing_over, .. } = &mut state.phase {
            *handing_over = true;
            // Further attempts do not make anybody wait anew.
            state.passing_since.get_or_insert(now);
        }
    }

    /// Takes again: leadership stays.
    pub(crate) fn take_again(&self) {
        let mut state = self.state.lock();
        if let Phase::Leading { handing_over, .. } = &mut state.phase {
            *handing_over = false;
            state.passing_since = None;
        }
    }

    /// Waits for a proposal to be rejected.
    ///
    /// # Cancel safety
    /// Safe; a rejection that nobody waited for is kept.
    pub(crate) async fn rejection(&self) {
        self.rejection.notified().await;
    }

    /// The log start moved, by a committed entry.
    pub(crate) fn log_start_moved(&self) {
        let waiters = self.state.lock().take_waiters();
        waiters.into_iter().for_each(|waiter| waiter.wake());
    }
}

impl ProposalSink for Partition {
    fn appended(&self, term: u64, end: i64) {
        let mut state = self.state.lock();
        let replaced = self.replaced_by(&mut state, term);
        let taken = state.queue.take_appended(end);
        drop(state);
        in_flight::fail(replaced, &ProduceError::Unknown);
        in_flight::succeed(taken);
    }

    fn committed(&self, term: u64, next_offset: i64) {
        let mut state = self.state.lock();
        if next_offset <= state.high_watermark {
            // The leader hears of a commit twice: when it happens, and when the entry is applied.
            return;
        }
        let replaced = self.replaced_by(&mut state, term);
        state.high_watermark = next_offset;
        // The high watermark is published before any reply is sent: a client that holds an acknowledgement must
        // find its record in the next ListOffsets or Fetch, on any connection.
        let acknowledged = state.acknowledged();
        let taken: smallvec::SmallVec<[_; 4]> = state.queue.take_committed(acknowledged).collect();
        let waiters = state.take_waiters();
        drop(state);
        in_flight::fail(replaced, &ProduceError::Unknown);
        in_flight::succeed(taken);
        waiters.into_iter().for_each(|waiter| waiter.wake());
    }

    fn rejected(&self, term: u64) {
        // May be called with the partition's lock held (a proposal that could not be sent): leave a mark, wake the
        // supervisor.
        self.end_term(term);
    }
}
