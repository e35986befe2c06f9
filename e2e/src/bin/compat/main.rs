//! The clients' own test suites against a broker, scored on what passes on Apache Kafka in the same harness.
//!
//! `E2E_BROKER=kafka compat --record` writes the baseline, `compat` scores takhin. One line per test: verdict, seconds,
//! name; what a test printed is kept in `${TAKHIN_CACHE:-~/.cache/takhin}/compat/logs`. Fails when less than 95 % of a
//! suite's baseline passes, with `--quick` when a single test fails.

mod librdkafka;
mod lists;
mod rust_rdkafka;

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use takhin_e2e::{Broker, Kind, tools};

use crate::lists::Lists;

/// A test that runs longer hangs; the slowest takes a minute and a half.
const LIMIT: Duration = Duration::from_secs(120);
/// Percent of the baseline that must pass.
const TARGET: usize = 95;

#[derive(Debug, Parser)]
#[command(name = "compat", about = "The clients' own test suites against a broker")]
struct Cli {
    /// Only this suite
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    /// Only tests whose name contains one of these, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only the tests of e2e/compat/quick.txt, all of which must pass
    #[arg(long)]
    quick: bool,
    /// Write what passes to the baseline, for the tests that ran
    #[arg(long)]
    record: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    Librdkafka,
    RustRdkafka,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Librdkafka => "librdkafka",
            Self::RustRdkafka => "rust-rdkafka",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail,
    /// The test says that it cannot run here.
    Skip,
}

/// What became of one test.
#[derive(Debug)]
struct Outcome {
    name: String,
    verdict: Verdict,
    seconds: f64,
}

/// What a suite gets: which tests to run, on which broker, where to put their output.
struct Run<'a> {
    kind: Kind,
    wanted: &'a dyn Fn(&str) -> bool,
    logs: PathBuf,
    outcomes: Vec<Outcome>,
}

impl Run<'_> {
    fn add(&mut self, name: &str, verdict: Verdict, seconds: f64) -> Result<()> {
        say(&format!("{verdict:<4?} {seconds:6.1} s  {name}"))?;
        self.outcomes.push(Outcome {
            name: name.to_owned(),
            verdict,
            seconds,
        });
        Ok(())
    }

    /// Starts a broker as the suites expect one: number 0, `partitions` for a topic created without a number.
    fn broker(&self, address: SocketAddr, partitions: u32, auto_create: bool) -> Result<Broker> {
        let mut broker = Broker::new(self.kind)?;
        broker.identify(0, address);
        let names = match self.kind {
            Kind::Kafka => [
                "num.partitions",
                "auto.create.topics.enable",
                "group.initial.rebalance.delay.ms",
            ],
            Kind::Takhin => [
                "kafka.num_partitions",
                "kafka.auto_create_topics",
                "kafka.groups.initial_rebalance_delay",
            ],
        };
        broker.set(names[0], &partitions.to_string());
        broker.set(names[1], &auto_create.to_string());
        broker.set(names[2], if self.kind == Kind::Kafka { "0" } else { "0ms" });
        broker.start()?;
        Ok(broker)
    }

    /// Runs one program with its output in the log `name`; returns whether it succeeded in time, and its seconds.
    fn program(&self, name: &str, command: &mut Command) -> Result<(bool, f64)> {
        let path = self.logs.join(format!("{name}.log"));
        let log = fs::File::create(&path).with_context(|| path.display().to_string())?;
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        let begin = Instant::now();
        let mut process = takhin_e2e::process::Running::start_group(command)?;
        let ended = process.wait(LIMIT);
        if let Err(late) = &ended {
            writeln!(&log, "killed: {late}")?;
        }
        Ok((
            ended.is_ok_and(|status| status.success()),
            begin.elapsed().as_secs_f64(),
        ))
    }
}

