//! Compaction: the last record of each key stays, under its own offset and in its own place (Kafka's `LogCleaner`).
//!
//! A pass looks at sealed segments only, wholly purged and committed, from the first of the log to some boundary:
//!
//! ```text
//!   clean part      │ dirty part, old enough      │ too new  │ active
//!   ────────────────┼─────────────────────────────┼──────────┼────────
//!              first dirty offset           what the pass covers ends here
//!
//!   1. map       keys of the dirty part -> newest offset; as much of it as the map has room for
//!   2. rewrite   all segments up to there, clean ones too, in groups that make one new segment each
//!   3. swap      each group's new segment takes the place of its old ones (swap.rs)
//! ```
//!
//! Reads and appends go on meanwhile. A reader of a replaced segment finishes on the old file, which it holds open.
//! A pass is driven in [`Cleaning::step`]s, so that its driver decides how fast it goes and when it ends.

mod filter;
mod output;
mod pass;
mod source;
mod swap;

use std::sync::Arc;

pub use self::pass::{CleanStep, Cleaning};
use super::{Log, State};
use crate::error::LogError;
use crate::format::SegmentId;
use crate::index::NO_TIMESTAMP;
use crate::metrics::METRICS;
use crate::segment::Sealed;

/// A topic's settings for compaction, under Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CleanRules {
    /// `min.compaction.lag.ms`: records younger than this stay as they are; by the segment's largest timestamp.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: a record older than this makes the log due whatever its dirty ratio.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long a tombstone stays after the pass that made it removable.
    pub delete_retention_ms: i64,
    /// `min.cleanable.dirty.ratio`: the log is due when more than this share of its bytes is dirty.
    pub min_dirty_ratio: f64,
}

/// How a pass works: the node's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanLimits {
    /// Bytes of the offset map.
    pub map_bytes: usize,
    /// Largest batch that is looked into, in bytes, before and after decompression. A larger one is copied as it is.
    pub max_inflated: usize,
    /// Under which keys are hashed; a different one for each pass.
    pub seed: u128,
}

/// What compaction would have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleanable {
    /// Bytes of sealed segments that an earlier pass has looked at.
    pub clean_bytes: u64,
    /// Bytes of those that no pass has looked at and one may.
    pub dirty_bytes: u64,
    /// Whether a record is older than `max.compaction.lag.ms`.
    pub overdue: bool,
    /// First offset that no pass has looked at.
    pub first_dirty: i64,
    /// Where a pass would end, exclusive. Its entries must be purged before ([`Log::purge_to`]).
    pub end: SegmentId,
}

impl Cleanable {
    /// Share of the dirty bytes, 0.0 to 1.0.
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
    pub fn ratio(&self) -> f64 {
        match self.clean_bytes + self.dirty_bytes {
            0 => 0.0,
            all => self.dirty_bytes as f64 / all as f64,
        }
    }

    /// Whether the settings ask for a pass.
    pub fn is_due(&self, rules: &CleanRules) -> bool {
        self.dirty_bytes > 0 && (self.overdue || self.ratio() > rules.min_dirty_ratio)
    }
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CleanReport {
    /// Bytes of segments read, for the map and again for writing.
    pub bytes_read: u64,
    /// Bytes of new segments.
    pub bytes_written: u64,
    /// Records looked at while writing.
    pub records: u64,
    /// Those of them that stayed.
    pub records_kept: u64,
    /// Batches that were too large to be looked into and stayed as they are.
    pub batches_unread: u64,
    /// Segments replaced, and those that took their place.
    pub segments: (usize, usize),
    /// First offset that no pass has looked at now.
    pub first_dirty: i64,
}

/// What is known of a log's compaction in this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanerStatus {
    /// Why no pass is tried any more, if the last one failed; until the log is opened again.
    pub uncleanable: Option<String>,
    /// When the last pass ended, in milliseconds since the epoch.
    pub last_run_ms: Option<i64>,
}

/// A sealed segment with what decides about its compaction.
struct Candidate {
    sealed: Arc<Sealed>,
    end: SegmentId,
}

