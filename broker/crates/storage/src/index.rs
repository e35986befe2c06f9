//! What is known of a segment without reading it: sparse positions, times, hidden entries, and its end.
//!
//! In memory for the active segment; written whole when a segment is sealed or its log closed. Both files are
//! caches: one that fails its check, or does not fit the segment file's length, is rebuilt from batch headers.
//!
//! ```text
//! .index      base_offset i64 | first_index u64 | log_bytes u64 | next_offset i64 | next_index u64
//!             points u32 | hidden u32
//!             points * { offset delta u32 | raft index delta u32 | position u32 }
//!             hidden * { raft index delta u32 | position u32 | length u32 }
//!             stamp u64 (0, or that of a cleaned segment's mark)                          since version 2
//! .timeindex  base_offset i64 | first_index u64 | first_timestamp i64 | max_timestamp i64 | offset of it i64
//!             entries u32
//!             entries * { largest timestamp before the point i64 | offset delta of it u32 }
//!             log_bytes u64                                                               since version 2
//! ```
//!
//! Points stand at data batches only. Entry `i` of the time index belongs to point `i`: everything before that
//! point has a timestamp of at most its value, so a search for a later time may begin there.
//!
//! In a cleaned segment raft indexes are not known: all deltas of them are 0.

use bytes::{Buf, BufMut};
use takhin_protocol::record::BatchHeader;

use crate::cleaned::{Mark, PLAIN};
use crate::format::{SegmentId, len_u32, narrow, offset_delta};

/// Stands for "no timestamp yet".
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// A batch boundary that the index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) offset_delta: u32,
    pub(crate) index_delta: u32,
    pub(crate) position: u32,
}

/// A hidden entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) index_delta: u32,
    pub(crate) position: u32,
    pub(crate) len: u32,
}

/// A batch boundary to begin a walk at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) pos: u64,
    /// Raft index of the entry at `pos`.
    pub(crate) index: u64,
}

/// The index of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    pub(crate) id: SegmentId,
    /// Length of the segment in bytes.
    pub(crate) bytes: u64,
    /// Offset after the last record, exclusive.
    pub(crate) next_offset: i64,
    /// Raft index after the last entry, exclusive.
    pub(crate) next_index: u64,
    /// Largest timestamp of the first data batch, or [`NO_TIMESTAMP`].
    pub(crate) first_timestamp: i64,
    /// Largest timestamp of all data batches, or [`NO_TIMESTAMP`].
    pub(crate) max_timestamp: i64,
    /// Last offset of the first batch that has it.
    pub(crate) max_timestamp_offset: i64,
    points: Vec<Point>,
    /// Parallel to `points`: the largest timestamp before the point, and the offset delta of it.
    max_before: Vec<(i64, u32)>,
    hidden: Vec<Hidden>,
    /// Of the mark of a cleaned segment, else [`PLAIN`].
    stamp: u64,
}

impl SegmentIndex {
    pub(crate) fn new(id: SegmentId) -> Self {
        Self {
            id,
            bytes: 0,
            next_offset: id.base_offset,
            next_index: id.first_index,
            first_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_offset: -1,
            points: Vec::new(),
            max_before: Vec::new(),
            hidden: Vec::new(),
            stamp: PLAIN,
        }
    }

    /// The empty index of a segment that may be cleaned.
    pub(crate) fn of(id: SegmentId, mark: Option<&Mark>) -> Self {
        let mut index = Self::new(id);
        if let Some(mark) = mark {
            index.set_mark(mark);
        }
        index
    }

    /// The segment is a cleaned one: its end is what its mark says.
    pub(crate) fn set_mark(&mut self, mark: &Mark) {
        self.stamp = mark.stamp;
        (self.next_offset, self.next_index) = (mark.end.base_offset, mark.end.first_index);
    }

    /// Only what was noted so far can be read, up to `next_offset` (exclusive): the rest of the file is damaged.
    pub(crate) fn end_here(&mut self, next_offset: i64) {
        if self.is_cleaned() {
            (self.next_offset, self.next_index) = (next_offset, self.id.first_index);
        }
    }

    fn is_cleaned(&self) -> bool {
        self.stamp != PLAIN
    }

