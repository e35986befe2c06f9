//! Start times: from exec to the first acknowledged record.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::admin::Admin;
use crate::batches::Batches;
use crate::bench::{Bench, now_ms};
use crate::broker::{Broker, Kind, Launcher};
use crate::load::{Target, one};
use crate::points::Start;
use crate::run::fill;
use crate::sample::Sample;

const TOPIC: &str = "start";

/// Partitions of a directory with data.
const PARTITIONS: i32 = 1000;

/// Records per batch there: 64 KiB.
const RECORDS: usize = 62;

impl Bench {
    /// Starts a broker of a side's kind on the kind of directory asked for and stops it again.
    ///
    /// The first record is that of a new topic where the directory is empty; elsewhere every partition must have
    /// its leader, too.
    pub(crate) fn start(&mut self, start: Start, side: usize) -> Result<Sample> {
        let kind = self.options.kinds[side];
        let batches = Batches::new(crate::bench::VALUE_LEN, 1, now_ms())?;
        if start == Start::Empty {
            return start_empty(&self.launcher, kind, &batches);
        }
        let dir = self.filled(start, side)?;
        let begin = Instant::now();
        let broker = self.launcher.start(kind, &dir)?;
        Admin::connect(broker.addr)?.wait_for_leaders(TOPIC, PARTITIONS)?;
        first_record(&target(&broker), &batches)?;
        let elapsed = begin.elapsed();
        leave(broker, start)?;
        Ok(sample_of(elapsed))
    }

    /// A directory with data for a side, made when it is wanted first. The unmeasured run before the pairs leaves it
    /// in the way that a scenario is about.
    fn filled(&mut self, start: Start, side: usize) -> Result<PathBuf> {
        if let Some(dir) = self.filled.get(&side) {
            return Ok(dir.clone());
        }
        let broker = self
            .launcher
            .start_new(self.options.kinds[side], &format!("filled-{side}"))?;
        Admin::connect(broker.addr)?.create(TOPIC, PARTITIONS, &[])?;
        fill(&target(&broker), self.options.start_bytes, RECORDS)?;
        let dir = broker.dir.clone();
        leave(broker, start)?;
        self.filled.insert(side, dir.clone());
        Ok(dir)
    }
}

fn start_empty(launcher: &Launcher, kind: Kind, batches: &Batches) -> Result<Sample> {
    // Kafka's directory has to be formatted first, which is not part of a start.
    let broker = launcher.start_new(kind, "empty")?;
    let dir = broker.dir.clone();
    if kind == Kind::Kafka {
        broker.stop()?;
        let data = dir.join("data");
        let format = fs::read(data.join("meta.properties")).context("Kafka's formatted directory")?;
        let bootstrap = fs::read(data.join("bootstrap.checkpoint")).ok();
        fs::remove_dir_all(&data)?;
        fs::create_dir_all(&data)?;
        fs::write(data.join("meta.properties"), format)?;
        if let Some(bootstrap) = bootstrap {
            fs::write(data.join("bootstrap.checkpoint"), bootstrap)?;
        }
    } else {
        broker.kill()?;
        fs::remove_dir_all(&dir)?;
        fs::create_dir_all(&dir)?;
    }
    let begin = Instant::now();
    let broker = launcher.start(kind, &dir)?;
    Admin::connect(broker.addr)?.create(TOPIC, 1, &[])?;
    first_record(&target(&broker), batches)?;
    let elapsed = begin.elapsed();
    broker.kill()?;
    fs::remove_dir_all(dir)?;
    Ok(sample_of(elapsed))
}

fn target(broker: &Broker) -> Target {
    Target::of(broker.addr, broker.pid(), TOPIC, PARTITIONS)
}

/// Produces a record, again and again until it is acknowledged.
fn first_record(target: &Target, batches: &Batches) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(60);
    while let Err(e) = one(target, batches) {
        ensure!(Instant::now() < give_up, "no record was acknowledged: {e:#}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Ends a broker in the way that the next start is about.
fn leave(broker: Broker, start: Start) -> Result<()> {
    if start == Start::Killed {
        // What is written since the last start is what recovery has to look at.
        fill(&target(&broker), 64 << 20, RECORDS)?;
        return broker.kill();
    }
    broker.stop().map(|_| ())
}

fn sample_of(elapsed: Duration) -> Sample {
    Sample::from([("start_ms", elapsed.as_secs_f64() * 1e3)])
}
