//! Counters of the cluster layer. The broker exposes them under the names given here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use takhin_runtime::telemetry::metrics::{Gauge, gauge};

/// What compaction shows of itself, beside the counters of the storage layer.
#[derive(Debug)]
pub(crate) struct CleanerMetrics {
    pub(crate) dirtiest: Gauge,
    pub(crate) uncleanable: Gauge,
    pub(crate) last_run: Gauge,
    pub(crate) last_run_time: Gauge,
}

pub(crate) static CLEANER: LazyLock<CleanerMetrics> = LazyLock::new(|| CleanerMetrics {
    dirtiest: gauge(
        "takhin_cleaner_max_dirty_percent",
        "Largest share of uncompacted bytes of any compacted partition, of those old enough to be compacted",
    ),
    uncleanable: gauge(
        "takhin_cleaner_uncleanable_partitions",
        "Partitions whose compaction has failed and is not tried again before they are opened anew",
    ),
    last_run: gauge(
        "takhin_cleaner_last_run_timestamp_seconds",
        "When the last compaction of a partition ended",
    ),
    last_run_time: gauge(
        "takhin_cleaner_last_run_duration_seconds",
        "Time that the last compaction of a partition took",
    ),
});

/// Shared counters of one node.
pub(crate) type Metrics = Arc<ClusterMetrics>;

/// Counters of one node's groups.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    group_failures: AtomicU64,
    leaderships: AtomicU64,
}

impl ClusterMetrics {
    pub(crate) fn group_failed(&self) {
        self.group_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leadership_gained(&self) {
        self.leaderships.fetch_add(1, Ordering::Relaxed);
    }

    /// `takhin_raft_group_failures_total`: groups that ended by a storage or internal error and were rebuilt.
    pub fn group_failures(&self) -> u64 {
        self.group_failures.load(Ordering::Relaxed)
    }

    /// `takhin_raft_leadership_changes_total`: leaderships that began on this broker.
    pub fn leaderships(&self) -> u64 {
        self.leaderships.load(Ordering::Relaxed)
    }
}
