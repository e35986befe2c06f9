//! rust-rdkafka's integration tests, one process each.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use takhin_e2e::process;

use crate::{Run, Verdict, built, free_9092};

/// Its tests write to partitions 0, 1 and 2 of topics that are created by that.
const PARTITIONS: u32 = 3;
const KAFKA_VERSION: &str = "4.0";

/// The program whose tests look for their broker at `localhost` and Kafka's port, whatever they are told.
const AT_LOCALHOST: &str = "test_high_producers";

struct Test {
    program: PathBuf,
    name: String,
    /// With the name of its program in front.
    full_name: String,
}

pub(crate) fn run(run: &mut Run<'_>) -> Result<()> {
    let (at_localhost, others): (Vec<_>, Vec<_>) = tests(run)?
        .into_iter()
        .partition(|test| test.full_name.starts_with(AT_LOCALHOST));
    if !others.is_empty() {
        run_at(run, free_9092()?, &others)?;
    }
    if at_localhost.is_empty() {
        return Ok(());
    }
    match localhost() {
        Ok(address) => run_at(run, address, &at_localhost),
        // Against a broker that is not ours they would show nothing.
        Err(taken) => {
            crate::say(&format!("{taken:#}"))?;
            at_localhost
                .iter()
                .try_for_each(|test| run.add(&test.full_name, Verdict::Fail, 0.0))
        }
    }
}

fn localhost() -> Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
    TcpListener::bind(address).with_context(|| format!("{AT_LOCALHOST} needs {address}"))?;
    Ok(address)
}

/// The tests that are wanted.
fn tests(run: &Run<'_>) -> Result<Vec<Test>> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(built("rust-rdkafka/tests-built")?)? {
        programs.push(entry?.path());
    }
    programs.sort();
    let mut tests = Vec::new();
    for program in programs {
        let list = process::run(
            Command::new(&program).args(["--list", "--format", "terse"]),
            Duration::from_secs(10),
        )?;
        let file = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for name in list.text().lines().filter_map(|line| line.strip_suffix(": test")) {
            let full_name = format!("{file}::{name}");
            if (run.wanted)(&full_name) {
                tests.push(Test {
                    program: program.clone(),
                    name: name.to_owned(),
                    full_name,
                });
            }
        }
    }
    Ok(tests)
}

fn run_at(run: &mut Run<'_>, address: SocketAddr, tests: &[Test]) -> Result<()> {
    let mut broker = run.broker(address, PARTITIONS, true)?;
    for test in tests {
        let mut command = Command::new(&test.program);
        command
            .args(["--exact", &test.name, "--test-threads=1", "--nocapture"])
            .current_dir(&run.logs)
            .env("KAFKA_HOST", broker.bootstrap())
            .env("KAFKA_VERSION", KAFKA_VERSION)
            .env("RUST_BACKTRACE", "0");
        let (passed, seconds) = run.program(&test.full_name, &mut command)?;
        let verdict = if passed { Verdict::Pass } else { Verdict::Fail };
        run.add(&test.full_name, verdict, seconds)?;
        if !broker.is_running()? {
            crate::say(&format!("the broker has ended\n{}", broker.log_tail()))?;
            broker = run.broker(address, PARTITIONS, true)?;
        }
    }
    Ok(())
}
