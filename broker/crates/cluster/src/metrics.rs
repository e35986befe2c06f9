//! Counters of the cluster layer. The broker exposes them under the names given here.

use std::sync::{Arc, LazyLock};

use takhin_runtime::telemetry::metrics::{
    Counter, Family, Gauge, Histogram, counter, counters, gauge, gauges, histograms,
};

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

/// What one direction of throttled replication shows of itself.
#[derive(Debug)]
pub(crate) struct ThrottleMetrics {
    pub(crate) bytes: Counter,
    pub(crate) waited: Histogram,
    pub(crate) rate: Gauge,
}

/// Both directions.
#[derive(Debug)]
pub(crate) struct Throttled {
    pub(crate) leader: ThrottleMetrics,
    pub(crate) follower: ThrottleMetrics,
}

pub(crate) static THROTTLES: LazyLock<Throttled> = LazyLock::new(|| {
    let bytes = counters(
        "takhin_replication_throttled_bytes_total",
        "Bytes under a throttle of replication: those that this broker sent (leader) and was sent (follower)",
        ["side"],
    );
    let waited = histograms(
        "takhin_replication_throttle_wait_seconds",
        "How long they waited for it",
        ["side"],
    );
    let rate = gauges(
        "takhin_replication_throttle_rate_bytes",
        "Bytes a second that the throttle lets pass; -1 without one",
        ["side"],
    );
    let side = |side| ThrottleMetrics {
        bytes: bytes.with([side]),
        waited: waited.with([side]),
        rate: rate.with([side]),
    };
    Throttled {
        leader: side("leader"),
        follower: side("follower"),
    }
});

pub(crate) static UNANSWERED: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "takhin_replication_unanswered_bytes",
        "Bytes of entries that leaders here have read for replicas that have not answered yet",
    )
});

/// What moves of replicas show of themselves.
#[derive(Debug)]
pub(crate) struct MoveMetrics {
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) led: Gauge,
    pub(crate) adding: Gauge,
    /// By topic, partition and broker.
    pub(crate) lag: Family<Gauge, 3>,
}

pub(crate) static MOVES: LazyLock<MoveMetrics> = LazyLock::new(|| MoveMetrics {
    bytes_in: counter(
        "takhin_reassignment_bytes_in_total",
        "Bytes that replicas here were sent that do not vote yet (Kafka: ReassignmentBytesInPerSec)",
    ),
    bytes_out: counter(
        "takhin_reassignment_bytes_out_total",
        "Bytes that leaders here sent to replicas that do not vote yet (Kafka: ReassignmentBytesOutPerSec)",
    ),
    led: gauge(
        "takhin_reassigning_partitions",
        "Partitions led here whose replicas are being moved (Kafka: ReassigningPartitions)",
    ),
    adding: gauge(
        "takhin_reassignment_adding_replicas",
        "Replicas that this broker is being given",
    ),
    lag: gauges(
        "takhin_reassignment_lag_bytes",
        "Bytes that a replica lacks which a partition led here is being given; for up to 128 of them",
        ["topic", "partition", "broker"],
    ),
});

/// How far followers lag.
#[derive(Debug)]
pub(crate) struct LagMetrics {
    greatest: [Gauge; 3],
    /// By topic, partition and broker.
    replicas: [Family<Gauge, 3>; 3],
}

/// What lags are counted in, with what each means.
const LAG_UNITS: [(&str, &str); 3] = [
    ("records", "Records that a follower of a partition led here lacks"),
    (
        "bytes",
        "Bytes of the leader's segments that a follower of a partition led here lacks, about",
    ),
    (
        "seconds",
        "Time since a follower of a partition led here that lacks something last had everything, to half a second",
    ),
];

pub(crate) static LAGS: LazyLock<LagMetrics> = LazyLock::new(|| LagMetrics {
    greatest: LAG_UNITS.map(|(unit, help)| {
        let name = format!("takhin_replica_max_lag_{unit}");
        gauge(&name, &format!("{help}: the most of any (Kafka: MaxLag)"))
    }),
    replicas: LAG_UNITS.map(|(unit, help)| {
        let name = format!("takhin_replica_lag_{unit}");
        let help = format!("{help}; for up to 128 of them, and only while they lack something");
        gauges(&name, &help, ["topic", "partition", "broker"])
    }),
});

impl LagMetrics {
    /// The most of any follower: records, bytes, seconds.
    pub(crate) fn set_greatest(&self, lag: [i64; 3]) {
        for (gauge, value) in self.greatest.iter().zip(lag) {
            gauge.set(value);
        }
    }

    /// What a replica lacks: records, bytes, seconds.
    pub(crate) fn show(&self, replica: [&str; 3], lag: [i64; 3]) {
        for (family, value) in self.replicas.iter().zip(lag) {
            family.with(replica).set(value);
        }
    }

    pub(crate) fn forget(&self, replica: [&str; 3]) {
        self.replicas.iter().for_each(|family| family.remove(replica));
    }
}

/// Changes of how many replicas are in sync, of partitions led here.
#[derive(Debug)]
pub(crate) struct IsrMetrics {
    pub(crate) shrinks: Counter,
    pub(crate) expands: Counter,
}

pub(crate) static ISR: LazyLock<IsrMetrics> = LazyLock::new(|| IsrMetrics {
    shrinks: counter(
        "takhin_isr_shrinks_total",
        "How often replicas of partitions led here fell out of sync (Kafka: IsrShrinksPerSec)",
    ),
    expands: counter(
        "takhin_isr_expands_total",
        "How often replicas of partitions led here came in sync again (Kafka: IsrExpandsPerSec)",
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
