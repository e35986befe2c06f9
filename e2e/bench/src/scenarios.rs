//! The table of scenarios, and of the points of `docs/performance.md` that each of them decides.

use crate::broker::Durability::{self, Cached, Flushed};
use crate::points::{Limit, Load, Point, Produce, Rate, Scenario, Start, Strike};

const W1: Produce = Produce {
    value_len: 1024,
    partitions: 4,
    connections: 1,
    in_flight: 5,
    records: usize::MAX,
};
const W2: Produce = Produce { value_len: 100, ..W1 };
const W3: Produce = Produce {
    connections: 64,
    in_flight: 1,
    records: 1,
    ..W1
};

/// What small effective batches of ten producers on many partitions come to: 16 KiB, Kafka's `batch.size`.
const W7: Produce = Produce {
    partitions: 1000,
    connections: 10,
    records: 15,
    ..W1
};

/// 20 MB/s of 1 KiB.
const W8_RATE: f64 = 20e6 / 1024.0;

/// Once through user space, with the requests' own bytes.
const ONE_COPY: Limit = Limit::AtMost(1.05);

const fn more(id: &'static str, metric: &'static str, floor: f64, goal: f64) -> Point {
    Point {
        id,
        metric,
        more: true,
        floor: Some(floor),
        goal: Some(goal),
        limit: Limit::No,
    }
}

const fn less(id: &'static str, metric: &'static str, floor: f64, goal: f64) -> Point {
    Point {
        id,
        metric,
        more: false,
        floor: Some(floor),
        goal: Some(goal),
        limit: Limit::No,
    }
}

const fn info(id: &'static str, metric: &'static str, more: bool) -> Point {
    Point {
        id,
        metric,
        more,
        floor: None,
        goal: None,
        limit: Limit::No,
    }
}

const fn limited(point: Point, limit: Limit) -> Point {
    Point { limit, ..point }
}

const fn of(name: &'static str, modes: [Durability; 2], load: Load, points: &'static [Point]) -> Scenario {
    Scenario {
        name,
        modes,
        load,
        points,
    }
}

const CACHED: [Durability; 2] = [Cached, Cached];
const FLUSHED: [Durability; 2] = [Flushed, Flushed];

