//! Idempotent writers under faults (`clients/python/writer.py`), their log, and reading back what they wrote.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::checker::{self, Event, Found, Id, Report};
use crate::process::Running;
use crate::{kcat, process, tools, wait};

/// Starts to write at once, to all partitions of a topic, until [`Writer::finish`].
#[derive(Debug)]
pub struct Writer {
    process: Running,
    dir: TempDir,
    topic: String,
    progress: Progress,
}

impl Writer {
    /// Two idempotent producers in one process, acks=all, five requests in flight, small batches, 3000 records a second.
    pub fn start(bootstrap: &str, topic: &str, partitions: i32) -> Result<Self> {
        Self::start_at(3_000, bootstrap, topic, partitions)
    }

    /// The same with another number of records a second, at most: those that find no room are left out.
    pub fn start_at(rate: u32, bootstrap: &str, topic: &str, partitions: i32) -> Result<Self> {
        Self::start_as("ab", rate, bootstrap, topic, partitions)
    }

    /// The same with a producer for each letter of `names`, for a topic that others write to as well.
    pub fn start_as(names: &str, rate: u32, bootstrap: &str, topic: &str, partitions: i32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = tools::python("writer.py")?;
        command
            .args([bootstrap, topic, &partitions.to_string()])
            .arg(dir.path().join("log"))
            .args([&rate.to_string(), names]);
        let stderr = fs::File::create(dir.path().join("stderr"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
        Ok(Self {
            process: Running::start(&mut command)?,
            dir,
            topic: topic.to_owned(),
            progress: Progress::new(partitions)?,
        })
    }

    /// Acknowledgements so far.
    pub fn acked(&mut self) -> Result<usize> {
        let path = self.dir.path().join("log");
        if path.exists() {
            self.progress.read(&path)
        } else {
            Ok(0)
        }
    }

    /// Waits for `more` acknowledgements from now on.
    pub fn wait_acked(&mut self, more: usize, limit: Duration) -> Result<()> {
        let goal = self.acked()? + more;
        wait::until(format_args!("{goal} acknowledged records"), limit, || {
            if self.process.ended()?.is_some() {
                bail!("the writer ended early:\n{}", self.complaints());
            }
            Ok(self.acked()? >= goal)
        })
    }

    /// Waits until every partition has `more` acknowledgements from now on. With more than the producers have in
    /// flight these are of records that were sent after the call.
    pub fn wait_each(&mut self, more: usize, limit: Duration) -> Result<()> {
        self.wait_in(|_| true, more, limit)
    }

    /// The same for some of the partitions.
    pub fn wait_in(&mut self, which: impl Fn(usize) -> bool, more: usize, limit: Duration) -> Result<()> {
        self.acked()?;
        let goal = |(partition, n): (usize, &usize)| if which(partition) { n + more } else { 0 };
        let goals: Vec<usize> = self.progress.per_partition.iter().enumerate().map(goal).collect();
        let waited = wait::until(
            format_args!("{more} acknowledged records in each partition"),
            limit,
            || {
                if self.process.ended()?.is_some() {
                    bail!("the writer ended early:\n{}", self.complaints());
                }
                self.acked()?;
                let mut both = self.progress.per_partition.iter().zip(&goals);
                Ok(both.all(|(acked, goal)| acked >= goal))
            },
        );
        waited.with_context(|| {
            let both = self.progress.per_partition.iter().zip(&goals).enumerate();
            let late = both.filter(|(_, (acked, goal))| acked < goal);
            let late: Vec<String> = late
                .map(|(n, (acked, goal))| format!("{n} ({acked} of {goal})"))
                .collect();
            format!(
                "partitions that lack some: {}\n{}",
                late.join(", "),
                self.complaints()
            )
        })
    }

    /// Stops sending, waits until every send has its answer, and returns the log.
    ///
    /// # Errors
    /// When the producers report a fatal error, or do not get their answers within two minutes.
    pub fn finish(self) -> Result<Vec<Event>> {
        self.finish_timed().map(|(log, _)| log)
    }

    /// The same, with the longest time that a partition had nothing acknowledged to one of the producers.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_timed(mut self) -> Result<(Vec<Event>, Duration)> {
        drop(self.process.stdin());
        let status = self
            .process
            .wait(Duration::from_secs(120))
            .with_context(|| self.complaints())?;
        ensure!(
            status.success(),
            "the writer {}:\n{}",
            process::ending(status),
            self.complaints()
        );
        let log = self.log()?;
        let gap = longest_gap(&log).context("the writer does not say how long its gaps were")?;
        Ok((parse_log(&log)?, gap))
    }

    /// Kills the writers and returns the log as far as it got: what has no answer is unknown.
    pub fn abandon(mut self) -> Result<Vec<Event>> {
        self.process.kill();
        let log = self.log()?;
        // The last line may have been cut in the middle.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        parse_log(whole)
    }

    /// The topic written to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    fn log(&self) -> Result<String> {
        let path = self.dir.path().join("log");
        if path.exists() {
            Ok(fs::read_to_string(path)?)
        } else {
            Ok(String::new())
        }
    }

