//! The log's own state file and the list of its sealed segments.
//!
//! `state` is truth and always written durably:
//!
//! ```text
//! log_start_offset i64 | purged u8, term u32, index u64
//! generation u64 | cuts: count u8 * Checkpoint (what truncations left, oldest first)
//! floor: present u8, Checkpoint | first_dirty i64                                    since version 2
//! ```
//!
//! `segments` is a cache that lets a start notice missing and shortened segments without opening them. It begins at the
//! floor: below it a segment may have been written anew since.
//!
//! ```text
//! generation u64 | count u32 * { base_offset i64 | first_index u64 | bytes u64 }
//! next_offset i64 | next_index u64 (where the last of them ends)
//! ```

use bytes::{Buf, BufMut};

use crate::cuts::Cuts;
use crate::entry::{Checkpoint, EntryId};
use crate::format::{SegmentId, len_u32};

/// What only the log itself knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogState {
    pub(crate) log_start_offset: i64,
    pub(crate) purged: Option<EntryId>,
    /// Counts truncations.
    pub(crate) generation: u64,
    /// What truncations left; older checkpoints hold only up to there.
    pub(crate) cuts: Cuts,
    /// The beginning of a segment below which everything is durable and purged, and may have been cleaned.
    ///
    /// Lower watermarks are void: the files that they speak of may be others now.
    pub(crate) floor: Option<Checkpoint>,
    /// The first offset that no cleaning has looked at, if it is above the log start.
    pub(crate) first_dirty: i64,
}

impl LogState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(90);
        out.put_i64(self.log_start_offset);
        let purged = self.purged.unwrap_or(EntryId { term: 0, index: 0 });
        out.put_u8(u8::from(self.purged.is_some()));
        out.put_u32(purged.term);
        out.put_u64(purged.index);
        out.put_u64(self.generation);
        self.cuts.encode(&mut out);
        out.put_u8(u8::from(self.floor.is_some()));
        if let Some(floor) = self.floor {
            out.put_slice(&floor.encode());
        }
        out.put_i64(self.first_dirty);
        out
    }

    pub(crate) fn decode(mut b: &[u8]) -> Option<Self> {
        let log_start_offset = b.try_get_i64().ok()?;
        let purged = b.try_get_u8().ok()? == 1;
        let id = EntryId {
            term: b.try_get_u32().ok()?,
            index: b.try_get_u64().ok()?,
        };
        let generation = b.try_get_u64().ok()?;
        let cuts = Cuts::decode(&mut b)?;
        let mut state = Self {
            log_start_offset,
            purged: purged.then_some(id),
            generation,
            cuts,
            ..Self::default()
        };
        if b.is_empty() {
            // Version 1.
            return Some(state);
        }
        if b.try_get_u8().ok()? == 1 {
            let (floor, rest) = b.split_at_checked(Checkpoint::LEN)?;
            (state.floor, b) = (Some(Checkpoint::decode(floor)?), rest);
        }
        state.first_dirty = b.try_get_i64().ok()?;
        b.is_empty().then_some(state)
    }

    /// The raft index below which entries cannot be found by index any more.
    pub(crate) fn floor_index(&self) -> u64 {
        self.floor.map_or(0, |floor| floor.segment.first_index)
    }

    /// The point down to which segments must exist.
    pub(crate) fn front(&self) -> SegmentId {
        SegmentId {
            base_offset: self.log_start_offset,
            first_index: self.purged_end(),
        }
    }

    /// The raft index after the purged part, exclusive.
    pub(crate) fn purged_end(&self) -> u64 {
        self.purged.map_or(0, |p| p.index + 1)
    }
}

/// One sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedLen {
    pub(crate) id: SegmentId,
    pub(crate) bytes: u64,
}

/// The sealed segments as of some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) generation: u64,
    pub(crate) segments: Vec<SealedLen>,
    /// Where the last of them ends.
    pub(crate) end: SegmentId,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28 + 24 * self.segments.len());
        out.put_u64(self.generation);
        out.put_u32(len_u32(self.segments.len()));
        for s in &self.segments {
            out.put_i64(s.id.base_offset);
            out.put_u64(s.id.first_index);
            out.put_u64(s.bytes);
        }
        out.put_i64(self.end.base_offset);
        out.put_u64(self.end.first_index);
        out
    }

    pub(crate) fn decode(mut b: &[u8]) -> Option<Self> {
        let generation = b.try_get_u64().ok()?;
        let n = b.try_get_u32().ok()? as usize;
        if n.checked_mul(24)?.checked_add(16)? != b.remaining() {
            return None;
        }
        let mut segments = Vec::with_capacity(n);
        for _ in 0..n {
            let id = SegmentId {
                base_offset: b.try_get_i64().ok()?,
                first_index: b.try_get_u64().ok()?,
            };
            segments.push(SealedLen {
                id,
                bytes: b.try_get_u64().ok()?,
            });
        }
        let end = SegmentId {
            base_offset: b.try_get_i64().ok()?,
            first_index: b.try_get_u64().ok()?,
        };
        let ascending = segments.is_sorted_by(|a, b| a.id.first_index < b.id.first_index);
        ascending.then_some(Self {
            generation,
            segments,
            end,
        })
    }
}