/// All scenarios, in the order in which they run.
pub(crate) const SCENARIOS: &[Scenario] = &[
    of(
        "w1-cached",
        CACHED,
        Load::Produce(W1),
        &[
            limited(more("PG-1", "mb_s", 1.0, 1.5), Limit::Sink(0.5)),
            less("PG-12", "cpu_s_gb", 0.6, 0.35),
            info("PG-29", "disk_ratio", false),
        ],
    ),
    of(
        "w1-flushed",
        FLUSHED,
        Load::Produce(W1),
        &[
            limited(more("PG-2", "mb_s", 3.0, 10.0), Limit::Sink(0.5)),
            info("PG-12", "cpu_s_gb", false),
        ],
    ),
    of(
        "w1-flushed-vs-cached",
        [Cached, Flushed],
        Load::Produce(W1),
        &[more("PG-3", "mb_s", 0.7, 1.0)],
    ),
    of(
        "w1-4-producers",
        CACHED,
        Load::Produce(Produce { connections: 4, ..W1 }),
        &[info("PG-1", "mb_s", true), info("PG-12", "cpu_s_gb", false)],
    ),
    of(
        "w2-cached",
        CACHED,
        Load::Produce(W2),
        &[limited(more("PG-4", "msg_s", 1.0, 1.5), Limit::Sink(0.5))],
    ),
    of(
        "w3-1-cached",
        CACHED,
        Load::Produce(Produce { connections: 1, ..W3 }),
        &[info("PG-5", "req_s", true), info("PG-5", "p50_us", false)],
    ),
    of(
        "w3-16-cached",
        CACHED,
        Load::Produce(Produce {
            connections: 16,
            ..W3
        }),
        &[info("PG-5", "req_s", true)],
    ),
    of(
        "w3-64-cached",
        CACHED,
        Load::Produce(W3),
        &[
            more("PG-5", "req_s", 1.5, 3.0),
            info("PG-12", "cpu_us_req", false),
        ],
    ),
    of(
        "w3-1-flushed",
        FLUSHED,
        Load::Produce(Produce { connections: 1, ..W3 }),
        &[
            info("PG-5", "req_s", true),
            limited(info("PG-5", "p50_us", false), Limit::SyncRpc(3.0)),
        ],
    ),
    of(
        "w3-64-flushed",
        FLUSHED,
        Load::Produce(W3),
        &[more("PG-5", "req_s", 1.5, 3.0)],
    ),
    of(
        "w4-1k-flushed",
        FLUSHED,
        Load::Open(Rate::Fixed(1e3)),
        LATENCY_INFO,
    ),
    of(
        "w4-10k-flushed",
        FLUSHED,
        Load::Open(Rate::Fixed(1e4)),
        &[
            info("PG-6", "p50_us", false),
            limited(info("PG-6", "p99_us", false), Limit::AtMost(3_000.0)),
            info("PG-7", "p999_us", false),
        ],
    ),
    of(
        "w4-100k-flushed",
        FLUSHED,
        Load::Open(Rate::Fixed(1e5)),
        &[
            info("PG-6", "p50_us", false),
            limited(info("PG-6", "p99_us", false), Limit::AtMost(10_000.0)),
            limited(info("PG-7", "p999_us", false), Limit::AtMost(30_000.0)),
        ],
    ),
    of("w4-1k-cached", CACHED, Load::Open(Rate::Fixed(1e3)), LATENCY_INFO),
    of(
        "w4-10k-cached",
        CACHED,
        Load::Open(Rate::Fixed(1e4)),
        LATENCY_INFO,
    ),
    of(
        "w4-half-cached",
        CACHED,
        Load::Open(Rate::HalfOfPeer),
        &[
            info("PG-6", "p50_us", false),
            less("PG-6", "p99_us", 0.7, 0.4),
            less("PG-7", "p999_us", 0.5, 0.25),
        ],
    ),
    of(
        "end-to-end-cached",
        CACHED,
        Load::EndToEnd(2e3),
        &[less("PG-8", "p99_us", 0.7, 0.4)],
    ),
    of(
        "end-to-end-flushed",
        FLUSHED,
        Load::EndToEnd(2e3),
        &[limited(less("PG-8", "p99_us", 0.7, 0.4), Limit::SyncRpc(4.0))],
    ),
    of(
        "consume-warm",
        CACHED,
        Load::ConsumeWarm,
        &[
            limited(more("PG-9", "mb_s", 1.0, 1.3), Limit::Send(0.3)),
            less("PG-12", "cpu_s_gb", 0.6, 0.35),
        ],
    ),
    of(
        "consume-tail",
        CACHED,
        Load::ConsumeTail,
        &[more("PG-9", "mb_s", 1.0, 1.3)],
    ),
    of(
        "consume-cold",
        CACHED,
        Load::ConsumeCold,
        &[
            limited(more("PG-10", "mb_s", 1.0, 1.2), Limit::Cold(0.7)),
            info("PG-12", "cpu_s_gb", false),
            info("PG-10", "disk_read_ratio", false),
        ],
    ),
    of(
        "mixed-cold-reader",
        CACHED,
        Load::Mixed,
        &[
            limited(less("PG-11", "p99_factor", 0.7, 0.4), Limit::AtMost(3.0)),
            info("PG-11", "p99_alone_us", false),
            info("PG-11", "p99_mixed_us", false),
            info("PG-11", "cold_mb_s", true),
        ],
    ),
    of(
        "memory",
        CACHED,
        Load::Memory,
        &[
            less("PG-13", "rss_idle_mb", 0.25, 0.12),
            less("PG-13", "rss_loaded_mb", 0.25, 0.12),
        ],
    ),
    of(
        "idle-1000",
        CACHED,
        Load::IdlePartitions(1000),
        &[
            limited(less("PG-24", "idle_cpu_percent", 1.0, 0.5), Limit::AtMost(3.0)),
            limited(info("PG-25", "kib_partition", false), Limit::AtMost(64.0)),
            info("PG-25", "kib_partition_awake", false),
        ],
    ),
    of(
        "idle-connections",
        CACHED,
        Load::IdleConnections,
        &[
            limited(info("PG-25", "kib_connection_1k", false), Limit::AtMost(20.0)),
            limited(info("PG-25", "kib_connection_10k", false), Limit::AtMost(20.0)),
        ],
    ),
    of(
        "create-1000",
        CACHED,
        Load::Create(1000),
        &[
            limited(less("PG-27", "create_ms", 0.5, 0.2), Limit::AtMost(3_000.0)),
            less("PG-27", "served_ms", 0.5, 0.2),
        ],
    ),
    of(
        "rebalance-200",
        CACHED,
        Load::Rebalance(200),
        &[
            limited(less("PG-28", "rebalance_ms", 0.7, 0.4), Limit::AtMost(3_000.0)),
            info("PG-28", "rebalance_max_ms", false),
        ],
    ),
    of(
        "start-empty",
        CACHED,
        Load::Start(Start::Empty),
        &[less("PG-19", "start_ms", 0.15, 0.05)],
    ),
    of(
        "start-stopped",
        CACHED,
        Load::Start(Start::Stopped),
        &[less("PG-20", "start_ms", 0.5, 0.2)],
    ),
    of(
        "start-killed",
        CACHED,
        Load::Start(Start::Killed),
        &[less("PG-21", "start_ms", 0.5, 0.2)],
    ),
    of(
        "disk-64k",
        FLUSHED,
        Load::Produce(Produce { records: 62, ..W1 }),
        &[limited(
            less("PG-29", "disk_ratio", 1.0, 1.0),
            Limit::AtMost(1.05),
        )],
    ),
    of(
        "disk-1k",
        CACHED,
        Load::Produce(W3),
        &[limited(less("PG-29", "disk_ratio", 1.0, 1.0), Limit::AtMost(1.3))],
    ),
    of(
        "counts-w1",
        FLUSHED,
        Load::CountProduce(W1),
        &[
            limited(info("PG-33", "syscalls_req", false), Limit::AtMost(4.0)),
            info("PG-33", "flushes_req", false),
            limited(info("PG-34", "bytes_in_ratio", false), ONE_COPY),
            limited(info("PG-32", "allocations_req", false), Limit::AtMost(8.0)),
        ],
    ),
    of(
        "counts-w3",
        FLUSHED,
        Load::CountProduce(W3),
        &[
            limited(info("PG-33", "syscalls_req", false), Limit::AtMost(6.0)),
            info("PG-33", "flushes_req", false),
            limited(info("PG-32", "allocations_req", false), Limit::AtMost(8.0)),
        ],
    ),
    of(
        "counts-consume",
        CACHED,
        Load::CountConsume,
        &[
            info("PG-33", "syscalls_req", false),
            limited(info("PG-34", "bytes_in_ratio", false), ONE_COPY),
            limited(info("PG-32", "allocations_batch", false), Limit::AtMost(8.0)),
        ],
    ),
    of(
        "codec",
        CACHED,
        Load::Codec,
        &[
            limited(info("PG-35", "produce_header_ratio", false), Limit::AtMost(1.0)),
            limited(info("PG-35", "produce_records_ratio", false), Limit::AtMost(1.0)),
            limited(info("PG-35", "fetch_ratio", false), Limit::AtMost(1.0)),
        ],
    ),
    of(
        "w7-1000-cached",
        CACHED,
        Load::ManyPartitions(W7),
        &[
            limited(more("PG-16", "mb_s_factor", 1.0, 1.0), Limit::AtLeast(0.4)),
            info("PG-16", "mb_s", true),
        ],
    ),
    of(
        "w7-1000-flushed",
        FLUSHED,
        Load::ManyPartitions(W7),
        &[
            limited(more("PG-16", "mb_s_factor", 1.0, 1.0), Limit::AtLeast(0.25)),
            info("PG-16", "mb_s", true),
        ],
    ),
    of(
        "w8-cached",
        CACHED,
        Load::Replicated(W1),
        &[more("PG-14", "mb_s", 1.0, 1.5), info("PG-14", "cpu_s_gb", false)],
    ),
    of(
        "w8-flushed",
        FLUSHED,
        Load::Replicated(W1),
        &[more("PG-14", "mb_s", 1.0, 1.5), info("PG-14", "cpu_s_gb", false)],
    ),
    of(
        "w8-flushed-vs-cached",
        [Cached, Flushed],
        Load::Replicated(W1),
        &[info("PG-14", "mb_s", true)],
    ),
    of(
        "w8-20mb-flushed-vs-cached",
        [Cached, Flushed],
        Load::ReplicatedOpen(W8_RATE),
        &[
            info("PG-15", "p50_us", false),
            limited(less("PG-15", "p99_us", 1.0, 0.5), Limit::AtMost(10_000.0)),
            info("PG-15", "p999_us", false),
        ],
    ),
    of(
        "copy",
        CACHED,
        Load::Copy,
        &[more("PG-30", "copy_mb_s", 1.0, 1.5)],
    ),
    of(
        "idle-trio-1000",
        CACHED,
        Load::IdleTrio(1000),
        &[
            limited(less("PG-24", "idle_cpu_percent", 1.0, 0.5), Limit::AtMost(8.0)),
            info("PG-24", "awake_cpu_percent", false),
            info("PG-24", "idle_rss_mb", false),
        ],
    ),
    of(
        "gap-kill-1000",
        CACHED,
        Load::Gap(Strike::Kill, 1000),
        &[limited(
            less("PG-22", "gap_ms", 0.5, 0.15),
            Limit::AtMost(1_500.0),
        )],
    ),
    of(
        "gap-term-1000",
        CACHED,
        Load::Gap(Strike::Terminate, 1000),
        &[limited(less("PG-23", "gap_ms", 1.0, 0.3), Limit::AtMost(100.0))],
    ),
    of(
        "idle-trio-4000",
        CACHED,
        Load::IdleTrio(4000),
        &[
            limited(less("PG-26", "idle_cpu_percent", 1.0, 1.0), Limit::AtMost(32.0)),
            info("PG-26", "awake_cpu_percent", false),
            info("PG-26", "idle_rss_mb", false),
        ],
    ),
    of(
        "gap-kill-4000",
        CACHED,
        Load::Gap(Strike::Kill, 4000),
        &[limited(less("PG-26", "gap_ms", 1.0, 1.0), Limit::AtMost(1_500.0))],
    ),
    // Last, because what ten thousand members commit stays in the topic of offsets.
    of(
        "groups-1000",
        CACHED,
        Load::Groups,
        &[
            info("groups", "mb_s", true),
            info("groups", "mb_s_factor", true),
            info("groups", "join_s", false),
            info("groups", "commits_s", true),
            info("groups", "commit_p99_us", false),
            info("groups", "rejoined", false),
            info("groups", "rss_mb", false),
            info("groups", "rss_groups_mb", false),
        ],
    ),
];

const LATENCY_INFO: &[Point] = &[
    info("PG-6", "p50_us", false),
    info("PG-6", "p99_us", false),
    info("PG-7", "p999_us", false),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_goals_are_not_weaker_than_floors() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for point in SCENARIOS.iter().flat_map(|scenario| scenario.points) {
            if let (Some(floor), Some(goal)) = (point.floor, point.goal) {
                assert!(
                    if point.more { goal >= floor } else { goal <= floor },
                    "{point:?}"
                );
            }
        }
    }
}
