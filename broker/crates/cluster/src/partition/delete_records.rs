//! Moving the log start because a client asks (KIP-107).

use std::sync::Arc;

use super::state::Partition;
use super::types::{ReadError, ServedBy};
use super::waiter::Waiter;

impl Partition {
    /// Deletes the records below `before`, or all committed ones; resolves to the log start offset once that is
    /// committed and on disk. A log start that is there already does not move.
    ///
    /// # Errors
    /// [`ReadError::OffsetOutOfRange`] below 0 or above the high watermark. [`ReadError::NotLeader`] also when
    /// leadership is lost meanwhile: the log start may have moved then.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have moved the log start.
    pub async fn delete_records(self: &Arc<Self>, before: Option<i64>) -> Result<i64, ReadError> {
        let epoch = self.check_epoch(-1, ServedBy::Leader)?;
        let offsets = self.offsets();
        let target = before.unwrap_or(offsets.high_watermark);
        if !(0..=offsets.high_watermark).contains(&target) {
            return Err(ReadError::OffsetOutOfRange {
                requested: target,
                start: offsets.log_start_offset,
                end: offsets.high_watermark,
            });
        }
        if target > offsets.log_start_offset {
            self.propose_log_start(target).map_err(|_| ReadError::NotLeader)?;
        }
        loop {
            let waiter = Waiter::new();
            self.wait(&waiter);
            let log_start_offset = self.offsets().log_start_offset;
            if log_start_offset >= target {
                waiter.wake();
                return Ok(log_start_offset);
            }
            if self.leadership() != Some(epoch) {
                waiter.wake();
                return Err(ReadError::NotLeader);
            }
            waiter.woken().await;
        }
    }
}
