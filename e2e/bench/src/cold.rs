//! Reading what is not in memory: catching up alone, and beside a producer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use rustix::fs::{Advice, fadvise};

use crate::admin::Admin;
use crate::bench::{Bench, Run, VALUE_LEN};
use crate::load::{Open, Outcome, Span, Target, catch_up, histogram};
use crate::proc::Usage;
use crate::run::{CONSUMERS, FILL, batches, fill};
use crate::sample::{self, Sample};

/// Part of the bytes consumed that a broker must have read from the disk, or its data was not cold.
const COLD: f64 = 0.8;

/// Files whose pages can be dropped from memory.
#[derive(Debug)]
pub(crate) struct Pages(Vec<PathBuf>);

impl Pages {
    /// One file.
    pub(crate) fn of(path: &Path) -> Self {
        Self(vec![path.to_owned()])
    }

    /// The files that are below `dir` now.
    pub(crate) fn below(dir: &Path) -> Self {
        let mut files = Vec::new();
        collect(dir, &mut files);
        Self(files)
    }

    /// Writes the files' pages to the disk: dirty ones stay in memory, whatever the advice.
    pub(crate) fn write(&self) -> Result<()> {
        self.each(|file| Ok(file.sync_data()?))
    }

    /// Drops the files' pages that are not dirty. Flushes nothing, so that nobody else waits for it.
    pub(crate) fn forget(&self) -> Result<()> {
        self.each(|file| fadvise(file, 0, None, Advice::DontNeed).context("posix_fadvise"))
    }

    /// Calls `each` with every file; those that vanished meanwhile are no matter.
    fn each(&self, each: impl Fn(&File) -> Result<()>) -> Result<()> {
        let mut files = self.0.iter().filter_map(|path| File::open(path).ok());
        files.try_for_each(|file| each(&file))
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

impl Bench {
    /// Consumers read a topic that is on the disk only, again and again, and every time it is dropped from memory
    /// before; that takes no part in the measured time.
    pub(crate) fn consume_cold(&mut self, run: Run) -> Result<Sample> {
        let bytes = self.options.consume_bytes;
        let dir = self.side(run.side)?.dir.clone();
        let mut from_disk = 0.0;
        let outcome = self.on_topic(run, FILL.partitions, |target| {
            let (end, _) = fill(target, bytes, usize::MAX)?;
            let outcome = cold_passes(target, run.span, end, &Pages::below(&dir))?;
            from_disk = check_cold(outcome.broker.read_bytes, outcome.bytes)?;
            Ok(outcome)
        })?;
        let mut sample = sample::of_outcome(&outcome);
        sample.insert("disk_read_ratio", from_disk);
        Ok(sample)
    }

    /// A producer at half of side A's maximum, alone and then beside one consumer that reads another topic from the
    /// disk; how much longer the producer waits.
    pub(crate) fn mixed(&mut self, run: Run) -> Result<Sample> {
        let open = Open {
            rate: self.half_of_peer()?,
            span: run.span,
        };
        let bytes = self.options.consume_bytes;
        let broker = self.side(run.side)?;
        let (dir, configs) = (broker.dir.clone(), broker.topic_configs(run.durability));
        let mut sample = Sample::new();
        self.on_topic(run, FILL.partitions, |cold| {
            let (end, _) = fill(cold, bytes, usize::MAX)?;
            let pages = Pages::below(&dir);
            pages.write()?;
            let hot = Target {
                topic: format!("{}-hot", cold.topic),
                ..cold.clone()
            };
            let mut admin = Admin::connect(hot.addr)?;
            admin.create(&hot.topic, hot.partitions, &configs)?;
            let outcome = without_and_with_reader(open, &hot, cold, end, &pages, &mut sample);
            let outcome = outcome.and_then(|outcome| {
                let stored = admin.records(&hot.topic, hot.partitions)?;
                let acknowledged = outcome.total_records;
                ensure!(
                    stored >= acknowledged,
                    "{acknowledged} records were acknowledged and {stored} are there"
                );
                Ok(outcome)
            });
            admin.delete(&hot.topic)?;
            // What was filled, which is what the cold topic holds.
            let total_records = u64::try_from(end * i64::from(cold.partitions))?;
            Ok(Outcome {
                total_records,
                ..outcome?
            })
        })?;
        Ok(sample)
    }
}

/// Whole passes over cold data until they took `span.measured`, after one that is not measured.
fn cold_passes(target: &Target, span: Span, end: i64, pages: &Pages) -> Result<Outcome> {
    pages.write()?;
    let stop = AtomicBool::new(false);
    let pass = || -> Result<_> {
        pages.forget()?;
        let (before, begin) = (target.usage()?, Instant::now());
        let read = catch_up(target, end, CONSUMERS, &stop)?;
        Ok((read, begin.elapsed(), target.usage_since(before)?))
    };
    pass()?;
    let mut outcome = Outcome {
        requests: 0,
        records: 0,
        bytes: 0,
        elapsed: Duration::ZERO,
        latency: histogram()?,
        broker: Usage::default(),
        total_records: 0,
    };
    while outcome.elapsed < span.measured {
        let (read, elapsed, broker) = pass()?;
        outcome.requests += read.requests;
        outcome.records += read.records;
        outcome.bytes += read.records * VALUE_LEN as u64;
        outcome.elapsed += elapsed;
        outcome.broker = outcome.broker.and(broker);
    }
    Ok(outcome)
}

/// Runs `open` on `hot` twice, the second time beside a consumer of `cold`, and puts the figures into `sample`.
fn without_and_with_reader(
    open: Open,
    hot: &Target,
    cold: &Target,
    end: i64,
    pages: &Pages,
    sample: &mut Sample,
) -> Result<Outcome> {
    let alone = open.run(hot, &batches()?)?;
    let stop = AtomicBool::new(false);
    let before = hot.usage()?;
    let (mixed, read) = thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<_> {
            let (mut records, begin) = (0, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                pages.forget()?;
                records += catch_up(cold, end, 1, &stop)?.records;
            }
            Ok((records, begin.elapsed()))
        });
        let mixed = batches().and_then(|batches| open.run(hot, &batches));
        // First of all, or a failure would leave the reader running and this scope waiting.
        stop.store(true, Ordering::Relaxed);
        let read = reader.join().ok().context("the consumer panicked")??;
        anyhow::Ok((mixed?, read))
    })?;
    let bytes = read.0 * VALUE_LEN as u64;
    let from_disk = check_cold(hot.usage_since(before)?.read_bytes, bytes)?;
    sample.extend(factor(&alone.latency, &mixed.latency));
    sample.insert("cold_mb_s", bytes as f64 / 1e6 / read.1.as_secs_f64().max(1e-9));
    sample.insert("disk_read_ratio", from_disk);
    Ok(Outcome {
        total_records: alone.total_records + mixed.total_records,
        ..mixed
    })
}