impl Log {
    /// What compaction would have to do now; `None` if nothing is both sealed and old enough.
    ///
    /// Nothing at or above `limit_offset` (exclusive: the last stable offset) is considered. Opens the indexes of dirty
    /// segments.
    ///
    /// # Errors
    ///
    /// Those of the disk, `Corrupt`.
    pub fn cleanable(
        &self,
        rules: &CleanRules,
        now_ms: i64,
        limit_offset: i64,
    ) -> Result<Option<Cleanable>, LogError> {
        let (first_dirty, candidates) = {
            let state = self.state.read();
            (state.first_dirty(), state.candidates(limit_offset))
        };
        let mut found: Option<Cleanable> = None;
        let mut cleanable = Cleanable {
            clean_bytes: 0,
            dirty_bytes: 0,
            overdue: false,
            first_dirty,
            end: SegmentId {
                base_offset: 0,
                first_index: 0,
            },
        };
        for candidate in candidates {
            cleanable.end = candidate.end;
            if candidate.end.base_offset <= first_dirty {
                cleanable.clean_bytes += candidate.sealed.bytes;
                continue;
            }
            let times = self.with_segment(candidate.sealed.id, |view| {
                (view.index.first_timestamp, view.index.max_timestamp)
            })?;
            let Some((first, largest)) = times else { break };
            let lag = rules.min_compaction_lag_ms;
            if lag > 0 && largest > now_ms.saturating_sub(lag) {
                break;
            }
            let age = now_ms.saturating_sub(first);
            cleanable.overdue |= first > NO_TIMESTAMP && age > rules.max_compaction_lag_ms;
            cleanable.dirty_bytes += candidate.sealed.bytes;
            found = Some(cleanable);
        }
        Ok(found)
    }

    /// Begins a pass over what [`Log::cleanable`] found, or over as much of it as is purged; `None` if nothing is.
    ///
    /// There must be one pass at a time.
    pub fn clean(
        self: &Arc<Self>,
        cleanable: &Cleanable,
        rules: CleanRules,
        limits: &CleanLimits,
        now_ms: i64,
    ) -> Option<Cleaning> {
        let sources = {
            let state = self.state.read();
            let mut sources = state.candidates(cleanable.end.base_offset);
            let purged = state.persisted.purged_end();
            sources.retain(|s| s.end.first_index <= purged.min(cleanable.end.first_index));
            sources
        };
        let dirty = sources
            .last()
            .is_some_and(|s| s.end.base_offset > cleanable.first_dirty);
        dirty.then(|| {
            Cleaning::new(
                Arc::clone(self),
                sources,
                cleanable.first_dirty,
                rules,
                limits,
                now_ms,
            )
        })
    }

    /// What is known of this log's compaction.
    pub fn cleaner_status(&self) -> CleanerStatus {
        self.cleaner.lock().clone()
    }

    /// Takes note of how a pass ended.
    fn cleaned(&self, result: Result<&CleanReport, &LogError>, now_ms: i64) {
        let mut status = self.cleaner.lock();
        status.last_run_ms = Some(now_ms);
        match result {
            Ok(report) => {
                METRICS.cleaner_runs.add(1);
                tracing::info!(dir = %self.dir.display(), ?report, "compacted");
            }
            // The disk may have room again, and a log that failed is opened again.
            Err(error @ (LogError::Full { .. } | LogError::Failed { .. } | LogError::Damaged { .. })) => {
                METRICS.cleaner_failures.add(1);
                tracing::warn!(dir = %self.dir.display(), %error, "compaction was given up");
            }
            Err(error) => {
                METRICS.cleaner_failures.add(1);
                tracing::error!(dir = %self.dir.display(), %error, "compaction failed and is not tried again");
                status.uncleanable = Some(match std::error::Error::source(error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                });
            }
        }
    }
}

impl State {
    fn first_dirty(&self) -> i64 {
        let known = self.persisted.first_dirty.min(self.end_offset());
        known.max(self.persisted.log_start_offset)
    }

    /// The sealed segments that end at or below `limit_offset`, ascending from the first of the log.
    fn candidates(&self, limit_offset: i64) -> Vec<Candidate> {
        let all = (0..self.sealed.len()).map(|i| Candidate {
            sealed: Arc::clone(&self.sealed[i]),
            end: self.after_sealed(i),
        });
        all.take_while(|c| c.end.base_offset <= limit_offset).collect()
    }
}
