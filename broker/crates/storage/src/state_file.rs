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

impl SealedLen {
    const LEN: usize = 24;

    /// Appends `count u32 * { base_offset i64 | first_index u64 | bytes u64 }`.
    pub(crate) fn encode_all(segments: &[Self], out: &mut Vec<u8>) {
        out.put_u32(len_u32(segments.len()));
        for s in segments {
            s.id.encode(out);
            out.put_u64(s.bytes);
        }
    }

    /// Takes off what [`Self::encode_all`] appends; `None` if there is less.
    pub(crate) fn decode_all(b: &mut &[u8]) -> Option<Vec<Self>> {
        let count = b.try_get_u32().ok()? as usize;
        if count.checked_mul(Self::LEN)? > b.remaining() {
            return None;
        }
        let one = |_| {
            Some(Self {
                id: SegmentId::decode(b)?,
                bytes: b.try_get_u64().ok()?,
            })
        };
        (0..count).map(one).collect()
    }
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
        SealedLen::encode_all(&self.segments, &mut out);
        self.end.encode(&mut out);
        out
    }

    pub(crate) fn decode(mut b: &[u8]) -> Option<Self> {
        let generation = b.try_get_u64().ok()?;
        let segments = SealedLen::decode_all(&mut b)?;
        let end = SegmentId::decode(&mut b)?;
        let ascending = segments.is_sorted_by(|a, b| a.id.first_index < b.id.first_index);
        (ascending && b.is_empty()).then_some(Self {
            generation,
            segments,
            end,
        })
    }
}
