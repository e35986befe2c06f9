//! Reading by offset: ranges of segment files.

use std::ops::Range;
use std::sync::Arc;

use takhin_runtime::disk::File;

use super::{Log, View};
use crate::entry::{FileRange, FileRanges};
use crate::error::LogError;
use crate::format::{LOG, SegmentId, to_usize};
use crate::index::Hidden;
use crate::walk::Walk;

/// Where to look in one segment for batches by offset.
struct OffsetPlan {
    file: Arc<dyn File>,
    bytes: u64,
    /// Exact, or a boundary before it.
    start: u64,
    start_is_exact: bool,
    /// Boundary at or before the end of what may be read.
    end_floor: u64,
    /// Set when everything to the segment's end is wanted.
    end_is_all: bool,
    next_offset: i64,
    end_index: u64,
    /// Those from `start` on, up to the limit and the size that are wanted.
    hidden: Vec<Hidden>,
}

/// How far a segment was read.
struct ReadTo {
    /// Whether to its end.
    whole: bool,
    /// Raft index after its last entry, exclusive.
    end_index: u64,
}

/// What a caller of `read` still wants.
struct Want {
    from: i64,
    limit: i64,
    max_bytes: u64,
    at_least_one: bool,
}

impl Log {
    /// Whole batches from the one that holds `from` on, as ranges of segment files.
    ///
    /// Only batches that end at or below `limit_offset` (exclusive: the high watermark or the last stable offset)
    /// are returned, at most `max_bytes` of them, except that with `at_least_one` the first batch comes whatever its
    /// size. Hidden entries are left out. Nothing found is an empty answer, not an error.
    ///
    /// # Errors
    ///
    /// `OffsetOutOfRange` unless `log_start_offset <= from <= log_end_offset`; `Corrupt` where a header is damaged.
    pub fn read(
        &self,
        from: i64,
        limit_offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<FileRanges, LogError> {
        let mut out = FileRanges::empty(from);
        let mut segment = {
            let state = self.state.read();
            let (start, end) = (state.persisted.log_start_offset, state.end_offset());
            if from < start || from > end {
                return Err(LogError::OffsetOutOfRange {
                    requested: from,
                    start,
                    end,
                });
            }
            if from >= limit_offset.min(end) {
                return Ok(out);
            }
            state.segment_of_offset(from)
        };
        loop {
            let want = Want {
                from: out.next_offset,
                limit: limit_offset,
                max_bytes: max_bytes.saturating_sub(out.bytes) as u64,
                at_least_one: at_least_one && out.bytes == 0,
            };
            let Some(read) = self.read_segment(segment, &want, &mut out)? else {
                // Truncated, deleted or merged with its predecessor since.
                match self.segment_again(out.next_offset) {
                    Some(again) if again != segment => segment = again,
                    _ => return Ok(out),
                }
                continue;
            };
            match self.segment_after(read.end_index) {
                Some(next)
                    if read.whole && out.next_offset < limit_offset && out.bytes < max_bytes.max(1) =>
                {
                    segment = next;
                }
                _ => return Ok(out),
            }
        }
    }

    /// Adds what one segment has of `want`; `None` if there is no such segment any more.
    fn read_segment(
        &self,
        id: SegmentId,
        want: &Want,
        out: &mut FileRanges,
    ) -> Result<Option<ReadTo>, LogError> {
        let Some(plan) = self.with_segment(id, |view| plan_offsets(&view, want))? else {
            return Ok(None);
        };
        let end_index = plan.end_index;
        let whole = self.read_planned(id, plan, want, out)?;
        Ok(Some(ReadTo { whole, end_index }))
    }

    /// Returns whether the segment was read to its end.
    fn read_planned(
        &self,
        id: SegmentId,
        plan: OffsetPlan,
        want: &Want,
        out: &mut FileRanges,
    ) -> Result<bool, LogError> {
        let options = self.options();
        let path = id.path(&self.dir, LOG);
        let mut start = plan.start;
        let mut first = None;
        if !plan.start_is_exact {
            let mut walk = Walk::new(&*plan.file, &path, start..plan.bytes, options.max_batch_bytes);
            loop {
                match walk.next()? {
                    Some(found) if found.header.next_offset() <= want.from => {}
                    Some(found) if found.header.is_hidden() => {}
                    Some(found) => {
                        start = found.pos;
                        first = Some(found);
                        break;
                    }
                    None => return Ok(true),
                }
            }
        }
        let cap = start.saturating_add(want.max_bytes);
        if plan.end_is_all && plan.bytes <= cap {
            out.next_offset = plan.next_offset;
            push_ranges(&plan, start..plan.bytes, out);
            return Ok(true);
        }
        let mut end = start;
        let mut whole = true;
        let from = plan.end_floor.max(start);
        let mut walk = Walk::new(&*plan.file, &path, from..plan.bytes, options.max_batch_bytes);
        if from > start {
            // The boundary itself is within both limits; without a walk its offset is that of the batch there.
            end = from;
        }
        while let Some(found) = walk.next()? {
            if found.pos == from && from > start {
                out.next_offset = found.header.base_offset;
            }
            if found.header.is_hidden() {
                continue;
            }
            let is_first = found.pos == start || first.is_some_and(|f| f.pos == found.pos);
            let fits = found.end() <= cap || (is_first && want.at_least_one);
            if !fits || found.header.next_offset() > want.limit {
                whole = false;
                break;
            }
            end = found.end();
            out.next_offset = found.header.next_offset();
        }
        push_ranges(&plan, start..end, out);
        Ok(whole)
    }

    /// The segment after one that ended before raft index `end_index`: the one that begins there, or one that has
    /// swallowed it since. `None` if the log ends there.
    fn segment_after(&self, end_index: u64) -> Option<SegmentId> {
        let state = self.state.read();
        if state.next_index() <= end_index {
            return None;
        }
        Some(state.segment_of_index(end_index))
    }

    /// The segment that holds `offset` now; `None` if the log start has passed it.
    fn segment_again(&self, offset: i64) -> Option<SegmentId> {
        let state = self.state.read();
        let held = state.persisted.log_start_offset <= offset && offset <= state.end_offset();
        held.then(|| state.segment_of_offset(offset))
    }
}

/// Adds `range` of a segment, split around hidden entries.
fn push_ranges(plan: &OffsetPlan, range: Range<u64>, out: &mut FileRanges) {
    let mut pos = range.start;
    let gaps = plan
        .hidden
        .iter()
        .map(|h| (u64::from(h.position), u64::from(h.position) + u64::from(h.len)))
        .filter(|gap| gap.0 >= range.start && gap.0 < range.end);
    for (gap_start, gap_end) in gaps.chain([(range.end, range.end)]) {
        if gap_start > pos {
            let len = to_usize(gap_start - pos);
            out.ranges.push(FileRange {
                file: plan.file.clone(),
                pos,
                len,
            });
            out.bytes += len;
        }
        pos = gap_end;
    }
}

impl super::State {
    /// The segment that holds `offset`, or begins after the hole it lies in.
    pub(super) fn segment_of_offset(&self, offset: i64) -> SegmentId {
        // Segments of hidden entries alone share their base offset with the next; the last one holds the records.
        if self.active.index.id.base_offset <= offset {
            return self.active.index.id;
        }
        let n = self.sealed.partition_point(|s| s.id.base_offset <= offset);
        self.sealed
            .get(n.saturating_sub(1))
            .map_or(self.active.index.id, |s| s.id)
    }
}

fn plan_offsets(view: &View<'_>, want: &Want) -> OffsetPlan {
    let index = view.index;
    let exact = view.heads.and_then(|h| h.at_offset(want.from));
    let exact = exact.filter(|h| h.head.index >= index.id.first_index);
    let start = exact.map_or_else(|| index.floor_offset(want.from).pos, |h| h.pos);
    OffsetPlan {
        file: view.file.clone(),
        bytes: index.bytes,
        start,
        start_is_exact: exact.is_some(),
        end_floor: index
            .floor_end(start.saturating_add(want.max_bytes), want.limit)
            .pos,
        end_is_all: want.limit >= index.next_offset,
        next_offset: index.next_offset,
        end_index: index.next_index,
        hidden: index.hidden_in(start, index.bytes).to_vec(),
    }
}
