//! Batches that were proposed and not yet answered, in offset order.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::types::{Acks, ProduceError, Produced};

/// Batches that may wait for one partition; the next one is refused with a retriable error.
pub(super) const MAX_IN_FLIGHT: usize = 4096;

#[derive(Debug)]
pub(super) struct InFlight {
    /// Offset after the batch.
    pub(super) next_offset: i64,
    pub(super) produced: Produced,
    pub(super) acks: Acks,
    pub(super) reply: oneshot::Sender<Result<Produced, ProduceError>>,
}

/// The queue. A duplicate waits beside its original, so offsets may repeat but never fall.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<InFlight>,
}

impl Queue {
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_IN_FLIGHT
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn push(&mut self, entry: InFlight) {
        let at = self
            .entries
            .partition_point(|other| other.next_offset <= entry.next_offset);
        self.entries.insert(at, entry);
    }

    /// Takes what is answered once everything below `committed` is committed, on as many replicas as are asked for.
    pub(super) fn take_committed(&mut self, committed: i64) -> impl Iterator<Item = InFlight> + '_ {
        let end = self
            .entries
            .partition_point(|entry| entry.next_offset <= committed);
        self.entries.drain(..end)
    }

    /// Takes what is answered once everything below `end` is in the leader's log.
    pub(super) fn take_appended(&mut self, end: i64) -> Vec<InFlight> {
        let mut taken = Vec::new();
        let mut i = 0;
        while i < self.entries.len() && self.entries[i].next_offset <= end {
            if self.entries[i].acks == Acks::Leader {
                taken.extend(self.entries.remove(i));
            } else {
                i += 1;
            }
        }
        taken
    }

    /// Takes what waits for replicas.
    pub(super) fn take_held(&mut self) -> Vec<InFlight> {
        let (held, rest): (Vec<_>, Vec<_>) = self
            .take_all()
            .into_iter()
            .partition(|entry| entry.acks == Acks::All);
        self.entries = rest.into();
        held
    }

    pub(super) fn take_all(&mut self) -> VecDeque<InFlight> {
        std::mem::take(&mut self.entries)
    }
}

/// Answers everyone with the place of their batch.
pub(super) fn succeed(entries: impl IntoIterator<Item = InFlight>) {
    for entry in entries {
        // A client that has gone no longer listens.
        let _ = entry.reply.send(Ok(entry.produced));
    }
}

/// Answers everyone with the same error.
pub(super) fn fail(entries: impl IntoIterator<Item = InFlight>, error: &ProduceError) {
    for entry in entries {
        // A client that has gone no longer listens.
        let _ = entry.reply.send(Err(error.clone()));
    }
}
