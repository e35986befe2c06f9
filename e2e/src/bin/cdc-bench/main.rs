//! How fast `takhin-cdc` is between a scripted master that has everything at hand and a cluster: `make bench-cdc`.
//!
//! Master, program, broker and reader share the machine. Each of three parts has topics of its own and a program that was
//! just started: the data set, from the first key read out of the dump to the last one acknowledged; changes, from the first
//! one asked for to the last one acknowledged to the master; and at a fixed rate the time from the moment at which a change is
//! due to the moment at which kcat has it. With each goes what processor time it took of whom, and resident memory.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

mod changes;
mod data_set;
mod latency;
mod usage;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use takhin_e2e::cdc::Cdc;
use takhin_e2e::{Broker, Kind};
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
    /// Keys of the data set
    #[arg(long, default_value_t = 2_000_000)]
    keys: u64,
    /// Changes that are there from the beginning
    #[arg(long, default_value_t = 2_000_000)]
    items: u64,
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
    println!("sink: {:?} {:?}, {:?}", args.sink, args.broker_set, args.set);
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    if wants(Part::DataSet) {
        data_set::measure(&args, &broker)?;
    }
    if wants(Part::Changes) {
        changes::measure(&args, &broker)?;
    }
    if wants(Part::Latency) {
        latency::measure(&args, &broker)?;
    }
    Ok(())
}

impl Args {
    /// A master without anything.
    fn master() -> Result<Master> {
        Master::start(Settings {
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
        Ok(cdc)
    }
}
