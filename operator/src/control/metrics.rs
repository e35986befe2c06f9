//! What the operator tells of itself.

use std::sync::LazyLock;
use std::time::Duration;

use takhin_runtime::telemetry::metrics::{
    Counter, Family, Gauge, Histogram, counters, gauge, gauges, histograms,
};

use super::error::Error;

static RECONCILES: LazyLock<Family<Counter, 2>> = LazyLock::new(|| {
    counters(
        "takhin_operator_reconcile_total",
        "Passes over a resource",
        ["controller", "result"],
    )
});

static SECONDS: LazyLock<Family<Histogram, 1>> = LazyLock::new(|| {
    histograms(
        "takhin_operator_reconcile_duration_seconds",
        "Time of a pass over a resource",
        ["controller"],
    )
});

static ERRORS: LazyLock<Family<Counter, 2>> = LazyLock::new(|| {
    counters(
        "takhin_operator_reconcile_errors_total",
        "Passes that failed",
        ["controller", "reason"],
    )
});

static LAST: LazyLock<Family<Gauge, 1>> = LazyLock::new(|| {
    gauges(
        "takhin_operator_last_success_timestamp_seconds",
        "When a pass succeeded last, in seconds since 1970",
        ["controller"],
    )
});

static PATCHES: LazyLock<Family<Counter, 1>> = LazyLock::new(|| {
    counters(
        "takhin_operator_patches_total",
        "Patches sent to the API server",
        ["kind"],
    )
});

static LEADER: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "takhin_operator_leader",
        "1 on the replica that works, 0 on those that wait",
    )
});

static READY: LazyLock<Family<Gauge, 3>> = LazyLock::new(|| {
    gauges(
        "takhin_resource_ready",
        "Whether a resource is Ready",
        ["kind", "namespace", "name"],
    )
});

static BROKERS: LazyLock<Family<Gauge, 3>> = LazyLock::new(|| {
    gauges(
        "takhin_cluster_brokers",
        "Brokers of a cluster by state: wished and ready",
        ["namespace", "name", "state"],
    )
});

/// Controllers, and why their passes may fail.
const CONTROLLERS: [&str; 3] = ["takhincluster", "topic", "pikasource"];

/// Makes the series that count from the start on: a first failure is seen only where there was a zero before.
fn begin() {
    for controller in CONTROLLERS {
        for result in ["success", "error"] {
            RECONCILES.with([controller, result]);
        }
        for reason in Error::REASONS {
            ERRORS.with([controller, reason]);
        }
    }
}

/// A pass of a controller has ended.
pub(super) fn passed(controller: &str, took: Duration, now_ms: i64) {
    RECONCILES.with([controller, "success"]).inc();
    SECONDS.with([controller]).observe(took);
    LAST.with([controller]).set(now_ms / 1000);
}

/// A pass of a controller has failed.
pub(super) fn failed(controller: &str, reason: &str, took: Duration) {
    RECONCILES.with([controller, "error"]).inc();
    ERRORS.with([controller, reason]).inc();
    SECONDS.with([controller]).observe(took);
}

/// A patch was sent.
pub(super) fn patched(kind: &str) {
    PATCHES.with([kind]).inc();
}

/// Whether this replica works.
pub fn leads(leads: bool) {
    begin();
    LEADER.set(leads.into());
}

/// Whether a resource is Ready.
pub(super) fn ready(kind: &str, namespace: &str, name: &str, ready: bool) {
    READY.with([kind, namespace, name]).set(ready.into());
}

/// A resource is gone, and with it everything that is said of it.
pub(super) fn gone(kind: &str, namespace: &str, name: &str) {
    READY.remove([kind, namespace, name]);
    if kind == "TakhinCluster" {
        BROKERS.remove([namespace, name, "wished"]);
        BROKERS.remove([namespace, name, "ready"]);
    }
}

/// Brokers of a cluster.
pub(super) fn brokers(namespace: &str, name: &str, wished: i32, ready: i32) {
    BROKERS.with([namespace, name, "wished"]).set(wished.into());
    BROKERS.with([namespace, name, "ready"]).set(ready.into());
}
