//! Loads on three brokers with three replicas: throughput and latency, idle CPU, fail-over, and a replica made anew.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::sync;

use crate::admin::Admin;
use crate::batches::Batches;
use crate::bench::{Bench, Run, now_ms};
use crate::broker::{Broker, Durability, Trio};
use crate::load::{Outcome, Pulse, Target};
use crate::points::Strike;
use crate::run::fill;
use crate::sample::Sample;
use crate::wait::{wait, wait_until_parked};
use crate::{probe, proc};

/// The topic whose partitions stand by, empty.
const CROWD: &str = "crowd";

/// Acknowledged records before a strike, and after it.
const RECORDS: usize = 50;

/// How long the producer goes on after a strike, at least: a second stumble belongs to it.
const AFTER: Duration = Duration::from_secs(3);

/// Partitions of the topic that is copied, and size of its batches in records.
const COPIED: (i32, usize) = (4, 62);

impl Bench {
    /// Runs `work` on a new topic with three replicas, checks that every record acknowledged is there, and deletes it.
    pub(crate) fn on_replicated(
        &mut self,
        run: Run,
        partitions: i32,
        work: impl FnOnce(&Target) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let topic = self.next_topic("replicated");
        self.quiet_trio(run.side)?;
        let trio = self.trio(run.side)?;
        let target = new_topic(trio, &topic, partitions, run.durability)?;
        let outcome = work(&target).and_then(|outcome| {
            let (acknowledged, mut stored) = (outcome.total_records, 0);
            for (leader, led) in target.by_leader() {
                stored += Admin::connect(leader)?.records_of(&topic, led)?;
            }
            ensure!(
                stored >= acknowledged,
                "{acknowledged} records were acknowledged and {stored} are there"
            );
            Ok(outcome)
        });
        Admin::connect(target.addr)?.delete(&topic)?;
        outcome
    }

    /// CPU and memory of a broker while so many partitions with three replicas are idle: as soon as they are there, and
    /// once their brokers have put to rest what they put to rest.
    pub(crate) fn idle_trio(&mut self, partitions: i32, run: Run) -> Result<Sample> {
        let idle = self.options.idle;
        let trio = self.crowded(run.side, partitions)?;
        thread::sleep(idle / 3);
        let awake = idle_percent(trio, idle)?;
        for broker in trio.running() {
            wait_until_parked(broker, partitions)?;
        }
        let rested = idle_percent(trio, idle)?;
        let memory = trio.running().map(|broker| proc::rss(broker.pid()));
        let memory = memory.sum::<Result<u64>>()? as f64 / trio.len() as f64;
        Ok(Sample::from([
            ("awake_cpu_percent", awake),
            ("idle_cpu_percent", rested),
            ("idle_rss_mb", memory / 1e6),
        ]))
    }

    /// The longest time without an acknowledged record around the end of the leader, with so many other partitions in the
    /// cluster; then it is started again.
    pub(crate) fn gap(&mut self, strike: Strike, partitions: i32, run: Run) -> Result<Sample> {
        let topic = self.next_topic("gap");
        let trio = self.crowded(run.side, partitions)?;
        let target = new_topic(trio, &topic, 1, run.durability)?;
        let pulse = Pulse {
            brokers: trio.running().map(|broker| broker.addr).collect(),
            topic: topic.clone(),
        };
        let mut struck_at = Instant::now();
        let acked = pulse.during(&Batches::new(100, 1, now_ms())?, |acked| {
            let count = |since: Instant| acked.lock().iter().filter(|at| **at > since).count();
            wait("the first records", || Ok(count(struck_at) >= RECORDS))?;
            let leader = trio.take(target.leader(0))?;
            struck_at = Instant::now();
            match strike {
                Strike::Kill => leader.kill()?,
                Strike::Terminate => leader.stop().map(|_| ())?,
            }
            let over = Instant::now() + AFTER;
            wait("records after the leader's end", || {
                Ok(Instant::now() > over && count(struck_at) >= RECORDS)
            })
        })?;
        trio.start_all()?;
        let addr = trio.any()?.addr;
        for (topic, partitions) in [(CROWD, partitions), (&topic, 1)] {
            wait_for_sync(addr, topic, partitions, trio.len())?;
        }
        Admin::connect(addr)?.delete(&topic)?;
        Ok(Sample::from([(
            "gap_ms",
            longest(&acked, struck_at).as_secs_f64() * 1e3,
        )]))
    }

    /// A third replica of so many bytes, made by moving partitions from two brokers to three.
    pub(crate) fn copy(&mut self, bytes: u64, run: Run) -> Result<Sample> {
        let topic = self.next_topic("copied");
        self.quiet_trio(run.side)?;
        let trio = self.trio(run.side)?;
        let configs = trio.any()?.topic_configs(run.durability);
        let mut admin = Admin::connect(trio.any()?.addr)?;
        let (partitions, records) = COPIED;
        admin.create_on(&topic, partitions, &[1, 2], &configs)?;
        let target = target(trio, &topic, partitions, 2)?;
        fill(&target, bytes, records)?;
        // What the two have is on their disks: it is not their writing that is measured.
        sync();
        let begin = Instant::now();
        admin.reassign(&topic, partitions, &[1, 2, 3])?;
        wait_for_sync(target.addr, &topic, partitions, 3)?;
        let elapsed = begin.elapsed();
        admin.delete(&topic)?;
        Ok(Sample::from([(
            "copy_mb_s",
            bytes as f64 / 1e6 / elapsed.as_secs_f64(),
        )]))
    }

