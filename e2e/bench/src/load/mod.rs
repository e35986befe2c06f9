//! Load: closed loops for throughput, open loops for latency, consumers for both.

mod catch_up;
mod closed;
mod conn;
mod consume;
mod end_to_end;
mod fill;
mod group;
mod open;
mod pulse;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

pub(crate) use catch_up::catch_up;
pub(crate) use closed::Closed;
pub(crate) use consume::{Consume, From};
pub(crate) use end_to_end::EndToEnd;
pub(crate) use fill::{fill, one};
pub(crate) use group::{Commits, Groups, Wanted};
pub(crate) use open::Open;
pub(crate) use pulse::Pulse;

use crate::proc::{self, Usage};

/// What is driven: a topic of a broker, or of a cluster of brokers.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// A listener: of the broker, or of any of them.
    pub(crate) addr: SocketAddr,
    /// Processes whose use of the machine is counted.
    pub(crate) pids: Vec<u32>,
    /// The topic.
    pub(crate) topic: String,
    /// Partitions of the topic.
    pub(crate) partitions: i32,
    /// The listener of each partition's leader; none where `addr` leads them all.
    pub(crate) leaders: Vec<SocketAddr>,
}

impl Target {
    /// A topic of one broker.
    pub(crate) fn of(addr: SocketAddr, pid: u32, topic: impl Into<String>, partitions: i32) -> Self {
        Self {
            addr,
            pids: vec![pid],
            topic: topic.into(),
            partitions,
            leaders: Vec::new(),
        }
    }

    /// Where the partition is led.
    pub(crate) fn leader(&self, partition: i32) -> SocketAddr {
        let index = usize::try_from(partition).unwrap_or(0);
        self.leaders.get(index).copied().unwrap_or(self.addr)
    }

    /// The partitions by who leads them.
    pub(crate) fn by_leader(&self) -> BTreeMap<SocketAddr, Vec<i32>> {
        let mut led = BTreeMap::<_, Vec<_>>::new();
        for partition in 0..self.partitions {
            led.entry(self.leader(partition)).or_default().push(partition);
        }
        led
    }

    /// What its brokers have used since they started.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut usages = self.pids.iter().map(|pid| proc::usage(*pid));
        usages.try_fold(Usage::default(), |sum, usage| Ok(sum.and(usage?)))
    }

    /// What its brokers have used since `before`.
    pub(crate) fn usage_since(&self, before: Usage) -> Result<Usage> {
        let now = self.usage()?;
        Ok(Usage {
            cpu: now.cpu.saturating_sub(before.cpu),
            disk_bytes: now.disk_bytes.saturating_sub(before.disk_bytes),
            read_bytes: now.read_bytes.saturating_sub(before.read_bytes),
        })
    }
}

/// How long a load runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Time that is not measured.
    pub(crate) warm_up: Duration,
    /// Time that is.
    pub(crate) measured: Duration,
}

/// What happened in the measured time.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Requests answered.
    pub(crate) requests: u64,
    /// Records acknowledged, or received.
    pub(crate) records: u64,
    /// Bytes of their values.
    pub(crate) bytes: u64,
    /// Length of the measured time.
    pub(crate) elapsed: Duration,
    /// Latencies in nanoseconds; what they span is the load's to say. Empty for consumers.
    pub(crate) latency: Histogram<u64>,
    /// What the broker used.
    pub(crate) broker: Usage,
    /// Records acknowledged in the whole run, warm-up included.
    pub(crate) total_records: u64,
}

/// A histogram from 1 µs to 100 s with three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 100_000_000_000, 3)?)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