/// Port 9092, which one test expects literally, on a loopback address where nobody has it.
///
/// Begins at one that depends on the process, so that two runs do not choose the same at the same time.
fn free_9092() -> Result<SocketAddr> {
    let [_, _, _, first] = std::process::id().to_be_bytes();
    (1..=254)
        .map(|n| SocketAddr::from((Ipv4Addr::new(127, 92, first, n), 9092)))
        .find(|address| TcpListener::bind(address).is_ok())
        .with_context(|| format!("port 9092 is taken on all of 127.92.{first}.0/24"))
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            // Nothing is left to be done about a standard error that is closed.
            let _ = writeln!(std::io::stderr(), "error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    let kind = Kind::from_env()?;
    let mut good = true;
    for suite in [Suite::Librdkafka, Suite::RustRdkafka] {
        if cli.suite.is_none_or(|only| only == suite) {
            good &= run_suite(cli, kind, suite)?;
        }
    }
    Ok(good)
}

/// Runs one suite; returns whether its score suffices.
fn run_suite(cli: &Cli, kind: Kind, suite: Suite) -> Result<bool> {
    let lists = Lists::read(&tools::checkout()?.join("e2e/compat"), suite.name())?;
    let wanted = |name: &str| {
        let named = cli.only.is_empty() || cli.only.iter().any(|part| name.contains(part.as_str()));
        // A test that fails on Apache Kafka is worth its time only when the baseline is written.
        let scored = lists.scored(name) || (cli.record && !lists.is_excluded(name));
        named
            && if cli.quick {
                lists.is_quick(name)
            } else {
                scored || !cli.only.is_empty()
            }
    };
    let logs = cache()?.join(format!("logs/{kind:?}/{}", suite.name()).to_lowercase());
    fs::create_dir_all(&logs)?;
    let mut run = Run {
        kind,
        wanted: &wanted,
        logs,
        outcomes: Vec::new(),
    };
    say(&format!(
        "{} on {kind:?}; output in {}",
        suite.name(),
        run.logs.display()
    ))?;
    match suite {
        Suite::Librdkafka => librdkafka::run(&mut run)?,
        Suite::RustRdkafka => rust_rdkafka::run(&mut run)?,
    }
    if cli.record {
        lists.record(&run.outcomes)?;
        say(&format!("{}: the baseline is written", suite.name()))?;
        return Ok(true);
    }
    score(cli, &lists, suite, &run.outcomes)
}

/// Prints the sum as Rust's test harness does, which `make test` adds up.
fn score(cli: &Cli, lists: &Lists, suite: Suite, outcomes: &[Outcome]) -> Result<bool> {
    let scored: Vec<_> = outcomes.iter().filter(|o| lists.scored(&o.name)).collect();
    let passed = scored.iter().filter(|o| o.verdict == Verdict::Pass).count();
    let seconds: f64 = outcomes.iter().map(|o| o.seconds).sum();
    for outcome in scored.iter().filter(|o| o.verdict != Verdict::Pass) {
        say(&format!("passes on Apache Kafka, not here: {}", outcome.name))?;
    }
    let target = if cli.quick { 100 } else { TARGET };
    let good = !scored.is_empty() && passed * 100 >= scored.len() * target;
    say(&format!(
        "{}: {passed} of {} that pass on Apache Kafka, {:.1} %, {seconds:.0} s",
        suite.name(),
        scored.len(),
        100.0 * share(passed, scored.len()),
    ))?;
    say(&format!(
        "test result: {}. {passed} passed; {} failed;",
        if good { "ok" } else { "FAILED" },
        scored.len() - passed,
    ))?;
    Ok(good)
}

fn share(part: usize, whole: usize) -> f64 {
    let exact = |n: usize| u32::try_from(n).map_or(f64::INFINITY, f64::from);
    exact(part) / exact(whole.max(1))
}

/// Where `e2e/setup/compat.sh` builds the suites.
fn cache() -> Result<PathBuf> {
    Ok(tools::cache()?.join("compat"))
}

/// A file or directory that `e2e/setup/compat.sh` makes.
fn built(path: &str) -> Result<PathBuf> {
    let path = cache()?.join(path);
    anyhow::ensure!(
        Path::exists(&path),
        "{} is missing: run e2e/setup/compat.sh",
        path.display()
    );
    Ok(path)
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