    /// The cluster of a side, started if it is not running.
    fn trio(&mut self, side: usize) -> Result<&mut Trio> {
        if self.trios[side].is_none() {
            let name = ["a", "b"][side];
            let kind = self.options.kinds[side];
            self.trios[side] = Some(Trio::start_new(&self.launcher, kind, &format!("trio-{name}"))?);
        }
        self.trios[side].as_mut().context("the cluster")
    }

    /// The cluster of a side, with exactly so many empty partitions beside what is measured.
    fn crowded(&mut self, side: usize, partitions: i32) -> Result<&mut Trio> {
        let trio = self.trio(side)?;
        let mut admin = Admin::connect(trio.any()?.addr)?;
        let there = admin.placed(CROWD)?.len();
        if there != usize::try_from(partitions)? {
            if there > 0 {
                admin.delete(CROWD)?;
                wait("the other partitions' end", || {
                    Ok(admin.placed(CROWD)?.is_empty())
                })?;
            }
            new_topic(trio, CROWD, partitions, Durability::Cached)?;
        }
        Ok(trio)
    }

    /// Waits until a side's brokers have removed what the run before wrote, and touches what the next will need.
    fn quiet_trio(&mut self, side: usize) -> Result<()> {
        let give_up = Instant::now() + Duration::from_secs(10);
        let data: Vec<_> = self.trio(side)?.data().collect();
        let held = || data.iter().map(|data| proc::tree_bytes(data)).sum::<u64>();
        while held() > 192 << 20 && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(50));
        }
        sync();
        probe::pre_touch(&self.launcher.work_dir, self.options.pre_touch)
    }
}

/// CPU of one broker for so long, in percent of a core: the mean of all.
fn idle_percent(trio: &Trio, time: Duration) -> Result<f64> {
    let used = || -> Result<Duration> {
        let used = trio.running().map(|broker| proc::usage(broker.pid()));
        used.map(|usage| Ok(usage?.cpu)).sum()
    };
    let (before, begin) = (used()?, Instant::now());
    thread::sleep(time);
    let used = used()?.saturating_sub(before);
    Ok(proc::percent(used / u32::try_from(trio.len())?, begin.elapsed()))
}

/// Creates a topic with a replica on each broker, two of which must have what is acknowledged.
fn new_topic(trio: &Trio, topic: &str, partitions: i32, durability: Durability) -> Result<Target> {
    let broker = trio.any()?;
    let mut configs = broker.topic_configs(durability);
    configs.push(("min.insync.replicas", "2"));
    let replicas = i16::try_from(trio.len())?;
    Admin::connect(broker.addr)?.create_only(topic, partitions, replicas, &configs)?;
    target(trio, topic, partitions, trio.len())
}

/// A topic with so many replicas, once all of them are in sync and every leader serves.
fn target(trio: &Trio, topic: &str, partitions: i32, replicas: usize) -> Result<Target> {
    let addr = trio.any()?.addr;
    let leaders = wait_for_sync(addr, topic, partitions, replicas)?;
    let target = Target {
        addr,
        pids: trio.running().map(Broker::pid).collect(),
        topic: topic.to_owned(),
        partitions,
        leaders,
    };
    for (leader, led) in target.by_leader() {
        let mut admin = Admin::connect(leader)?;
        wait("leaders that serve", || {
            Ok(admin.records_of(topic, led.iter().copied()).is_ok())
        })?;
    }
    Ok(target)
}

/// Waits until all replicas are in sync; returns the leaders' listeners.
fn wait_for_sync(addr: SocketAddr, topic: &str, partitions: i32, replicas: usize) -> Result<Vec<SocketAddr>> {
    let mut admin = Admin::connect(addr)?;
    let (wanted, mut leaders) = (usize::try_from(partitions)?, Vec::new());
    wait("replicas in sync", || {
        let placed = admin.placed(topic)?;
        let synced = placed.values().filter(|placed| placed.in_sync >= replicas);
        leaders = synced.filter_map(|placed| placed.leader).collect();
        Ok(leaders.len() == wanted)
    })?;
    Ok(leaders)
}

/// The longest time between two of `acked` of which the later is after `since`.
fn longest(acked: &[Instant], since: Instant) -> Duration {
    let gaps = acked.windows(2).filter(|pair| pair[1] > since);
    gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_the_one_around_or_after_the_strike() {
        let begin = Instant::now();
        let at = |ms: [u64; 6]| ms.map(|ms| begin + Duration::from_millis(ms));
        let strike = begin + Duration::from_millis(1_050);
        let gap = longest(&at([0, 1_000, 1_001, 1_300, 1_310, 1_400]), strike);
        assert_eq!(gap, Duration::from_millis(299));
        assert_eq!(longest(&at([0, 1, 2, 3, 4, 5]), strike), Duration::ZERO);
    }
}