    fn complaints(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
        process::tail(&text, 20)
    }
}

/// How much of the growing log has been counted.
#[derive(Debug)]
struct Progress {
    position: u64,
    acked: usize,
    /// Acknowledgements of each partition.
    per_partition: Vec<usize>,
}

impl Progress {
    fn new(partitions: i32) -> Result<Self> {
        Ok(Self {
            position: 0,
            acked: 0,
            per_partition: vec![0; usize::try_from(partitions)?],
        })
    }

    fn read(&mut self, path: &Path) -> Result<usize> {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(self.position))?;
        let mut new = Vec::new();
        file.read_to_end(&mut new)?;
        // The last line may still be growing.
        let whole = new.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        for line in std::str::from_utf8(&new[..whole])?.lines() {
            let Some(acked) = line.strip_prefix("A ") else {
                continue;
            };
            let partition = acked.split(' ').nth(1).context("an answer without a partition")?;
            let partition: usize = partition.parse()?;
            let count = self.per_partition.get_mut(partition);
            *count.with_context(|| format!("partition {partition}"))? += 1;
            self.acked += 1;
        }
        self.position += u64::try_from(whole)?;
        Ok(self.acked)
    }
}

/// Reads the whole topic with another client and judges it against the log.
pub fn check(bootstrap: &str, topic: &str, log: &[Event]) -> Result<Report> {
    let records = kcat::consume(bootstrap, topic, None, "beginning")?;
    let found: Result<Vec<_>> = records.iter().map(found).collect();
    Ok(checker::check(log, &found?))
}

/// The longest of all `G writer partition ms -`.
fn longest_gap(log: &str) -> Option<Duration> {
    let gaps = log.lines().filter_map(|line| line.strip_prefix("G "));
    let longest = gaps.filter_map(|gap| gap.split(' ').nth(2)?.parse().ok());
    longest.max().map(Duration::from_millis)
}

/// `S writer partition seq crc` and `A writer partition seq offset`; offset -1 for an answer without one.
fn parse_log(log: &str) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for line in log.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [kind, writer, partition, seq, last] = words[..] else {
            bail!("writer log: {line}")
        };
        let id = Id {
            writer: writer.to_owned(),
            partition: partition.parse()?,
            seq: seq.parse()?,
        };
        events.push(match kind {
            "S" => Event::Sent {
                id,
                crc: last.parse()?,
            },
            "A" => Event::Acked {
                id,
                offset: last.parse().ok().filter(|&offset: &i64| offset >= 0),
            },
            // No answer that proves anything: the record may be there or not. Gaps are of all of them.
            "U" | "G" => continue,
            _ => bail!("writer log: {line}"),
        });
    }
    Ok(events)
}

/// `writer partition seq padding` in the value.
fn found(record: &kcat::Record) -> Result<Found> {
    let value = record.value.as_deref().context("a record without a value")?;
    let text = std::str::from_utf8(value).context("a value that is no text")?;
    let mut words = text.split(' ');
    let (Some(writer), Some(partition), Some(seq)) = (words.next(), words.next(), words.next()) else {
        bail!("a value that no writer wrote: {text}");
    };
    let id = Id {
        writer: writer.to_owned(),
        partition: partition.parse()?,
        seq: seq.parse()?,
    };
    let crc = u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, value))?;
    Ok(Found {
        id,
        partition: record.partition,
        offset: record.offset,
        crc,
    })
}
