//! Proposals on their way to openraft, many at a time.
//!
//! openraft's core does a fixed amount of work each time it wakes, about as much as for one entry. Connections propose
//! one batch each, and a task that is woken runs before those that were ready earlier: sent directly, every proposal
//! would wake the core for itself alone. So proposals are put down here, and the group sends all there are once every
//! connection that is ready has run: one wake, one append and one commit for all of them.
//!
//! Bounded by [`MAX_PROPOSALS`]: the next one is refused as `Busy`, which clients retry. While openraft's own queue is
//! full, proposals stay here.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use takhin_protocol::record::Batch;
use tokio::sync::Notify;

use super::group::Raft;
use super::types::{CommittedLeaderId, Data, Notice};
use crate::partition::Partition;
use crate::replicator::{ProposalSink, ProposeError, Replicator};

/// Proposals that may wait: as many as a partition has in flight.
const MAX_PROPOSALS: usize = 4096;

/// The proposals of one leadership; clones share them.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<Shared>);

#[derive(Default)]
struct Shared {
    proposals: Mutex<Vec<Proposal>>,
    /// Whether some were taken that openraft does not have yet.
    is_sending: AtomicBool,
    filled: Notify,
}

struct Proposal {
    term: u64,
    data: Data,
    /// Offset after the batch; -1 for what takes no offset and nobody waits for.
    next_offset: i64,
}

impl Outbox {
    fn put(&self, proposal: Proposal) -> Result<(), ProposeError> {
        let mut proposals = self.0.proposals.lock();
        if proposals.len() >= MAX_PROPOSALS {
            return Err(ProposeError::Busy);
        }
        proposals.push(proposal);
        if proposals.len() == 1 {
            self.0.filled.notify_one();
        }
        Ok(())
    }

    /// Returns once something is put down.
    ///
    /// # Cancel safety
    /// Safe. Whoever sends afterwards has to [`Self::ring`] first.
    pub(super) async fn filled(&self) {
        self.0.filled.notified().await;
    }

    /// Has whoever sends look for what is put down.
    pub(super) fn ring(&self) {
        self.0.filled.notify_one();
    }

    /// Whether openraft has all that was put down.
    pub(super) fn is_empty(&self) -> bool {
        !self.0.is_sending.load(Ordering::Acquire) && self.0.proposals.lock().is_empty()
    }

    /// Sends what is put down, in order, for as long as it is polled. Dropping it drops what was not sent.
    pub(super) async fn send_to(self, raft: Raft, partition: Arc<Partition>) -> Infallible {
        let sink: Arc<dyn ProposalSink> = Arc::clone(&partition) as _;
        let mut sending = Vec::new();
        loop {
            self.0.filled.notified().await;
            // Behind every task that is ready now, each of which may have a proposal too. One client alone does not wait
            // for others.
            if partition.in_flight() > 1 {
                tokio::task::yield_now().await;
            }
            self.0.is_sending.store(true, Ordering::Release);
            std::mem::swap(&mut sending, &mut *self.0.proposals.lock());
            for proposal in sending.drain(..) {
                send(&raft, &sink, proposal).await;
            }
            self.0.is_sending.store(false, Ordering::Release);
        }
    }
}

async fn send(raft: &Raft, sink: &Arc<dyn ProposalSink>, proposal: Proposal) {
    let Proposal {
        term,
        data,
        next_offset,
    } = proposal;
    let notice = Notice {
        sink: Arc::clone(sink),
        term,
        next_offset,
        committed: false,
        result: std::marker::PhantomData,
    };
    let request = raft
        .write(data)
        .with_leader(CommittedLeaderId::from(term))
        .responder(notice);
    // An error means that the group has stopped. The notice was dropped with the request, and has said so.
    let _ = request.await;
}

impl Replicator for Outbox {
    fn propose(&self, term: u64, batch: Batch) -> Result<(), ProposeError> {
        let next_offset = batch.header.next_offset();
        self.put(Proposal {
            term,
            data: Data::Batch(batch),
            next_offset,
        })
    }

    fn propose_log_start(&self, term: u64, offset: i64) -> Result<(), ProposeError> {
        self.put(Proposal {
            term,
            data: Data::LogStart { offset },
            next_offset: -1,
        })
    }
}
