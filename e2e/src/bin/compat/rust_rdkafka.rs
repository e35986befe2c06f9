//! rust-rdkafka's integration tests, one process each.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use takhin_e2e::process;

use crate::{Run, Verdict, built};

/// Its tests write to partitions 0, 1 and 2 of topics that are created by that.
const PARTITIONS: u32 = 3;
const KAFKA_VERSION: &str = "4.0";

pub(crate) fn run(run: &mut Run<'_>) -> Result<()> {
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
        for test in list.text().lines().filter_map(|line| line.strip_suffix(": test")) {
            let name = format!("{file}::{test}");
            if (run.wanted)(&name) {
                tests.push((program.clone(), test.to_owned(), name));
            }
        }
    }
    if tests.is_empty() {
        return Ok(());
    }
    let mut broker = run.broker(PARTITIONS, true)?;
    for (program, test, name) in tests {
        let mut command = Command::new(program);
        command
            .args(["--exact", &test, "--test-threads=1", "--nocapture"])
            .current_dir(&run.logs)
            .env("KAFKA_HOST", broker.bootstrap())
            .env("KAFKA_VERSION", KAFKA_VERSION)
            .env("RUST_BACKTRACE", "0");
        let (passed, seconds) = run.program(&name, &mut command)?;
        run.add(&name, if passed { Verdict::Pass } else { Verdict::Fail }, seconds)?;
        if !broker.is_running()? {
            crate::say(&format!("the broker has ended\n{}", broker.log_tail()))?;
            broker = run.broker(PARTITIONS, true)?;
        }
    }
    Ok(())
}
