//! Consumers that read a topic all the while (`clients/python/reader.py`), and what they have read.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::checker::{Found, Id};
use crate::process::{self, Running};
use crate::{tools, wait};

/// Reads a topic by several ways at once, each in a group of its own, until [`Reader::finish`].
#[derive(Debug)]
pub struct Reader {
    process: Running,
    dir: TempDir,
    readers: usize,
}

/// What one consumer has read.
#[derive(Debug, Default)]
pub struct Readings {
    /// Every record, in the order of partitions and offsets. One that was read again, as after a commit that failed, is there
    /// once; if it was another one then, both are.
    pub found: Vec<Found>,
    /// `partition offset` where its position was not there any more. Nobody deletes records here: what was read was taken back.
    pub resets: Vec<String>,
    /// The longest time from a record's timestamp to its being read.
    pub latest: Duration,
}

impl Reader {
    /// A consumer for each of these addresses, each of which has its partitions by then.
    ///
    /// # Errors
    /// One of them gets none within `limit`.
    pub fn start(topic: &str, bootstraps: &[String], limit: Duration) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = tools::python("reader.py")?;
        command.arg(topic).arg(dir.path().join("log")).args(bootstraps);
        let stderr = fs::File::create(dir.path().join("stderr"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
        let mut reader = Self {
            process: Running::start(&mut command)?,
            dir,
            readers: bootstraps.len(),
        };
        let joined = wait::until(format_args!("consumers of {topic}"), limit, || {
            if reader.process.ended()?.is_some() {
                bail!("the consumers ended early");
            }
            let log = reader.log();
            let has_joined = |number| log.lines().any(|line| line == format!("J {number}"));
            Ok((0..reader.readers).all(has_joined))
        });
        joined.with_context(|| reader.complaints())?;
        Ok(reader)
    }

    /// Waits until each of them has read what is there now, and returns it in the order of the addresses.
    ///
    /// # Errors
    /// They do not get to the end.
    pub fn finish(mut self) -> Result<Vec<Readings>> {
        drop(self.process.stdin());
        let status = self
            .process
            .wait(Duration::from_secs(120))
            .with_context(|| self.complaints())?;
        ensure!(
            status.success(),
            "the consumers {}:\n{}",
            process::ending(status),
            self.complaints()
        );
        parse(&self.log(), self.readers)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn complaints(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
        process::tail(&text, 20)
    }
}

/// `R reader partition offset crc writer partition seq`, `X reader partition offset` and `L reader ms`.
fn parse(log: &str, readers: usize) -> Result<Vec<Readings>> {
    let mut all: Vec<Readings> = Vec::new();
    all.resize_with(readers, Readings::default);
    let mut found = vec![BTreeMap::<(i32, i64), Vec<Found>>::new(); readers];
    for line in log.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let reader: usize = words.get(1).context("a line without a reader")?.parse()?;
        match words[..] {
            ["J", _] => {}
            ["X", _, partition, offset] => {
                let resets = &mut all.get_mut(reader).context("an unknown reader")?.resets;
                resets.push(format!("{partition} {offset}"));
            }
            ["L", _, ms] => {
                all.get_mut(reader).context("an unknown reader")?.latest = Duration::from_millis(ms.parse()?);
            }
            ["R", _, partition, offset, crc, writer, of, seq] => {
                let record = Found {
                    id: Id {
                        writer: writer.to_owned(),
                        partition: of.parse()?,
                        seq: seq.parse()?,
                    },
                    partition: partition.parse()?,
                    offset: offset.parse()?,
                    crc: crc.parse()?,
                };
                let known = found.get_mut(reader).context("an unknown reader")?;
                let at = known.entry((record.partition, record.offset)).or_default();
                if !at.contains(&record) {
                    at.push(record);
                }
            }
            _ => bail!("reader log: {line}"),
        }
    }
    for (readings, found) in all.iter_mut().zip(found) {
        readings.found = found.into_values().flatten().collect();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_again_is_there_once_unless_it_is_another() {
        let log = "J 0\nR 0 2 6 11 a 2 1\nR 0 2 5 10 a 2 0\nJ 1\nR 0 2 5 10 a 2 0\nR 0 2 6 12 b 2 0\nR 1 0 0 9 a 0 0\nX 1 2 7\nL 0 1500\n";
        let all = parse(log, 2).unwrap();
        let read: Vec<_> = all[0]
            .found
            .iter()
            .map(|found| (found.offset, found.crc))
            .collect();
        assert_eq!(read, [(5, 10), (6, 11), (6, 12)]);
        assert_eq!(all[0].latest, Duration::from_millis(1500));
        assert_eq!((all[1].found.len(), all[1].latest), (1, Duration::ZERO));
        assert_eq!(
            (&all[0].resets[..], &all[1].resets[..]),
            (&[][..], &["2 7".to_owned()][..])
        );
        assert!(parse("R 0 2 5 10 a", 1).is_err());
        assert!(parse("L 3 1", 1).is_err());
    }
}
