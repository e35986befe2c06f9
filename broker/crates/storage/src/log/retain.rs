//! The front of the log: log start, purge point, deletion of segments, sizes.

use std::sync::Arc;

use super::{Log, State};
use crate::entry::{EntryId, LogStatus};
use crate::error::LogError;
use crate::format::{DELETED, LOG, SNAPSHOT, SegmentId};
use crate::index::NO_TIMESTAMP;
use crate::metrics::METRICS;
use crate::segment::{Sealed, remove_if_exists, remove_index};
use crate::state_file::LogState;

/// Sizes of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes of all segment files.
    pub bytes: u64,
    /// One for each segment, ascending; the last is active.
    pub segments: Vec<SegmentStats>,
}

/// Size of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStats {
    /// Which segment.
    pub id: SegmentId,
    /// Bytes of its file.
    pub bytes: u64,
    /// Where it ends: offset and raft index, both exclusive.
    pub end: SegmentId,
}

impl Log {
    /// Moves the log start offset up; durable on return. A lower offset than the current one changes nothing.
    ///
    /// Segments wholly below it are deleted as soon as their entries are purged too (see [`Log::purge_to`]); a reader
    /// that still holds a range of one can finish.
    ///
    /// # Errors
    ///
    /// `OffsetOutOfRange` above the log end offset.
    pub fn set_log_start(&self, offset: i64) -> Result<(), LogError> {
        let _writer = self.writer.lock();
        let persisted = {
            let state = self.state.read();
            self.check_not_failed(&state)?;
            let (start, end) = (state.persisted.log_start_offset, state.end_offset());
            if offset > end {
                return Err(LogError::OffsetOutOfRange {
                    requested: offset,
                    start,
                    end,
                });
            }
            if offset <= start {
                return Ok(());
            }
            LogState {
                log_start_offset: offset,
                ..state.persisted
            }
        };
        self.persist_front(persisted)
    }

    /// Records that every entry up to and including `last` belongs to the state machine; durable on return.
    ///
    /// Lower than the current purge point changes nothing. Data stays readable by offset until the log start
    /// passes it.
    ///
    /// # Errors
    ///
    /// `IndexOutOfRange` above the last entry.
    pub fn purge_to(&self, last: EntryId) -> Result<(), LogError> {
        let _writer = self.writer.lock();
        let persisted = {
            let state = self.state.read();
            self.check_not_failed(&state)?;
            if last.index >= state.next_index() {
                let (first, end) = (state.first_index(), state.next_index());
                return Err(LogError::IndexOutOfRange {
                    requested: last.index,
                    first,
                    end,
                });
            }
            if state.persisted.purged.is_some_and(|p| p.index >= last.index) {
                return Ok(());
            }
            LogState {
                purged: Some(last),
                ..state.persisted
            }
        };
        self.persist_front(persisted)
    }

    fn persist_front(&self, persisted: LogState) -> Result<(), LogError> {
        self.write_state(&persisted)?;
        let unused = {
            let mut guard = self.state.write();
            let state = &mut *guard;
            state.persisted = persisted;
            let unused = state.take_unused();
            let first_index = state.first_index();
            state
                .derived
                .epochs
                .drop_before(first_index, persisted.log_start_offset);
            state.assert_order();
            unused
        };
        self.delete_segments(&unused)
    }

    /// Removes files of segments that no reader can find any more.
    fn delete_segments(&self, segments: &[Arc<Sealed>]) -> Result<(), LogError> {
        let disk = &*self.cx.disk;
        for segment in segments {
            let path = segment.id.path(&self.dir, LOG);
            let gone = segment.id.path(&self.dir, &format!("{LOG}.{DELETED}"));
            disk.rename(&path, &gone)
                .map_err(|e| LogError::io("rename", &path, e))?;
            remove_index(disk, &self.dir, segment.id)?;
            remove_if_exists(disk, &segment.id.path(&self.dir, SNAPSHOT))?;
            remove_if_exists(disk, &gone)?;
            METRICS.segments_deleted.add(1);
        }
        if let Some(last) = segments.last() {
            let count = segments.len();
            tracing::info!(dir = %self.dir.display(), count, base_offset = last.id.base_offset, "deleted segments");
        }
        Ok(())
    }

    /// Where retention would move the log start, or `None` if everything stays.
    ///
    /// A sealed segment goes when its largest record timestamp is more than `retention_ms` before `now_ms`, or when
    /// the log without it still has at least `retention_bytes` (Kafka's rules; negative: unlimited). Never past
    /// `limit_offset`, exclusive (the high watermark). Opens indexes of the segments it looks at.
    pub fn retention_point(
        &self,
        now_ms: i64,
        retention_ms: i64,
        retention_bytes: i64,
        limit_offset: i64,
    ) -> Result<Option<i64>, LogError> {
        let stats = self.stats();
        let start = self.end().log_start_offset;
        let live = stats.segments.iter().filter(|s| s.end.base_offset > start);
        let mut excess = match u64::try_from(retention_bytes) {
            Ok(keep) => live.clone().map(|s| s.bytes).sum::<u64>().saturating_sub(keep),
            Err(_) => 0,
        };
        let sealed = stats.segments.len() - 1;
        let mut point = None;
        for segment in stats.segments[..sealed]
            .iter()
            .filter(|s| s.end.base_offset > start)
        {
            let too_big = segment.bytes <= excess;
            let expired = !too_big && retention_ms >= 0 && {
                let newest = self.with_segment(segment.id, |v| v.index.max_timestamp)?;
                newest.is_some_and(|t| t > NO_TIMESTAMP && now_ms.saturating_sub(t) > retention_ms)
            };
            if segment.end.base_offset > limit_offset || !(too_big || expired) {
                break;
            }
            if too_big {
                excess -= segment.bytes;
            }
            point = Some(segment.end.base_offset);
        }
        Ok(point)
    }

    /// Sizes of the log and of its segments. Reads nothing from disk.
    pub fn stats(&self) -> LogStats {
        let state = self.state.read();
        let mut segments = Vec::with_capacity(state.sealed.len() + 1);
        for (i, s) in state.sealed.iter().enumerate() {
            segments.push(SegmentStats {
                id: s.id,
                bytes: s.bytes,
                end: state.after_sealed(i),
            });
        }
        let index = &state.active.index;
        let end = SegmentId {
            base_offset: index.next_offset,
            first_index: index.next_index,
        };
        segments.push(SegmentStats {
            id: index.id,
            bytes: index.bytes,
            end,
        });
        LogStats {
            bytes: segments.iter().map(|s| s.bytes).sum(),
            segments,
        }
    }

    /// The front may still move in a damaged log (that frees space), but not in a failed one.
    fn check_not_failed(&self, state: &State) -> Result<(), LogError> {
        match state.status {
            LogStatus::Damaged(_) => Ok(()),
            LogStatus::Ready | LogStatus::Failed { .. } => self.check_writable(state),
        }
    }
}

impl State {
    /// Takes out the segments that are below both the log start and the purge point.
    fn take_unused(&mut self) -> Vec<Arc<Sealed>> {
        let (start, purged_end) = (self.persisted.log_start_offset, self.persisted.purged_end());
        let unused = (0..self.sealed.len())
            .take_while(|&i| {
                let end = self.after_sealed(i);
                end.base_offset <= start && end.first_index <= purged_end
            })
            .count();
        let gone: Vec<_> = self.sealed.drain(..unused).collect();
        for file in gone.iter().filter_map(Sealed::open_file) {
            self.dirty.forget(&file);
        }
        gone
    }
}
