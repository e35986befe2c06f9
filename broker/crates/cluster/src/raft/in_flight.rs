//! What leaders here hold in memory for replicas that have not answered yet.
//!
//! A broker that comes back lacks something of each of its partitions, and all their leaders send to it at once: each group may
//! have several requests under way, and there may be thousands of groups.
//!
//! Bounded: [`NODE_BYTES`] of entries are on their way to a broker; who wants to send it more waits in turn, with the one
//! request that it has read. While [`SHORT`] is held in all, what waits included, reads bring [`SHORT_READ`] at most rather
//! than [`FULL_READ`], or one batch. So a leader of `n` partitions that lag holds `NODE_BYTES` for each broker and `n` such
//! reads. A broker that does not answer takes nothing from the others: each has bytes of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::UNANSWERED;

/// Bytes of entries that may be on their way to one broker. A request that is larger goes alone.
const NODE_BYTES: u32 = 64 << 20;

/// Held bytes from which on little is read at a time: far more than the few partitions have under way that are written at a
/// time, while their followers keep up.
const SHORT: u64 = 128 << 20;

/// Bytes that are read at a time, at most, if that is more than one batch.
const FULL_READ: usize = 1 << 20;

/// The same while much is held.
const SHORT_READ: usize = 64 << 10;

/// What all groups of a node share.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    held: AtomicU64,
    nodes: Mutex<BTreeMap<u32, Arc<Semaphore>>>,
}

impl InFlight {
    /// How many bytes of entries to read for a replica.
    pub(super) fn read_bytes(&self) -> usize {
        match self.held.load(Ordering::Relaxed) < SHORT {
            true => FULL_READ,
            false => SHORT_READ,
        }
    }

    /// Counts entries that were read, until what is returned is dropped.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Held {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        UNANSWERED.add(signed(bytes));
        Held {
            all: Arc::clone(self),
            bytes,
            _admitted: None,
        }
    }

    fn of(&self, node: u32) -> Arc<Semaphore> {
        let mut nodes = self.nodes.lock();
        let room = || {
            Arc::new(Semaphore::new(
                usize::try_from(NODE_BYTES).unwrap_or(Semaphore::MAX_PERMITS),
            ))
        };
        Arc::clone(nodes.entry(node).or_insert_with(room))
    }
}

/// Entries of one request.
#[derive(Debug)]
pub(super) struct Held {
    all: Arc<InFlight>,
    bytes: u64,
    _admitted: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Waits until they may be sent to `node`: in the order of the calls. Without entries nothing is waited for.
    ///
    /// # Cancel safety
    /// Safe: a dropped call holds nothing.
    pub(super) async fn admitted(mut self, node: u32) -> Self {
        let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX).min(NODE_BYTES);
        if bytes > 0 {
            // The semaphore is never closed.
            self._admitted = self.all.of(node).acquire_many_owned(bytes).await.ok();
        }
        self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.held.fetch_sub(self.bytes, Ordering::Relaxed);
        UNANSWERED.add(-signed(self.bytes));
    }
}

/// For the gauge; memory holds less than 2^63 bytes.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_on_its_way_to_a_broker_is_bounded_and_goes_in_turn() {
        let all = Arc::new(InFlight::default());
        let send = |node, bytes| Box::pin(all.hold(bytes).admitted(node));
        let first: Vec<_> = (0..64).map(|_| send(2, MIB).now_or_never().unwrap()).collect();
        let (mut second, mut third) = (send(2, 2 * MIB), send(2, 1));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none(), "it went before its turn");
        assert!(send(2, 0).now_or_never().is_some(), "a heartbeat waits");
        let other = send(3, 100 * MIB)
            .now_or_never()
            .expect("another broker has its own");
        assert_eq!(all.held.load(Ordering::Relaxed), 166 * MIB + 1);

        let mut first = first.into_iter();
        drop(first.next());
        assert!((&mut second).now_or_never().is_none());
        drop(first.next());
        let second = second.now_or_never().expect("there is room");
        drop(second);
        assert!(third.now_or_never().is_some());
        drop((first, other));
        assert_eq!(all.held.load(Ordering::Relaxed), 0);
        assert_eq!(all.of(2).available_permits(), 64 << 20);
    }

    #[test]
    fn little_is_read_while_much_is_held() {
        let all = Arc::new(InFlight::default());
        assert_eq!(all.read_bytes(), FULL_READ);
        let held = all.hold(SHORT);
        assert_eq!(all.read_bytes(), SHORT_READ);
        // Who gives up while it waits holds nothing any more.
        let waits = all.hold(u64::from(NODE_BYTES)).admitted(2);
        drop(waits);
        drop(held);
        assert_eq!(all.read_bytes(), FULL_READ);
    }
}
