//! Reading: fetch plans, offset look-ups, epoch checks.

use std::sync::Arc;

use takhin_storage::{FileRanges, Log, LogError};

use super::state::{Partition, Phase, State};
use super::types::{Fetched, FoundOffset, Isolation, OffsetSpec, Offsets, ReadError, ServedBy};

impl Partition {
    /// Checks that this replica may answer, and the client's idea of the leader epoch (KIP-320; -1 checks nothing).
    ///
    /// # Errors
    /// [`ReadError::NotLeader`], [`ReadError::StorageOffline`], [`ReadError::FencedLeaderEpoch`],
    /// [`ReadError::UnknownLeaderEpoch`].
    pub fn check_epoch(&self, current_leader_epoch: i32, served_by: ServedBy) -> Result<i32, ReadError> {
        let state = self.state.lock();
        state.readable(served_by)?;
        let current = state.epoch;
        match current_leader_epoch {
            -1 => Ok(current),
            requested if requested < current => Err(ReadError::FencedLeaderEpoch { requested, current }),
            requested if requested > current => Err(ReadError::UnknownLeaderEpoch { requested, current }),
            _ => Ok(current),
        }
    }

    /// Plans a read of whole batches from `from` on, below the bound of `isolation`.
    ///
    /// `max_bytes` limits the answer, except that with `at_least_one` the first batch comes whatever its size
    /// (KIP-74). Between the bound and the log end the answer is empty, and so it is on a follower that has records and
    /// was not told yet that they are committed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn fetch(
        &self,
        from: i64,
        max_bytes: usize,
        at_least_one: bool,
        isolation: Isolation,
        served_by: ServedBy,
    ) -> Result<Fetched, ReadError> {
        let (log, offsets) = self.view(served_by)?;
        if from < offsets.log_start_offset || from > offsets.log_end_offset {
            return Err(ReadError::OffsetOutOfRange {
                requested: from,
                start: offsets.log_start_offset,
                end: offsets.log_end_offset,
            });
        }
        let bound = bound(&offsets, isolation);
        if from >= bound {
            return Ok(Fetched {
                ranges: FileRanges::empty(from),
                offsets,
            });
        }
        match log.read(from, bound, max_bytes, at_least_one) {
            Ok(ranges) => Ok(Fetched { ranges, offsets }),
            // Retention may have moved the log start between the view and the read.
            Err(LogError::OffsetOutOfRange {
                requested,
                start,
                end,
            }) => Err(ReadError::OffsetOutOfRange {
                requested,
                start,
                end,
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds the offset that `spec` asks for. May read and inflate batches: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn find_offset(&self, spec: OffsetSpec, isolation: Isolation) -> Result<FoundOffset, ReadError> {
        let (log, offsets) = self.view(ServedBy::Leader)?;
        let epoch = self.leader_epoch();
        let at = |offset, timestamp| FoundOffset {
            offset,
            timestamp,
            leader_epoch: epoch_at(&log, offset),
        };
        let none = FoundOffset {
            offset: -1,
            timestamp: -1,
            leader_epoch: -1,
        };
        let bound = bound(&offsets, isolation);
        let found = match spec {
            OffsetSpec::Latest => {
                return Ok(FoundOffset {
                    offset: bound,
                    timestamp: -1,
                    leader_epoch: epoch,
                });
            }
            OffsetSpec::Earliest | OffsetSpec::EarliestLocal => return Ok(at(offsets.log_start_offset, -1)),
            OffsetSpec::LastTiered => return Ok(none),
            OffsetSpec::MaxTimestamp => log.max_timestamp()?,
            OffsetSpec::AtOrAfter(timestamp) => log.offset_for_timestamp(timestamp)?,
        };
        Ok(match found {
            Some((offset, timestamp)) if offset >= offsets.log_start_offset && offset < bound => {
                at(offset, timestamp)
            }
            _ => none,
        })
    }

    /// The largest epoch not above `epoch` and the offset where it ends; `(-1, -1)` if there is none (KIP-101,
    /// KIP-320). The current epoch ends where the leader's log ends, committed or not, as in Kafka.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> (i32, i64) {
        let state = self.state.lock();
        let Some(log) = &state.log else { return (-1, -1) };
        if epoch == state.epoch {
            return (epoch, log.end().log_end_offset);
        }
        let known = u32::try_from(epoch)
            .ok()
            .and_then(|epoch| log.end_offset_for(epoch));
        known.map_or((-1, -1), |(epoch, end)| {
            (i32::try_from(epoch).unwrap_or(i32::MAX), end)
        })
    }

    /// The open log, for statistics and maintenance.
    pub fn log(&self) -> Option<Arc<Log>> {
        self.state.lock().log.clone()
    }

    fn view(&self, served_by: ServedBy) -> Result<(Arc<Log>, Offsets), ReadError> {
        let state = self.state.lock();
        let log = state.readable(served_by)?;
        Ok((Arc::clone(log), state.offsets()))
    }
}

impl State {
    /// The log, if reads are served: by a leader, by a follower to those who may read from it, and by the only replica
    /// although its storage is damaged. Where there are others, one of them leads by now or is about to, and to say here
    /// that nothing is new would keep a consumer from looking for it.
    fn readable(&self, served_by: ServedBy) -> Result<&Arc<Log>, ReadError> {
        match (&self.phase, &self.log) {
            (Phase::Leading { .. }, Some(log)) => Ok(log),
            (Phase::Following, Some(log)) if served_by == ServedBy::AnyReplica => Ok(log),
            (Phase::Offline { is_alone: true, .. }, Some(log)) => Ok(log),
            (Phase::Offline { reason, .. }, _) => Err(ReadError::StorageOffline {
                reason: reason.clone(),
            }),
            (Phase::Leading { .. } | Phase::Following | Phase::Deleted, _) => Err(ReadError::NotLeader),
        }
    }
}

/// The leader epoch under which `offset` was written; -1 when it is not known.
fn epoch_at(log: &Log, offset: i64) -> i32 {
    let starts = log.epochs();
    let at = starts.partition_point(|start| start.first_offset <= offset);
    let epoch = at.checked_sub(1).map(|i| starts[i].epoch);
    epoch.map_or(-1, |epoch| i32::try_from(epoch).unwrap_or(i32::MAX))
}

fn bound(offsets: &Offsets, isolation: Isolation) -> i64 {
    match isolation {
        Isolation::ReadUncommitted => offsets.high_watermark,
        Isolation::ReadCommitted => offsets.last_stable_offset,
    }
}
