//! How fast `takhin-cdc` is between a scripted master that has everything at hand and a cluster: `make bench-cdc`.
//!
//! Master, program, broker and reader share the machine. Each of three parts has topics of its own and a program that was
//! just started: the data set, from the first key read out of the dump to the last one acknowledged; changes, from the first
//! one asked for to the last one acknowledged to the master; and at a fixed rate the time from the moment at which a change is
//! due to the moment at which kcat has it. With each goes what processor time it took of whom, and resident memory.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

mod alone;
mod changes;
mod data_set;
mod latency;
mod usage;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use takhin_e2e::cdc::Cdc;
use takhin_e2e::{Broker, Kind};
use takhin_pika_testing::master::legacy::is_legacy;
use takhin_pika_testing::master::{Master, Settings};

/// Longest wait for what has to come.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sink {
    Takhin,
    Kafka,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    DataSet,
    Changes,
    Latency,
}

/// Measures takhin-cdc between a scripted master and a cluster.
#[derive(Debug, Parser)]
struct Args {
    /// What it writes to
    #[arg(long, value_enum, default_value = "takhin")]
    sink: Sink,
    /// Only this part; may be given more than once
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// What the master is: 4.0.0, or an older one, 2.3.6 at the oldest. One before 3.5 pushes its dump; what one before 3.1 sends
    /// goes through the log on the own disk
    #[arg(long, default_value = "3.5.5")]
    version: String,
    /// Keys of the data set
    #[arg(long, default_value_t = 2_000_000)]
    keys: u64,
    /// Changes that are there from the beginning
    #[arg(long, default_value_t = 2_000_000)]
    items: u64,
    /// Bytes of the value of each of them
    #[arg(long, default_value_t = 32)]
    value: usize,
    /// Changes a second while latency is measured
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// For how long that is
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Settings of takhin-cdc, as `--set` takes them
    #[arg(long)]
    set: Vec<String>,
    /// Settings of the broker, as it takes them: `key=value`
    #[arg(long)]
    broker_set: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut broker = Broker::new(match args.sink {
        Sink::Takhin => Kind::Takhin,
        Sink::Kafka => Kind::Kafka,
    })?;
    for setting in &args.broker_set {
        if let Some((key, value)) = setting.split_once('=') {
            broker.set(key, value);
        }
    }
    broker.start()?;
    println!(
        "sink: {:?} {:?}, {:?}, master {}",
        args.sink, args.broker_set, args.set, args.version
    );
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    if wants(Part::DataSet) {
        data_set::measure(&args, &broker)?;
    }
    if wants(Part::Changes) {
        let rate = changes::measure(&args, &broker)?;
        alone::measure(&args, &broker, rate)?;
    }
    if wants(Part::Latency) {
        latency::measure(&args, &broker)?;
    }
    Ok(())
}

impl Args {
    /// A master without anything.
    fn master(&self) -> Result<Master> {
        Master::start(Settings {
            version: self.version.clone(),
            file_size: 100 << 20,
            ..Settings::default()
        })
    }

    /// A program with topics of its own, not started yet.
    fn cdc(&self, name: &str, master: &Master, broker: &Broker) -> Result<Cdc> {
        let mut cdc = Cdc::new(name, master.port(), &broker.bootstrap())?;
        for setting in &self.set {
            cdc.set(setting);
        }
        if self.is_older() {
            cdc.listed()?;
        }
        Ok(cdc)
    }

    /// Whether the master is one before 3.1, which takes no acknowledgements.
    fn is_older(&self) -> bool {
        is_legacy(&self.version)
    }

    /// Has a master execute a command.
    fn execute(&self, master: &Master, words: &[&[u8]]) {
        match self.is_older() {
            true => drop(master.legacy(|legacy| legacy.execute(&[words]))),
            false => drop(master.execute("db0", words)),
        }
    }

    /// Whether a master has been asked for its changes.
    fn is_asked(&self, master: &Master) -> bool {
        match self.is_older() {
            true => master.legacy(|legacy| !legacy.asked.is_empty()),
            false => !master.tried().is_empty(),
        }
    }

    /// Whether everything that a master has was written, and the position saved.
    fn is_done(&self, master: &Master, cdc: &Cdc) -> bool {
        match self.is_older() {
            true => {
                let end = master.legacy(|legacy| legacy.end());
                cdc.saved("db0") == Some((end.filenum.into(), end.offset))
            }
            false => master.acked("db0") == Some(master.end("db0")),
        }
    }

    /// Whose binlog it is, in positions.
    fn replication_id(&self) -> String {
        match self.is_older() {
            true => String::new(),
            false => Settings::default().replication_id,
        }
    }
}
