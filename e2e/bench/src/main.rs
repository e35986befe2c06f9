//! Takhin and Apache Kafka side by side, on one machine, in one session: ratios that mean something where absolute
//! numbers do not. The method is `docs/performance.md`.
//!
//! [`scenarios`] is the table of what is run, [`points`] what is judged; [`bench`] runs it, in pairs A B B A on the
//! brokers of [`broker`], with the load of [`load`]; [`report`] judges.

mod admin;
mod batches;
mod bench;
mod broker;
mod codec;
mod cold;
mod counts;
mod groups;
mod idle;
mod load;
mod points;
mod probe;
mod proc;
mod report;
mod run;
mod sample;
mod scenarios;
mod scrape;
mod sink;
mod start;
mod trace;
mod trio;
mod wait;
mod wire;

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

use crate::bench::{Bench, Options};
use crate::broker::{Kind, Launcher};
use crate::probe::Limits;

#[derive(Debug, Parser)]
#[command(name = "takhin-bench", about = "Takhin and Apache Kafka side by side")]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run scenarios and print a table of ratios
    All(All),
    /// List scenarios and the points they decide
    List,
    /// Print this machine's limits
    Probe,
    /// Acknowledge Produce requests and store nothing
    #[command(hide = true)]
    Sink {
        /// Where to listen
        addr: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct All {
    /// Pairs of measured runs per scenario
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Length of a measured run; a fifth comes on top as warm-up
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Two pairs of three seconds, less data: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Brokers on core 0, load on core 1
    #[arg(long)]
    pin: bool,
    /// The peer
    #[arg(long, value_enum, default_value_t = Kind::Kafka)]
    a: Kind,
    /// What is judged
    #[arg(long, value_enum, default_value_t = Kind::Takhin)]
    b: Kind,
    /// Only these scenarios or points, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Takhin's program
    #[arg(long, default_value = "target/release/takhin")]
    takhin: PathBuf,
    /// Directory of Kafka's jars; fetched by e2e/setup/kafka.sh if not given
    #[arg(long)]
    kafka_jars: Option<PathBuf>,
    /// Where brokers keep their data, on the file system that is to be measured
    #[arg(long, default_value = "target/bench")]
    work_dir: PathBuf,
    /// Data for start times in GB; 10, or 1 if quick
    #[arg(long)]
    start_gb: Option<u64>,
    /// Where the raw results go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(e) => {
            note(&format!("error: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<ExitCode> {
    match what {
        What::All(all) => return all.run(),
        What::List => {
            for scenario in scenarios::SCENARIOS {
                let points: Vec<_> = scenario
                    .points
                    .iter()
                    .map(|p| format!("{} {}", p.id, p.metric))
                    .collect();
                say(&format!("{:<22} {}", scenario.name, points.join(", ")))?;
            }
        }
        What::Probe => {
            let dir = tempfile::tempdir_in(".")?;
            say(&serde_json::to_string_pretty(
                &Limits::probe(dir.path())?.to_json(),
            )?)?;
        }
        What::Sink { addr } => sink::serve(addr)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl All {
    fn run(self) -> Result<ExitCode> {
        if self.pin && std::env::var_os(PINNED).is_none() {
            return pin_self();
        }
        idle::raise_open_files();
        std::fs::create_dir_all(&self.work_dir)?;
        let work_dir = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(self.work_dir.canonicalize()?)?;
        let launcher = Launcher {
            work_dir: work_dir.path().to_owned(),
            kafka_jars: self.jars()?,
            takhin: self.takhin.clone(),
            core: self.pin.then_some(0),
        };
        let report = Bench::new(self.options()?, launcher).run()?;
        say(&report.table())?;
        Ok(if report.failed() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    fn options(&self) -> Result<Options> {
        for name in &self.only {
            let known = |s: &points::Scenario| s.name == name || s.points.iter().any(|p| p.id == name);
            ensure!(
                scenarios::SCENARIOS.iter().any(known),
                "{name} is neither a scenario nor a point; see `list`"
            );
        }
        let seconds = if self.quick { 3 } else { self.seconds.max(1) };
        let gigabytes = self.start_gb.unwrap_or(if self.quick { 1 } else { 10 });
        Ok(Options {
            pairs: if self.quick { 2 } else { self.pairs.max(1) },
            measured: Duration::from_secs(seconds),
            kinds: [self.a, self.b],
            only: self.only.clone(),
            pre_touch: ((seconds * 500) << 20).min(8 << 30),
            start_bytes: gigabytes * 1_000_000_000,
            consume_bytes: if self.quick { 256 << 20 } else { 1 << 30 },
            groups: if self.quick { 100 } else { 1000 },
            idle: Duration::from_secs(if self.quick { 5 } else { 30 }),
            out: self.out.clone(),
        })
    }

    fn jars(&self) -> Result<Option<PathBuf>> {
        if ![self.a, self.b].contains(&Kind::Kafka) {
            return Ok(None);
        }
        if let Some(jars) = &self.kafka_jars {
            return Ok(Some(jars.clone()));
        }
        let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("run it with `cargo run -p takhin-bench`, or give --kafka-jars")?;
        let script = Path::new(&crate_dir).join("../setup/kafka.sh");
        let output = Command::new(&script).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("running {}", script.display()))?;
        ensure!(output.status.success(), "{} failed", script.display());
        Ok(Some(PathBuf::from(String::from_utf8(output.stdout)?.trim())))
    }
}

/// Set in a load generator that is already on its core.
const PINNED: &str = "TAKHIN_BENCH_PINNED";

/// Starts this program again on core 1.
fn pin_self() -> Result<ExitCode> {
    let mut command = Command::new("taskset");
    command.arg("-c").arg("1").arg(std::env::current_exe()?);
    let status = command
        .args(std::env::args_os().skip(1))
        .env(PINNED, OsStr::new("1"))
        .status()?;
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(_) => Ok(ExitCode::FAILURE),
        None => bail!("the pinned run ended with {status}"),
    }
}

/// Prints a result.
fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints progress, for people.
fn note(text: &str) {
    // Nobody may be listening, and the results do not depend on it.
    let _ = writeln!(std::io::stderr(), "{text}");
}