    /// Takes note of the batch that was appended at the end.
    pub(crate) fn note(&mut self, header: &BatchHeader, interval: u32) {
        let len = header.total_len() as u64;
        let index_delta = match self.is_cleaned() {
            true => 0,
            false => narrow(self.next_index - self.id.first_index),
        };
        let position = narrow(self.bytes);
        if header.is_hidden() {
            self.hidden.push(Hidden {
                index_delta,
                position,
                len: narrow(len),
            });
        } else {
            let last = self.points.last().map_or(0, |p| u64::from(p.position));
            if self.bytes >= last + u64::from(interval) {
                let offset_delta = narrow(offset_delta(self.id.base_offset, header.base_offset));
                self.points.push(Point {
                    offset_delta,
                    index_delta,
                    position,
                });
                self.max_before.push((self.max_timestamp, self.max_delta()));
            }
            if self.first_timestamp == NO_TIMESTAMP {
                self.first_timestamp = header.max_timestamp;
            }
            if header.max_timestamp > self.max_timestamp {
                self.max_timestamp = header.max_timestamp;
                self.max_timestamp_offset = header.next_offset() - 1;
            }
            if !self.is_cleaned() {
                self.next_offset = header.next_offset();
            }
        }
        if !self.is_cleaned() {
            self.next_index += 1;
        }
        self.bytes += len;
    }

    /// Forgets everything from the last point at or before `pos` on; the caller notes the batches between again.
    /// Returns where that is.
    ///
    /// Only for a segment that was not cleaned: what is cleaned is never cut.
    pub(crate) fn rewind(&mut self, pos: u64) -> Anchor {
        debug_assert!(!self.is_cleaned(), "a cleaned segment was to be cut");
        let keep = self.points.partition_point(|p| u64::from(p.position) <= pos);
        let Some(last) = keep.checked_sub(1) else {
            *self = Self::new(self.id);
            return Anchor {
                pos: 0,
                index: self.id.first_index,
            };
        };
        let point = self.points[last];
        let (max_timestamp, max_delta) = self.max_before[last];
        self.max_timestamp = max_timestamp;
        self.max_timestamp_offset = match max_delta {
            u32::MAX => -1,
            delta => self.id.base_offset + i64::from(delta),
        };
        self.points.truncate(last);
        self.max_before.truncate(last);
        let hidden = self.hidden.partition_point(|h| h.position < point.position);
        self.hidden.truncate(hidden);
        self.bytes = u64::from(point.position);
        self.next_index = self.id.first_index + u64::from(point.index_delta);
        self.next_offset = self.id.base_offset + i64::from(point.offset_delta);
        if self.max_timestamp == NO_TIMESTAMP {
            self.first_timestamp = NO_TIMESTAMP;
        }
        Anchor {
            pos: self.bytes,
            index: self.next_index,
        }
    }

    /// Offset of the largest timestamp relative to the segment; `u32::MAX` while there is none.
    fn max_delta(&self) -> u32 {
        match self.max_timestamp_offset {
            -1 => u32::MAX,
            offset => narrow(offset_delta(self.id.base_offset, offset)),
        }
    }

    /// The last known boundary at or before `offset`.
    pub(crate) fn floor_offset(&self, offset: i64) -> Anchor {
        let delta = offset_delta(self.id.base_offset, offset);
        let n = self
            .points
            .partition_point(|p| u64::from(p.offset_delta) <= delta);
        self.anchor(n)
    }

    /// The last known boundary that is at or below both a position and an offset.
    pub(crate) fn floor_end(&self, pos: u64, offset: i64) -> Anchor {
        let delta = offset_delta(self.id.base_offset, offset);
        let n = self
            .points
            .partition_point(|p| u64::from(p.offset_delta) <= delta && u64::from(p.position) <= pos);
        self.anchor(n)
    }

    /// The last known boundary at or before the entry at `index`.
    pub(crate) fn floor_index(&self, index: u64) -> Anchor {
        let delta = index.saturating_sub(self.id.first_index);
        let n = self.points.partition_point(|p| u64::from(p.index_delta) <= delta);
        let point = self.anchor(n);
        let n = self.hidden.partition_point(|h| u64::from(h.index_delta) <= delta);
        let hidden = n.checked_sub(1).map(|i| self.hidden[i]);
        match hidden {
            Some(h) if u64::from(h.position) > point.pos => Anchor {
                pos: u64::from(h.position),
                index: self.id.first_index + u64::from(h.index_delta),
            },
            _ => point,
        }
    }

    /// The first known boundary at or after the entry at `index`; the segment's end at the latest.
    pub(crate) fn ceiling_index(&self, index: u64) -> u64 {
        let delta = index.saturating_sub(self.id.first_index);
        let n = self.points.partition_point(|p| u64::from(p.index_delta) < delta);
        self.points.get(n).map_or(self.bytes, |p| u64::from(p.position))
    }

    /// Where a search for the first timestamp at or after `timestamp` may begin.
    pub(crate) fn floor_timestamp(&self, timestamp: i64) -> Anchor {
        let n = self.max_before.partition_point(|&(before, _)| before < timestamp);
        self.anchor(n)
    }

