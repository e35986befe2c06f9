//! What an earlier process appended above the stored watermark is made durable before the log is used.
//!
//! The invariant: **the durable watermark of a log in use is never below what was acknowledged.** A failed sync cuts the
//! log to it. But the stored watermark lags behind acknowledgements (it is stored every second or so), and after a kill
//! nobody remembers the newer one. So all that recovery found is synced first. The bytes are written again, in place so
//! that a full disk does not stop it: where an earlier sync failed the page cache calls bytes clean that the medium never
//! got, and a sync alone would succeed without writing them.
//!
//! If that fails the log is not opened, nothing is cut, and the next attempt does the same.

use std::io::IoSlice;

use takhin_runtime::disk::{File, OpenMode};

use super::Log;
use crate::entry::{Checkpoint, LogStatus, PreviousStop};
use crate::error::LogError;
use crate::format::{LOG, SegmentId};
use crate::segment::open_segment;

/// Bytes written again at a time.
const CHUNK: u64 = 1 << 20;

impl Log {
    /// Makes everything that recovery found durable. For a log that nobody else has yet.
    ///
    /// # Errors
    /// `Io`, `Full`: the log is not to be used; opening may be tried again.
    pub(super) fn settle(&self, previous: PreviousStop) -> Result<(), LogError> {
        let inherits = matches!(previous, PreviousStop::Killed | PreviousStop::PowerLoss);
        if !inherits || self.status() != LogStatus::Ready {
            return Ok(());
        }
        let (durable, segments) = {
            let state = self.state.read();
            let active = &state.active.index;
            let sealed = state.sealed.iter().map(|segment| (segment.id, segment.bytes));
            let segments = sealed.chain([(active.id, active.bytes)]);
            let above = segments.filter(|(id, _)| *id >= state.durable.segment);
            (state.durable, above.collect::<Vec<_>>())
        };
        if durable.next_index() == self.state.read().next_index() {
            return Ok(());
        }
        for (id, bytes) in segments {
            self.write_again(id, from(&durable, id), bytes)?;
        }
        let target = self.sync_target()?;
        let synced = target.sync(&*self.cx.disk);
        synced.map_err(|e| LogError::io("sync", &self.dir, e))?;
        self.sync_finished(&target, Ok(()))?;
        Ok(())
    }

    fn write_again(&self, id: SegmentId, from: u64, to: u64) -> Result<(), LogError> {
        let path = id.path(&self.dir, LOG);
        let file = open_segment(&*self.cx.disk, &path, OpenMode::Write)?;
        let mut at = from;
        while at < to {
            let len = (to - at).min(CHUNK);
            copy_onto_itself(&*file, at, len).map_err(|e| LogError::io("write", &path, e))?;
            at += len;
        }
        Ok(())
    }
}

/// Where the bytes above the watermark begin in a segment that is not below it.
fn from(durable: &Checkpoint, id: SegmentId) -> u64 {
    if id == durable.segment {
        durable.position
    } else {
        0
    }
}

fn copy_onto_itself(file: &dyn File, at: u64, len: u64) -> std::io::Result<()> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, at)?;
    file.write_at(&mut [IoSlice::new(&bytes)], at)
}
