//! Refusing records before the disk is full, so that votes, metadata and deletions still find room.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use takhin_runtime::Disk;

/// Whether the data directory's file system has less free space than the configured floor.
#[derive(Debug, Default)]
pub(crate) struct DiskGate {
    low: AtomicBool,
}

impl DiskGate {
    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Looks at the disk again. Opens only with an eighth more than the floor free, so that it does not flap.
    pub(crate) fn update(&self, disk: &Arc<dyn Disk>, path: &Path, floor: u64) {
        let free = match disk.space(path) {
            Ok(space) => space.free,
            Err(error) => return tracing::warn!(%error, path = %path.display(), "free space cannot be read"),
        };
        let low = if self.is_low() {
            free < floor.saturating_add(floor / 8)
        } else {
            free < floor
        };
        if self.low.swap(low, Ordering::Relaxed) != low {
            if low {
                tracing::error!(
                    free,
                    floor,
                    "disk is almost full: records are refused until space is freed"
                );
            } else {
                tracing::info!(free, floor, "disk has room again: records are accepted");
            }
        }
    }
}
