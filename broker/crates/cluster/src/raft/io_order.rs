//! Completions in the order of what they complete.
//!
//! A topic may change between flushed and cached while it takes records: then an entry that counts as stored once
//! written follows one that waits for a sync. openraft wants to hear of them in the order of the log, and so the later
//! one waits for the earlier.

use std::collections::VecDeque;
use std::io;

use parking_lot::Mutex;

/// Something that is to be told how it ended.
pub(crate) trait Stored {
    /// Tells it. Does not block.
    fn stored(self, result: io::Result<()>);
}

/// A queue of completions; each leaves it when it and all before it have ended. As long as what is being stored, which
/// openraft bounds.
#[derive(Debug)]
pub(crate) struct IoOrder<C> {
    queue: Mutex<Queue<C>>,
}

#[derive(Debug)]
struct Queue<C> {
    /// Place of the first one in `waiting`.
    first: u64,
    waiting: VecDeque<(C, Option<io::Result<()>>)>,
}

impl<C> Default for IoOrder<C> {
    fn default() -> Self {
        let (first, waiting) = (0, VecDeque::new());
        Self {
            queue: Mutex::new(Queue { first, waiting }),
        }
    }
}

impl<C: Stored> IoOrder<C> {
    /// Whether nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().waiting.is_empty()
    }

    /// Enters `completion` behind all others. Returns its place.
    pub(crate) fn enter(&self, completion: C) -> u64 {
        let mut queue = self.queue.lock();
        queue.waiting.push_back((completion, None));
        queue.first + queue.waiting.len() as u64 - 1
    }

    /// What entered at `place` has ended: tells it, and those behind it that have ended already, as soon as all before
    /// it have been told.
    pub(crate) fn stored(&self, place: u64, result: io::Result<()>) {
        // Told under the lock: another thread must not overtake.
        let mut queue = self.queue.lock();
        let at = usize::try_from(place.saturating_sub(queue.first)).unwrap_or(usize::MAX);
        if let Some((_, ended)) = queue.waiting.get_mut(at) {
            *ended = Some(result);
        }
        while queue.waiting.front().is_some_and(|(_, ended)| ended.is_some()) {
            queue.first += 1;
            if let Some((completion, Some(result))) = queue.waiting.pop_front() {
                completion.stored(result);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Note(u32, Arc<Mutex<Vec<(u32, bool)>>>);

    impl Stored for Note {
        fn stored(self, result: io::Result<()>) {
            self.1.lock().push((self.0, result.is_ok()));
        }
    }

    #[test]
    fn nobody_is_told_before_those_ahead() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let order = IoOrder::default();
        let enter = |n| order.enter(Note(n, Arc::clone(&told)));
        let (first, second, third) = (enter(1), enter(2), enter(3));
        order.stored(second, Ok(()));
        assert!(told.lock().is_empty());
        order.stored(first, Err(io::Error::other("sync")));
        assert_eq!(*told.lock(), [(1, false), (2, true)]);
        let fourth = order.enter(Note(4, Arc::clone(&told)));
        order.stored(fourth, Ok(()));
        assert_eq!(told.lock().len(), 2);
        order.stored(third, Ok(()));
        assert_eq!(told.lock()[2..], [(3, true), (4, true)]);
    }
}
