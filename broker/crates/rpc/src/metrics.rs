//! What links show of themselves.

use std::sync::LazyLock;

use takhin_runtime::telemetry::metrics::{
    Counter, Family, Gauge, Histogram, counter, counters, gauge, gauges, histograms,
};

/// Series of all links.
#[derive(Debug)]
pub(crate) struct RpcMetrics {
    queued_bytes: Family<Gauge, 2>,
    outstanding: Family<Gauge, 2>,
    pub(crate) unanswered: Gauge,
    round_trip: Family<Histogram, 1>,
    pub(crate) links: Gauge,
    pub(crate) link_failures: Family<Counter, 1>,
    pub(crate) calls_failed: Family<Counter, 1>,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
}

pub(crate) static METRICS: LazyLock<RpcMetrics> = LazyLock::new(|| RpcMetrics {
    queued_bytes: gauges(
        "takhin_rpc_queued_bytes",
        "Bytes that wait to be sent to a peer",
        ["peer", "stream"],
    ),
    outstanding: gauges(
        "takhin_rpc_outstanding_calls",
        "Calls to a peer that have no answer yet",
        ["peer", "stream"],
    ),
    unanswered: gauge(
        "takhin_rpc_unanswered_bytes",
        "Bytes of requests from peers that have no answer yet, and of answers not yet sent",
    ),
    round_trip: histograms(
        "takhin_rpc_round_trip_seconds",
        "Time from a call to its answer, waiting in line included",
        ["stream"],
    ),
    links: gauge("takhin_rpc_links", "Peers that a link stands to"),
    link_failures: counters(
        "takhin_rpc_link_failures_total",
        "Links that broke or could not be made",
        ["reason"],
    ),
    calls_failed: counters(
        "takhin_rpc_failed_calls_total",
        "Calls without an answer",
        ["reason"],
    ),
    connections: gauge("takhin_rpc_connections", "Connections that peers have made"),
    connections_refused: counter(
        "takhin_rpc_refused_connections_total",
        "Connections closed at once because there were too many",
    ),
});

impl RpcMetrics {
    /// Those of the way out of one stream.
    pub(crate) fn outbox(&self, peer: u32, stream: &str) -> OutboxGauges {
        let peer = peer.to_string();
        OutboxGauges {
            queued_bytes: self.queued_bytes.with([&peer, stream]),
            outstanding: self.outstanding.with([&peer, stream]),
        }
    }

    /// Forgets a peer that is no longer one.
    pub(crate) fn forget(&self, peer: u32, stream: &str) {
        let peer = peer.to_string();
        self.queued_bytes.remove([&peer, stream]);
        self.outstanding.remove([&peer, stream]);
    }

    pub(crate) fn round_trip(&self, stream: &str) -> Histogram {
        self.round_trip.with([stream])
    }
}

/// Gauges of the way out of one stream.
#[derive(Debug, Default)]
pub(crate) struct OutboxGauges {
    pub(crate) queued_bytes: Gauge,
    pub(crate) outstanding: Gauge,
}