    fn anchor(&self, points_before: usize) -> Anchor {
        match points_before.checked_sub(1).map(|i| self.points[i]) {
            Some(p) => Anchor {
                pos: u64::from(p.position),
                index: self.id.first_index + u64::from(p.index_delta),
            },
            None => Anchor {
                pos: 0,
                index: self.id.first_index,
            },
        }
    }

    /// Where the segment ends: what the next one is called.
    pub(crate) fn end(&self) -> SegmentId {
        SegmentId {
            base_offset: self.next_offset,
            first_index: self.next_index,
        }
    }

    /// Number of points.
    pub(crate) fn points(&self) -> usize {
        self.points.len()
    }

    /// Hidden entries with a position in `start..end`.
    pub(crate) fn hidden_in(&self, start: u64, end: u64) -> &[Hidden] {
        let from = self.hidden.partition_point(|h| u64::from(h.position) < start);
        let to = self.hidden.partition_point(|h| u64::from(h.position) < end);
        &self.hidden[from..to.max(from)]
    }

    /// Positions of hidden entries with a raft index in `start..end`.
    pub(crate) fn hidden_by_index(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let index = |h: &Hidden| self.id.first_index + u64::from(h.index_delta);
        let from = self.hidden.partition_point(|h| index(h) < start);
        let wanted = self.hidden[from..].iter().take_while(|h| index(h) < end);
        wanted.map(|h| (index(h), u64::from(h.position))).collect()
    }

