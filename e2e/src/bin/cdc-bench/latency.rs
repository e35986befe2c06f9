//! Changes at a fixed rate, from the moment at which one is due to the moment at which a reader has it.

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::process::Running;
use takhin_e2e::{Broker, tools, wait};
use takhin_pika_testing::master::Master;

use crate::changes::VALUE;
use crate::usage::{Usage, peak_mib};
use crate::{Args, LIMIT};

/// Number of a change, and when it was read.
type Seen = Mutex<Vec<(u32, Duration)>>;

pub(crate) fn measure(args: &Args, broker: &Broker) -> Result<()> {
    let master = args.master()?;
    let mut cdc = args.cdc("latency", &master, broker)?;
    cdc.go_on_from(&args.replication_id(), &[("db0", (0, 0))])?;
    cdc.start()?;
    cdc.wait_ready()?;
    let mut reader = reader(broker)?;
    let output = reader.stdout().context("the output of kcat")?;
    let (clock, seen) = (Instant::now(), Seen::default());
    let total = args.rate * args.seconds;
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| note(output, clock, &seen));
        // kcat does not say when it reads: the first of these that it has.
        let begun = wait::until("kcat reads", LIMIT, || {
            args.execute(&master, &[b"SET", b"t:0", b"0"]);
            Ok(seen.lock().is_ok_and(|seen| !seen.is_empty()))
        });
        let usage = Usage::begin(cdc.pid()?, broker.pid()?)?;
        let start = clock.elapsed();
        let due = |number: u32| start + Duration::from_secs_f64(f64::from(number) / f64::from(args.rate));
        let read = begun.and_then(|()| {
            execute(args, &master, clock, due);
            wait::until("kcat has read all", LIMIT, || {
                let count = |seen: &[(u32, Duration)]| seen.iter().filter(|(number, _)| *number > 0).count();
                Ok(seen
                    .lock()
                    .is_ok_and(|seen| count(&seen) as u64 >= u64::from(total)))
            })
        });
        // Ends the thread that notes.
        reader.kill();
        read.with_context(|| cdc.tail())?;
        let seen = seen.lock().map(|seen| seen.clone()).unwrap_or_default();
        println!(
            "latency at {}/s: {}; {}; at most {} MiB resident",
            args.rate,
            percentiles(&seen, due)?,
            usage.end(f64::from(total))?,
            peak_mib(cdc.pid()?)?
        );
        Ok(())
    })
}

fn reader(broker: &Broker) -> Result<Running> {
    let mut command = tools::kcat();
    command.args(["-C", "-u", "-q", "-o", "end", "-f", "%k\n", "-b"]);
    command.args([&broker.bootstrap(), "-t", "pika.latency.binlog"]);
    command.args(["-X", "fetch.wait.max.ms=10"]);
    Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))
}

/// Executes each change when it is due, whatever became of the one before.
fn execute(args: &Args, master: &Master, clock: Instant, due: impl Fn(u32) -> Duration) {
    for number in 1..=args.rate * args.seconds {
        while clock.elapsed() < due(number) {
            std::thread::sleep(Duration::from_micros(200));
        }
        args.execute(master, &[b"SET", format!("t:{number}").as_bytes(), VALUE]);
    }
}

fn note(output: ChildStdout, clock: Instant, seen: &Seen) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let now = clock.elapsed();
        let number = line.strip_prefix("db0:t:").and_then(|number| number.parse().ok());
        if let (Some(number), Ok(mut seen)) = (number, seen.lock()) {
            seen.push((number, now));
        }
    }
}

fn percentiles(seen: &[(u32, Duration)], due: impl Fn(u32) -> Duration) -> Result<String> {
    let mut delays: Vec<f64> = seen
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, at)| at.saturating_sub(due(*number)).as_secs_f64() * 1e3)
        .collect();
    ensure!(!delays.is_empty(), "nothing was read");
    delays.sort_by(f64::total_cmp);
    let at = |permille: usize| delays[(delays.len() - 1) * permille / 1000];
    Ok(format!(
        "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms",
        at(500),
        at(990),
        at(999),
        at(1000)
    ))
}
