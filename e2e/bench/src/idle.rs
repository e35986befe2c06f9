//! What a broker costs that has nothing to do, and what it takes to have a thousand partitions.

use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::Result;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::admin::Admin;
use crate::bench::{Bench, Run, closed};
use crate::broker::Broker;
use crate::load::Target;
use crate::points::Produce;
use crate::run::FILL;
use crate::sample::Sample;
use crate::wait::wait_until_parked;
use crate::{note, proc};

/// Numbers of idle connections at which memory is read, and the figures' names.
const CONNECTIONS: [(usize, &str); 2] = [(1_000, "kib_connection_1k"), (10_000, "kib_connection_10k")];

/// Files that this process has open besides connections, with room to spare.
const OTHER_FILES: u64 = 200;

impl Bench {
    /// Resident memory of a new broker, idle and after W-1 on 100 partitions.
    pub(crate) fn memory(&mut self, run: Run) -> Result<Sample> {
        let load = Produce {
            partitions: 100,
            ..FILL
        };
        self.on_new(run, "memory", |broker| {
            thread::sleep(Duration::from_secs(2).max(run.span.measured / 4));
            let idle = proc::rss(broker.pid())?;
            let target = new_topic(broker, run, "memory", load.partitions)?;
            closed(load, run.span, &target)?;
            let loaded = proc::rss(broker.pid())?;
            let mb = |bytes: u64| bytes as f64 / 1e6;
            Ok(Sample::from([
                ("rss_idle_mb", mb(idle)),
                ("rss_loaded_mb", mb(loaded)),
            ]))
        })
    }

    /// A new broker with so many empty partitions: how much memory they take as soon as they are there, and at rest, and what
    /// the broker does then.
    pub(crate) fn idle_partitions(&mut self, partitions: i32, run: Run) -> Result<Sample> {
        let idle = self.options.idle;
        self.on_new(run, "idle", |broker| {
            thread::sleep(idle / 3);
            let before = proc::rss(broker.pid())?;
            new_topic(broker, run, "idle", partitions)?;
            thread::sleep(idle / 3);
            let awake = proc::rss(broker.pid())?;
            wait_until_parked(broker, partitions)?;
            let after = proc::rss(broker.pid())?;
            let (used, begin) = (proc::usage(broker.pid())?.cpu, Instant::now());
            thread::sleep(idle);
            let used = proc::usage(broker.pid())?.cpu.saturating_sub(used);
            Ok(Sample::from([
                ("kib_partition", kib_each(before, after, f64::from(partitions))),
                (
                    "kib_partition_awake",
                    kib_each(before, awake, f64::from(partitions)),
                ),
                ("idle_cpu_percent", proc::percent(used, begin.elapsed())),
            ]))
        })
    }

    /// A new broker with idle connections, each of which has asked for its versions as clients do.
    ///
    /// Where this process may not open enough of them the figure is missing.
    pub(crate) fn idle_connections(&mut self, run: Run) -> Result<Sample> {
        let idle = self.options.idle;
        self.on_new(run, "connections", |broker| {
            thread::sleep(idle / 3);
            let before = proc::rss(broker.pid())?;
            let (mut held, mut sample) = (Vec::new(), Sample::new());
            for (count, name) in CONNECTIONS {
                if !may_open(count) {
                    note(&format!(
                        "  {count} connections are more than `ulimit -n` permits"
                    ));
                    break;
                }
                while held.len() < count {
                    let mut connection = Admin::connect(broker.addr)?;
                    connection.versions()?;
                    held.push(connection);
                }
                thread::sleep(idle / 10);
                let after = proc::rss(broker.pid())?;
                sample.insert(name, kib_each(before, after, count as f64));
            }
            // A broker that closes connections for want of room would look cheap.
            for connection in &mut held {
                connection.versions()?;
            }
            Ok(sample)
        })
    }

    /// One CreateTopics request for a topic with so many partitions: until Metadata names a leader for each of them, and
    /// until each leader serves.
    pub(crate) fn create(&mut self, partitions: i32, run: Run) -> Result<Sample> {
        let topic = self.next_topic("create");
        self.quiet(run.side)?;
        let broker = self.side(run.side)?;
        let configs = broker.topic_configs(run.durability);
        let mut admin = Admin::connect(broker.addr)?;
        let begin = Instant::now();
        admin.create_only(&topic, partitions, 1, &configs)?;
        admin.wait_for_metadata(&topic, partitions)?;
        let led = begin.elapsed();
        admin.wait_for_leaders(&topic, partitions)?;
        let served = begin.elapsed();
        admin.delete(&topic)?;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Ok(Sample::from([("create_ms", ms(led)), ("served_ms", ms(served))]))
    }

    /// Runs `work` on a new broker of a side's kind, which is stopped and removed afterwards.
    fn on_new(
        &mut self,
        run: Run,
        name: &str,
        work: impl FnOnce(&Broker) -> Result<Sample>,
    ) -> Result<Sample> {
        let kind = self.options.kinds[run.side];
        let broker = self.launcher.start_new(kind, &format!("{name}-{}", run.side))?;
        let sample = work(&broker)?;
        let dir = broker.dir.clone();
        broker.stop()?;
        fs::remove_dir_all(dir)?;
        Ok(sample)
    }
}

fn new_topic(broker: &Broker, run: Run, topic: &str, partitions: i32) -> Result<Target> {
    Admin::connect(broker.addr)?.create(topic, partitions, &broker.topic_configs(run.durability))?;
    Ok(Target::of(broker.addr, broker.pid(), topic, partitions))
}

/// Growth from `before` to `after` bytes in KiB for each of `count` things; negative where memory was given back.
fn kib_each(before: u64, after: u64, count: f64) -> f64 {
    (after as f64 - before as f64) / 1024.0 / count
}

/// Raises the number of files that this process and the brokers that it starts may open to what the system permits.
pub(crate) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        note(&format!("the limit of open files stays: {e}"));
    }
}

/// Whether `connections` fit into this process's limit of open files.
pub(crate) fn may_open(connections: usize) -> bool {
    let limit = getrlimit(Resource::Nofile).current;
    limit.is_none_or(|limit| connections as u64 + OTHER_FILES <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_per_thing() {
        assert_eq!(kib_each(1 << 20, 3 << 20, 1024.0), 2.0);
        assert_eq!(kib_each(3 << 20, 1 << 20, 1024.0), -2.0);
    }

    #[test]
    fn connections_beyond_the_limit_of_open_files_are_not_tried() {
        assert!(may_open(1));
        let limit = getrlimit(Resource::Nofile).current;
        if let Some(limit) = limit {
            assert!(!may_open(usize::try_from(limit).unwrap()));
        }
    }
}
