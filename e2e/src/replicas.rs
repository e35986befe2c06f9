//! Whether the replicas of each partition are the same, byte for byte, by `takhin dump-log` of every data directory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::broker::takhin_binary;
use crate::{Broker, process, wait};

/// Longest run of the program for one broker.
const DUMP: Duration = Duration::from_secs(120);

/// What tells one entry of a log from every other: term, base and last offset, length, and the checksum of all that follows
/// them in a batch.
type Entry = (i64, i64, i64, u64, u64);

/// What one data directory has of a partition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Replica {
    /// By Raft index.
    entries: BTreeMap<u64, Entry>,
    /// Up to here (exclusive) it was compacted, which each replica does by itself.
    cleaned_to: u64,
}

/// Waits until all replicas of every partition of which `replicas` brokers or more have some are the same. Returns how many
/// entries were compared. To be called when nobody writes, and all replicas are in sync.
///
/// # Errors
/// The first difference, if there is one still after `limit`, or if a log is damaged.
pub fn wait_identical(brokers: &[Broker], replicas: usize, limit: Duration) -> Result<usize> {
    let mut last = String::new();
    let same = wait::value("replicas to be the same", limit, || {
        let dumped: Result<Vec<_>> = brokers.iter().map(|broker| dump(broker.data_dir())).collect();
        // A batch that is being written is cut short.
        match dumped.and_then(|dumped| compare(&dumped, replicas)) {
            Ok(compared) => Ok(Some(compared)),
            Err(error) => {
                last = format!("{error:#}");
                Ok(None)
            }
        }
    });
    same.with_context(|| last)
}

/// Everything in a data directory, by the names of the partitions' directories.
fn dump(data: &Path) -> Result<BTreeMap<String, Replica>> {
    let mut command = Command::new(takhin_binary()?);
    command.args(["dump-log", "--json"]);
    let partitions = data.join("partitions");
    for directory in partitions.read_dir().context(partitions.display().to_string())? {
        command.arg(directory?.path());
    }
    let text = process::run(&mut command, DUMP)?.text();
    let mut found: BTreeMap<String, Replica> = BTreeMap::new();
    let mut replica = &mut Replica::default();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        match line["type"].as_str() {
            Some("segment") => {
                let path = Path::new(line["path"].as_str().context("no path")?);
                let name = path.parent().and_then(Path::file_name).context("no directory")?;
                replica = found.entry(name.to_string_lossy().into_owned()).or_default();
                let cleaned_to = line["cleaned_to_index"].as_u64().unwrap_or(0);
                replica.cleaned_to = replica.cleaned_to.max(cleaned_to);
            }
            Some("batch") if line["crc_ok"] == true => {
                let (index, entry) = entry(&line).with_context(|| line.to_string())?;
                replica.entries.insert(index, entry);
            }
            _ => bail!("{}: {line}", data.display()),
        }
    }
    Ok(found)
}

fn entry(line: &Value) -> Option<(u64, Entry)> {
    let number = |name: &str| line[name].as_i64();
    let of_size = |name: &str| line[name].as_u64();
    let entry = (
        number("term")?,
        number("base_offset")?,
        number("last_offset")?,
        of_size("bytes")?,
        of_size("crc")?,
    );
    Some((of_size("raft_index")?, entry))
}

/// How many entries were compared: from where no replica has deleted or compacted any, to the end.
fn compare(dumped: &[BTreeMap<String, Replica>], replicas: usize) -> Result<usize> {
    let mut by_partition: BTreeMap<&str, Vec<&Replica>> = BTreeMap::new();
    for (name, replica) in dumped.iter().flatten() {
        by_partition.entry(name).or_default().push(replica);
    }
    let mut compared = 0;
    for (name, all) in by_partition.iter().filter(|(_, all)| all.len() >= replicas) {
        // One that was moved away, and is not deleted yet, ends earlier.
        let end = |replica: &Replica| replica.entries.last_key_value().map(|(index, _)| *index);
        let last = all.iter().filter_map(|replica| end(replica)).max();
        let current: Vec<_> = all.iter().filter(|replica| end(replica) == last).collect();
        ensure!(
            current.len() >= replicas,
            "{name}: {} of {} replicas end at index {last:?}",
            current.len(),
            all.len()
        );
        let begin = |replica: &Replica| {
            let first = replica.entries.first_key_value().map_or(0, |(index, _)| *index);
            first.max(replica.cleaned_to)
        };
        let first = current.iter().map(|replica| begin(replica)).max().unwrap_or(0);
        let range = (Bound::Included(first), Bound::Unbounded);
        let (one, others) = current.split_first().context("no replica")?;
        for other in others {
            let differs = one
                .entries
                .range(range)
                .zip(other.entries.range(range))
                .find(|(a, b)| a != b);
            ensure!(differs.is_none(), "{name}: {differs:?}");
            let counts = [one, other].map(|replica| replica.entries.range(range).count());
            ensure!(
                counts[0] == counts[1],
                "{name}: {counts:?} entries from index {first} on"
            );
        }
        compared += one.entries.range(range).count();
    }
    ensure!(compared > 0, "there is nothing to compare");
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(entries: &[(u64, u64)]) -> BTreeMap<String, Replica> {
        let entries = entries.iter().map(|(index, crc)| (*index, (1, 0, 0, 10, *crc)));
        let replica = Replica {
            entries: entries.collect(),
            cleaned_to: 0,
        };
        BTreeMap::from([("t-0".to_owned(), replica)])
    }

    #[test]
    fn every_difference_is_found() {
        let all = [(1, 1), (2, 2), (3, 3)];
        // One has deleted its first entry, and one was moved away before the last one was written.
        let same = [
            replica(&all),
            replica(&all),
            replica(&all[1..]),
            replica(&all[..2]),
        ];
        assert_eq!(compare(&same, 3).unwrap(), 2);
        for other in [&[(1, 1), (2, 9), (3, 3)][..], &[(1, 1), (3, 3)], &all[..2], &[]] {
            assert!(
                compare(&[replica(&all), replica(&all), replica(other)], 3).is_err(),
                "{other:?}"
            );
        }
        assert!(
            compare(&[replica(&all), replica(&all)], 3).is_err(),
            "nothing to compare"
        );
    }

    #[test]
    fn what_was_compacted_is_left_out() {
        let mut cleaned = replica(&[(3, 3), (4, 4)]);
        cleaned.get_mut("t-0").unwrap().cleaned_to = 4;
        let whole = replica(&[(1, 1), (2, 2), (3, 3), (4, 4)]);
        assert_eq!(compare(&[cleaned, whole], 2).unwrap(), 1);
    }
}
