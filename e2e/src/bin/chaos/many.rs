//! Many partitions of which few are written to: how long they take to be made, to be led again after all brokers were
//! killed, and what they cost while they rest.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use takhin_e2e::pulse::{self, Pulse};
use takhin_e2e::{Broker, kcat, wait};

use crate::say;
use crate::stage::Stage;

const ACTIVE: &str = "active";
/// Between two records of an active partition; shorter than it takes to park one.
const PAUSE: Duration = Duration::from_secs(5);
/// Partitions are parked minutes after the last record.
const LIMIT: Duration = Duration::from_secs(900);
/// CPU is counted over this.
const WHILE: Duration = Duration::from_secs(30);
/// What is asked for in one request.
const AT_A_TIME: i32 = 200;

#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Partitions, with three replicas each on three brokers
    #[arg(long, default_value_t = 10_000)]
    partitions: i32,
    /// Of these, how many get a record every five seconds once the others rest
    #[arg(long, default_value_t = 500)]
    active: i32,
    /// Open files that a broker may have
    #[arg(long, default_value_t = 15_000)]
    files: usize,
}

/// Prints what it takes; fails where brokers have more open files than they may, or partitions are not led or parked in time.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let Settings {
        partitions, active, ..
    } = *settings;
    ensure!(
        active > 0 && active < partitions,
        "--active must be less than --partitions"
    );
    let mut stage = Stage::set_up(3, None)?;
    let begin = Instant::now();
    stage.create(ACTIVE, active)?;
    let mut left = partitions - active;
    for n in 0.. {
        let count = left.min(AT_A_TIME);
        if count == 0 {
            break;
        }
        stage.create(&format!("idle-{n}"), count)?;
        left -= count;
    }
    said("created", begin);
    in_sync(&stage)?;
    said("all replicas in sync", begin);
    tell(&stage, settings, "awake")?;
    rest(&stage, settings, 0, begin)?;

    let begin = Instant::now();
    let bootstrap = stage.bootstrap();
    let mut pulse = Pulse::start(&bootstrap, ACTIVE, active, PAUSE, &[])?;
    pulse.wait_all(pulse::now(), LIMIT)?;
    said("parked partitions acknowledge records", begin);
    tell(&stage, settings, "with those that are written to awake")?;

    for broker in &mut stage.brokers {
        broker.kill();
    }
    let begin = Instant::now();
    stage.start(&[0, 1, 2])?;
    said("killed and started anew, brokers serve", begin);
    pulse.wait_all(pulse::now(), LIMIT)?;
    said("every active partition acknowledges records", begin);
    in_sync(&stage)?;
    said("all replicas in sync", begin);
    rest(&stage, settings, active, begin)
}

/// Waits until all replicas of all partitions are in sync.
fn in_sync(stage: &Stage) -> Result<()> {
    let bootstrap = stage.bootstrap();
    wait::until("all replicas to be in sync", LIMIT, || {
        let placements = kcat::every_placement(&bootstrap)?;
        Ok(placements
            .iter()
            .all(|p| p.leader >= 0 && p.in_sync == p.replicas.len()))
    })
}

/// Waits until all partitions are parked but `active` ones, and the few of the brokers' own topics; tells what they cost then.
fn rest(stage: &Stage, settings: &Settings, active: i32, begin: Instant) -> Result<()> {
    let enough = f64::from(settings.partitions - active);
    for broker in &stage.brokers {
        let what = format!("broker {} to park {enough} partitions", broker.node_id());
        wait::until(what, LIMIT, || {
            Ok(broker.metric("takhin_partitions_parked")? >= enough)
        })?;
    }
    said("parked", begin);
    tell(stage, settings, "at rest")
}

fn said(what: &str, begin: Instant) {
    say(&format!("{:7.1} s  {what}", begin.elapsed().as_secs_f64()));
}

/// What a broker takes.
struct Cost {
    files: usize,
    resident: u64,
    /// Of one core, 0 to 1 and more.
    cores: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.resident >> 20;
        write!(
            f,
            "{} open files, {mib} MiB resident, {:.3} of a core",
            self.files, self.cores
        )
    }
}

fn tell(stage: &Stage, settings: &Settings, when: &str) -> Result<()> {
    let before: Vec<Duration> = stage.brokers.iter().map(cpu).collect::<Result<_>>()?;
    // Not a wait for anything: it is the time over which CPU is counted.
    std::thread::sleep(WHILE);
    for (broker, before) in stage.brokers.iter().zip(before) {
        let cost = Cost {
            files: fs::read_dir(process_file(broker, "fd")?)?.count(),
            resident: broker.resident_bytes()?,
            cores: cpu(broker)?.saturating_sub(before).as_secs_f64() / WHILE.as_secs_f64(),
        };
        say(&format!("           broker {} {when}: {cost}", broker.node_id()));
        let most = settings.files;
        ensure!(cost.files <= most, "{} open files, {most} are enough", cost.files);
    }
    Ok(())
}

/// What the process has used of the CPU so far.
fn cpu(broker: &Broker) -> Result<Duration> {
    let path = process_file(broker, "stat")?;
    let stat = fs::read_to_string(&path)?;
    // Behind the name, which may hold anything: user and system time are the 12th and 13th (proc_pid_stat(5)).
    let (_, fields) = stat
        .rsplit_once(')')
        .with_context(|| format!("{}: no name", path.display()))?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // USER_HZ is 100 wherever Linux runs.
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}

fn process_file(broker: &Broker, name: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(format!("/proc/{}/{name}", broker.pid()?)))
}
