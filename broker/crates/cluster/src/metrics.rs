//! Counters of the cluster layer. The broker exposes them under the names given here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