    pub(crate) fn encode_offsets(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + 12 * (self.points.len() + self.hidden.len()));
        out.put_i64(self.id.base_offset);
        out.put_u64(self.id.first_index);
        out.put_u64(self.bytes);
        out.put_i64(self.next_offset);
        out.put_u64(self.next_index);
        out.put_u32(len_u32(self.points.len()));
        out.put_u32(len_u32(self.hidden.len()));
        for p in &self.points {
            out.put_u32(p.offset_delta);
            out.put_u32(p.index_delta);
            out.put_u32(p.position);
        }
        for h in &self.hidden {
            out.put_u32(h.index_delta);
            out.put_u32(h.position);
            out.put_u32(h.len);
        }
        out.put_u64(self.stamp);
        out
    }

    pub(crate) fn encode_times(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(44 + 12 * self.points.len());
        out.put_i64(self.id.base_offset);
        out.put_u64(self.id.first_index);
        out.put_i64(self.first_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.max_timestamp_offset);
        out.put_u32(len_u32(self.points.len()));
        for (timestamp, delta) in &self.max_before {
            out.put_i64(*timestamp);
            out.put_u32(*delta);
        }
        // The two files are written one after the other and not synced: a power loss may leave an older one of the two.
        out.put_u64(self.bytes);
        out
    }

    /// Decodes both files; `None` unless they belong to this segment as it is (`stamp`), to each other, and to
    /// `log_bytes` of log.
    pub(crate) fn decode(
        id: SegmentId,
        log_bytes: u64,
        stamp: u64,
        mut offsets: &[u8],
        mut times: &[u8],
    ) -> Option<Self> {
        let mut index = Self::new(id);
        index.decode_offsets(&mut offsets)?;
        index.decode_times(&mut times)?;
        let fits = index.bytes == log_bytes
            && index.stamp == stamp
            && index.next_offset >= id.base_offset
            && index.next_index >= id.first_index
            && index
                .points
                .last()
                .is_none_or(|p| u64::from(p.position) < log_bytes)
            && index
                .hidden
                .last()
                .is_none_or(|h| u64::from(h.position) + u64::from(h.len) <= log_bytes);
        fits.then_some(index)
    }

    fn decode_offsets(&mut self, b: &mut &[u8]) -> Option<()> {
        let id = SegmentId {
            base_offset: b.try_get_i64().ok()?,
            first_index: b.try_get_u64().ok()?,
        };
        self.bytes = b.try_get_u64().ok()?;
        self.next_offset = b.try_get_i64().ok()?;
        self.next_index = b.try_get_u64().ok()?;
        let points = b.try_get_u32().ok()? as usize;
        let hidden = b.try_get_u32().ok()? as usize;
        let entries = points.checked_add(hidden)?.checked_mul(12)?;
        // Version 1 has no stamp, and knows no cleaned segments.
        let stamped = b.remaining() == entries.checked_add(8)?;
        if id != self.id || !(stamped || b.remaining() == entries) {
            return None;
        }
        self.points.reserve_exact(points);
        for _ in 0..points {
            let offset_delta = b.try_get_u32().ok()?;
            let index_delta = b.try_get_u32().ok()?;
            self.points.push(Point {
                offset_delta,
                index_delta,
                position: b.try_get_u32().ok()?,
            });
        }
        self.hidden.reserve_exact(hidden);
        for _ in 0..hidden {
            let index_delta = b.try_get_u32().ok()?;
            let position = b.try_get_u32().ok()?;
            self.hidden.push(Hidden {
                index_delta,
                position,
                len: b.try_get_u32().ok()?,
            });
        }
        if stamped {
            self.stamp = b.try_get_u64().ok()?;
        }
        Some(())
    }

    fn decode_times(&mut self, b: &mut &[u8]) -> Option<()> {
        let id = SegmentId {
            base_offset: b.try_get_i64().ok()?,
            first_index: b.try_get_u64().ok()?,
        };
        self.first_timestamp = b.try_get_i64().ok()?;
        self.max_timestamp = b.try_get_i64().ok()?;
        self.max_timestamp_offset = b.try_get_i64().ok()?;
        let n = b.try_get_u32().ok()? as usize;
        // Version 1 does not say which length of the segment it is about.
        if id != self.id || n != self.points.len() || n.checked_mul(12)?.checked_add(8)? != b.remaining() {
            return None;
        }
        self.max_before.reserve_exact(n);
        for _ in 0..n {
            let timestamp = b.try_get_i64().ok()?;
            self.max_before.push((timestamp, b.try_get_u32().ok()?));
        }
        (b.try_get_u64().ok()? == self.bytes).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{data_batch, hidden_batch};

    fn sample() -> (SegmentIndex, Vec<BatchHeader>) {
        let mut index = SegmentIndex::new(SegmentId {
            base_offset: 100,
            first_index: 40,
        });
        let mut headers = Vec::new();
        for i in 0..50_u32 {
            let header = if i % 7 == 3 {
                hidden_batch(index.next_offset, 1, b"membership").header
            } else {
                data_batch(index.next_offset, 1, 3, 1000 + i64::from(i * 37 % 50)).header
            };
            index.note(&header, 300);
            headers.push(header);
        }
        (index, headers)
    }

    #[test]
    fn both_files_decode_to_what_was_encoded_and_only_for_their_segment() {
        let (index, _) = sample();
        let (offsets, times) = (index.encode_offsets(), index.encode_times());
        assert_eq!(
            SegmentIndex::decode(index.id, index.bytes, PLAIN, &offsets, &times),
            Some(index.clone())
        );
        assert_eq!(
            SegmentIndex::decode(index.id, index.bytes + 1, PLAIN, &offsets, &times),
            None
        );
        // A segment without points looks the same to both files, whatever is in it.
        let empty = SegmentIndex::new(index.id);
        let mut short = empty.clone();
        short.note(&data_batch(short.next_offset, 1, 3, 1000).header, 300);
        let stale = empty.encode_times();
        assert_eq!(
            SegmentIndex::decode(index.id, short.bytes, PLAIN, &short.encode_offsets(), &stale),
            None
        );
        assert_eq!(
            SegmentIndex::decode(index.id, index.bytes, 1, &offsets, &times),
            None,
            "the file has been cleaned since"
        );
        let other = SegmentId {
            base_offset: 101,
            first_index: 40,
        };
        assert_eq!(
            SegmentIndex::decode(other, index.bytes, PLAIN, &offsets, &times),
            None
        );
        assert_eq!(
            SegmentIndex::decode(
                index.id,
                index.bytes,
                PLAIN,
                &offsets[..offsets.len() - 1],
                &times
            ),
            None
        );
    }

    #[test]
    fn rewinding_and_noting_again_gives_the_same_index() {
        let (whole, headers) = sample();
        for cut in 0..headers.len() {
            let mut expected = SegmentIndex::new(whole.id);
            headers[..cut].iter().for_each(|h| expected.note(h, 300));
            let mut index = whole.clone();
            let anchor = index.rewind(expected.bytes);
            let from = usize::try_from(anchor.index - whole.id.first_index).unwrap();
            assert!(from <= cut);
            headers[from..cut].iter().for_each(|h| index.note(h, 300));
            assert_eq!(index, expected, "cut at {cut}");
        }
    }

    #[test]
    fn anchors_never_lie_behind_what_is_sought() {
        let (index, headers) = sample();
        let mut pos = 0;
        for (i, header) in (40_u64..).zip(&headers) {
            assert!(index.floor_index(i).pos <= pos && index.floor_index(i).index <= i);
            assert!(index.ceiling_index(i) >= pos);
            if !header.is_hidden() {
                assert!(index.floor_offset(header.base_offset).pos <= pos);
                assert!(index.floor_timestamp(header.max_timestamp).pos <= pos);
            }
            pos += header.total_len() as u64;
        }
        assert!(index.points() > 10, "the sample is sparse but not empty");
        assert_eq!(
            index.hidden_in(0, index.bytes).len(),
            headers.iter().filter(|h| h.is_hidden()).count()
        );
    }
}
