//! Real brokers under real faults, with stock clients that notice everything.
//!
//! One seed is one cluster: each broker on a network and a disk of its own, idempotent producers and members of groups
//! (librdkafka) that log each acknowledgement, and a schedule of faults. In the end another client (kcat) reads all
//! back, and every record must be there once, where and in the order in which it was acknowledged; no commit is undone.

mod failover;
mod faults;
mod many;
mod network;
mod proxy;
mod stage;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use takhin_e2e::rng::Rng;

use crate::faults::Fault;
use crate::stage::{Old, Stage};

#[derive(Debug, Parser)]
#[command(name = "chaos", about = "Real brokers under real faults; needs root", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Faults in the order that a seed draws, under load; all that was acknowledged must be there in the end
    Run(Settings),
    /// How long clients wait for another leader, measured by a client; judged only with --at-most
    Failover(failover::Settings),
    /// What many partitions cost of which few are written to, and how long they take to be led after a kill of all brokers
    Many(many::Settings),
    /// The kinds of faults
    List,
    /// What `run` puts between brokers when links are to be slow
    #[command(hide = true)]
    Proxy(proxy::Settings),
}

#[derive(Debug, Args)]
struct Settings {
    /// How many seeds
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed; it draws the number of brokers, the faults, their victims and how long each is held
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only these kinds, separated by commas (`chaos list`)
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// How often each kind strikes
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Brokers, 3 to 5; by default the seed says
    #[arg(long, value_parser = clap::value_parser!(u8).range(3..=5))]
    brokers: Option<u8>,
    /// A takhin of an earlier commit that knows the same formats: one of the brokers runs it, the seed says which
    #[arg(long, value_name = "PATH")]
    old_binary: Option<PathBuf>,
    /// Where logs and data of a run that failed are kept
    #[arg(long, default_value = "target/chaos")]
    keep: PathBuf,
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::List => {
            for fault in faults::ALL {
                say(&format!("{:<12} {}", fault.name, fault.about));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Proxy(settings) => proxy::serve(&settings).map(|()| ExitCode::SUCCESS),
        Command::Failover(settings) => {
            network::enter()?;
            failover::run(&settings).map(|()| ExitCode::SUCCESS)
        }
        Command::Many(settings) => {
            network::enter()?;
            many::run(&settings).map(|()| ExitCode::SUCCESS)
        }
        Command::Run(settings) => {
            let kinds = kinds(&settings.faults, settings.old_binary.is_some())?;
            network::enter()?;
            run(&settings, &kinds)
        }
    }
}

/// The kinds of these names; for none, all that there is what they need for.
fn kinds(names: &[String], has_old: bool) -> Result<Vec<&'static Fault>> {
    if names.is_empty() {
        let possible = |fault: &&Fault| has_old || !fault.needs_old;
        return Ok(faults::ALL.iter().filter(possible).collect());
    }
    let find = |name: &String| {
        let found = faults::ALL.iter().find(|fault| fault.name == name);
        let fault = found.with_context(|| format!("no fault is called {name}: `chaos list` names them"))?;
        ensure!(has_old || !fault.needs_old, "{name} needs --old-binary");
        Ok(fault)
    };
    names.iter().map(find).collect()
}

fn run(settings: &Settings, kinds: &[&'static Fault]) -> Result<ExitCode> {
    ensure!(settings.seeds > 0 && settings.rounds > 0, "nothing to do");
    if let Some(old) = &settings.old_binary {
        ensure!(old.exists(), "--old-binary {} does not exist", old.display());
    }
    // All temporary files come to lie here, so that those of a run that fails are found.
    let work = tempfile::Builder::new().prefix("takhin-chaos-").tempdir()?;
    if tempfile::env::override_temp_dir(work.path()).is_err() {
        bail!("the directory for temporary files is set already");
    }
    let mut failed = Vec::new();
    for seed in settings.first..settings.first + settings.seeds {
        let begin = Instant::now();
        let verdict = one_seed(settings, kinds, seed, work.path());
        let seconds = begin.elapsed().as_secs();
        match verdict {
            Ok(judged) => say(&format!("seed {seed}: ok, {judged}, {seconds} s")),
            Err(error) => {
                say(&format!("seed {seed}: FAILED after {seconds} s: {error:#}"));
                failed.push(seed);
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "failed: seeds {failed:?}; one again: make chaos FIRST={} SEEDS=1",
        failed[0]
    ));
    Ok(ExitCode::FAILURE)
}

fn one_seed(settings: &Settings, kinds: &[&'static Fault], seed: u64, work: &Path) -> Result<String> {
    let mut rng = Rng::new(seed);
    let drawn = u8::try_from(rng.within(3..6))?;
    let brokers = settings.brokers.unwrap_or(drawn);
    let mut schedule: Vec<&Fault> = Vec::new();
    for _ in 0..settings.rounds {
        let mut round = kinds.to_vec();
        stage::shuffle(&mut rng, &mut round);
        schedule.extend(round);
    }
    say(&format!(
        "seed {seed}: {brokers} brokers, {} faults",
        schedule.len()
    ));
    // From numbers of its own: the same seed draws the same faults with and without it.
    let drawn = Rng::new(!seed).within(0..u64::from(brokers));
    let broker = usize::try_from(drawn)?;
    let old = settings.old_binary.clone();
    let old = old.map(|binary| Old { binary, broker });
    let mut stage = Stage::set_up(brokers, old)?;
    let judged = story(&mut stage, &schedule, &mut rng);
    if judged.is_err() {
        let kept = settings.keep.join(format!("seed-{seed}"));
        match stage.keep(work, &kept) {
            Ok(()) => say(&format!(
                "seed {seed}: logs and data are kept in {}",
                kept.display()
            )),
            Err(error) => say(&format!("seed {seed}: logs and data are lost: {error:#}")),
        }
    }
    judged
}

fn story(stage: &mut Stage, schedule: &[&Fault], rng: &mut Rng) -> Result<String> {
    stage.load()?;
    for (n, fault) in schedule.iter().enumerate() {
        // A fault draws from numbers of its own: what one needs does not change the others.
        let mut rng = Rng::new(rng.next_u64());
        stage.label = format!("{}/{} {}", n + 1, schedule.len(), fault.name);
        let begin = Instant::now();
        let healed = stage
            .some_load(&mut rng)
            .and_then(|()| (fault.strike)(stage, &mut rng));
        let after = begin.elapsed().as_secs_f64();
        let settled = healed.and_then(|()| stage.settle());
        let sound = settled.and_then(|settled| stage.no_panics().map(|()| settled));
        let settled = sound.with_context(|| stage.label.clone())?;
        stage.say(&format!("healed after {after:.1} s; from then on {settled}"));
    }
    let judged = stage.judge()?;
    stage.no_panics()?;
    Ok(judged)
}

/// Prints a line. Whoever does not read it any more does not end the run.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