/// The producer's 99th percentiles and their quotient.
fn factor(alone: &Histogram<u64>, mixed: &Histogram<u64>) -> Sample {
    let p99_us = |latency: &Histogram<u64>| latency.value_at_percentile(99.0) as f64 / 1e3;
    let (alone, mixed) = (p99_us(alone), p99_us(mixed));
    Sample::from([
        ("p99_alone_us", alone),
        ("p99_mixed_us", mixed),
        ("p99_factor", mixed / alone.max(1e-3)),
    ])
}

/// Bytes that a broker read from the disk per byte consumed, if those are enough to call the data cold.
fn check_cold(read_bytes: u64, consumed: u64) -> Result<f64> {
    ensure!(consumed > 0, "nothing was consumed");
    let ratio = read_bytes as f64 / consumed as f64;
    ensure!(
        ratio >= COLD,
        "{consumed} bytes were consumed and only {read_bytes} read from the disk: the file system keeps its pages"
    );
    Ok(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_that_of_the_99th_percentiles() {
        let (mut alone, mut mixed) = (histogram().unwrap(), histogram().unwrap());
        alone.record_n(1_000_000, 98).unwrap();
        alone.record_n(2_000_000, 2).unwrap();
        mixed.record_n(1_000_000, 99).unwrap();
        mixed.record_n(50_000_000, 1).unwrap();
        let round = |sample: &Sample, name: &str| (sample[name] * 100.0).round() / 100.0;
        assert_eq!(round(&factor(&alone, &mixed), "p99_factor"), 0.5);
        mixed.record_n(8_000_000, 100).unwrap();
        assert_eq!(round(&factor(&alone, &mixed), "p99_factor"), 4.0);
    }

    #[test]
    fn data_that_came_from_memory_is_not_cold() {
        assert_eq!(check_cold(900, 1000).unwrap(), 0.9);
        assert!(check_cold(700, 1000).is_err());
        assert!(check_cold(0, 0).is_err());
    }
}
