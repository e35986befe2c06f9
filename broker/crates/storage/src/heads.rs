//! The heads of the most recent entries, in memory: followers and consumers at the tail need no disk read.

use std::collections::VecDeque;

use crate::entry::EntryHead;

/// The head of an entry and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlacedHead {
    pub(crate) head: EntryHead,
    /// Position in its segment.
    pub(crate) pos: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Producer id, or -1.
    pub(crate) producer_id: i64,
}

/// A bounded window on the newest entries; consecutive raft indexes, ending at the log's end.
#[derive(Debug, Default)]
pub(crate) struct HeadRing {
    heads: VecDeque<PlacedHead>,
}

impl HeadRing {
    pub(crate) fn push(&mut self, head: PlacedHead, capacity: usize) {
        while self.heads.len() >= capacity.max(1) {
            self.heads.pop_front();
        }
        self.heads.push_back(head);
    }

    /// Forgets entries from `next_index` on.
    pub(crate) fn truncate(&mut self, next_index: u64) {
        while self.heads.back().is_some_and(|h| h.head.index >= next_index) {
            self.heads.pop_back();
        }
    }

    /// First index held.
    pub(crate) fn first_index(&self) -> Option<u64> {
        self.heads.front().map(|h| h.head.index)
    }

    /// The entry at `index`.
    pub(crate) fn at_index(&self, index: u64) -> Option<&PlacedHead> {
        let first = self.first_index()?;
        self.heads.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Entries from `index` on; nothing if the window begins later.
    pub(crate) fn starting_at(&self, index: u64) -> impl Iterator<Item = &PlacedHead> {
        let skip = self.first_index().and_then(|first| index.checked_sub(first));
        let skip = skip.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        self.heads.range(skip.min(self.heads.len())..)
    }

    /// The data batch that holds `offset`.
    pub(crate) fn at_offset(&self, offset: i64) -> Option<&PlacedHead> {
        // A hidden entry ends where it begins, so the first entry that ends above the offset is a data batch.
        let i = self.heads.partition_point(|h| h.head.next_offset <= offset);
        self.heads.get(i).filter(|h| h.head.base_offset <= offset)
    }
}
