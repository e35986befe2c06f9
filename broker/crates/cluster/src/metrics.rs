//! Counters of the cluster layer. The broker exposes them under the names given here.

use std::sync::{Arc, LazyLock};

use takhin_runtime::telemetry::metrics::{Counter, Gauge, counter, gauge};

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

/// What the node's groups show of themselves.
pub(crate) type Metrics = Arc<GroupMetrics>;

/// See the help of each.
#[derive(Debug)]
pub(crate) struct GroupMetrics {
    failures: Counter,
    leaderships: Counter,
    wakes: Counter,
}

impl Default for GroupMetrics {
    fn default() -> Self {
        Self {
            failures: counter(
                "takhin_raft_group_failures_total",
                "Groups that ended by a storage or internal error and were rebuilt from disk",
            ),
            leaderships: counter(
                "takhin_raft_leadership_changes_total",
                "Leaderships that began on this broker",
            ),
            wakes: counter(
                "takhin_raft_group_wakes_total",
                "Groups that were parked and are no longer",
            ),
        }
    }
}

impl GroupMetrics {
    pub(crate) fn group_failed(&self) {
        self.failures.inc();
    }

    pub(crate) fn leadership_gained(&self) {
        self.leaderships.inc();
    }

    pub(crate) fn woken(&self) {
        self.wakes.inc();
    }
}
