//! kcat as one of the clients: it says of no record where it is, but fails if one was not acknowledged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use takhin_e2e::process::{self, Running};
use takhin_e2e::{tools, wait};
use tempfile::TempDir;

use super::{LIMIT, TOPIC};

/// What its records begin with, and a number follows.
const WRITER: &str = "kcat-writer";

/// Pause between two records.
const PAUSE: Duration = Duration::from_millis(10);

/// A producer that is given one line after the other, and a consumer of the whole topic.
pub(super) struct Kcat {
    writer: Running,
    feeder: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    /// Lines that the producer was given.
    fed: Arc<AtomicU64>,
    reader: Running,
    dir: TempDir,
}

impl Kcat {
    pub(super) fn start(bootstrap: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str| File::create(dir.path().join(name));
        let mut produce = tools::kcat();
        produce.args([
            "-P",
            "-b",
            bootstrap,
            "-t",
            TOPIC,
            "-X",
            "enable.idempotence=true",
        ]);
        produce
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file("writer")?);
        let mut writer = Running::start(&mut produce)?;
        let mut consume = tools::kcat();
        consume.args(["-C", "-b", bootstrap, "-t", TOPIC, "-o", "beginning", "-u"]);
        consume.args(["-f", "%p %s\\n"]);
        consume
            .stdin(Stdio::null())
            .stdout(file("read")?)
            .stderr(file("reader")?);
        let (stop, fed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut lines = writer.stdin().context("no standard input")?;
        let (ends, count) = (Arc::clone(&stop), Arc::clone(&fed));
        let feeder = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                if writeln!(lines, "{WRITER} {}", count.load(Ordering::Relaxed)).is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        });
        Ok(Self {
            writer,
            feeder,
            stop,
            fed,
            reader: Running::start(&mut consume)?,
            dir,
        })
    }

    /// Waits until what is written from now on has been read.
    pub(super) fn goes_on(&mut self) -> Result<()> {
        let goal = self.fed.load(Ordering::Relaxed) + 50;
        self.wait_read(goal)
    }

    /// Waits until the first `count` records have been read.
    fn wait_read(&mut self, count: u64) -> Result<()> {
        wait::until(format_args!("{count} records of kcat"), LIMIT, || {
            self.is_alive()?;
            let read = self.read()?;
            let found: u64 = read
                .values()
                .map(|numbers| numbers.iter().filter(|n| **n < count).count() as u64)
                .sum();
            Ok(found >= count)
        })
    }

    fn is_alive(&mut self) -> Result<()> {
        let (stops, files) = (self.stop.load(Ordering::Relaxed), ["writer", "reader"]);
        for (process, file) in [&mut self.writer, &mut self.reader].into_iter().zip(files) {
            if let Some(status) = process.ended()?
                && !(stops && file == "writer" && status.success())
            {
                let text = fs::read_to_string(self.dir.path().join(file))?;
                bail!(
                    "kcat {file} {}: {}",
                    process::ending(status),
                    process::tail(&text, 10)
                );
            }
        }
        Ok(())
    }

    /// The numbers of its own records that were read, by partition.
    fn read(&self) -> Result<BTreeMap<String, Vec<u64>>> {
        let text = fs::read_to_string(self.dir.path().join("read"))?;
        let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        // The last line may still be growing.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            if let Some((partition, number)) = line.split_once(&format!(" {WRITER} ")) {
                numbers
                    .entry(partition.to_owned())
                    .or_default()
                    .push(number.parse()?);
            }
        }
        Ok(numbers)
    }

    /// Ends the producer; every record must be there once, in order.
    pub(super) fn judge(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        // It gives its end of the pipe back, whereupon kcat delivers what it has, and ends.
        while !self.feeder.is_finished() {
            thread::sleep(PAUSE);
        }
        let status = self.writer.wait(LIMIT)?;
        let said = fs::read_to_string(self.dir.path().join("writer"))?;
        ensure!(
            status.success() && !said.contains("Delivery failed"),
            "kcat: {said}"
        );
        let count = self.fed.load(Ordering::Relaxed);
        self.wait_read(count)?;
        let read = self.read()?;
        let total: usize = read.values().map(Vec::len).sum();
        ensure!(total as u64 == count, "kcat read {total} of {count} records");
        for (partition, numbers) in &read {
            ensure!(
                numbers.is_sorted_by(|a, b| a < b),
                "partition {partition} of kcat is out of order"
            );
        }
        eprintln!("        {WRITER}: {count} records acknowledged");
        Ok(())
    }
}
