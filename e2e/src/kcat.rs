//! Reading with Debian's kcat (librdkafka 2.0.2), every byte.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{process, tools};

/// A record as kcat saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Key, or null.
    pub key: Option<Vec<u8>>,
    /// Value, or null.
    pub value: Option<Vec<u8>>,
}

/// Everything in a topic from `from` (what `-o` takes) to the end, each partition in order of offset.
///
/// `partition` limits it to one.
pub fn consume(bootstrap: &str, topic: &str, partition: Option<i32>, from: &str) -> Result<Vec<Record>> {
    consume_with(bootstrap, topic, partition, from, &[])
}

/// Everything that is in a topic, of transactions that are open or were aborted too.
pub fn consume_uncommitted(bootstrap: &str, topic: &str) -> Result<Vec<Record>> {
    let words = ["-X", "isolation.level=read_uncommitted"];
    consume_with(bootstrap, topic, None, "beginning", &words)
}

fn consume_with(
    bootstrap: &str,
    topic: &str,
    partition: Option<i32>,
    from: &str,
    words: &[&str],
) -> Result<Vec<Record>> {
    let mut command = tools::kcat();
    command.args(words);
    command.args([
        "-C",
        "-b",
        bootstrap,
        "-t",
        topic,
        "-o",
        from,
        "-e",
        "-q",
        "-f",
        "%p %o %T %K %S %k%s\n",
    ]);
    if let Some(partition) = partition {
        command.arg("-p").arg(partition.to_string());
    }
    let output = process::run(&mut command, Duration::from_secs(120))?;
    // kcat ends with 0 even when a partition failed; it says so on standard error only.
    ensure!(
        !output.stderr.contains("ERROR"),
        "kcat: {}",
        process::tail(&output.stderr, 10)
    );
    parse(&output.stdout)
}

/// A partition as `kcat -L` shows it.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Leader; -1 if there is none.
    pub leader: i32,
    /// Replicas, the preferred one first.
    pub replicas: Vec<i32>,
    /// How many of them are in sync.
    pub in_sync: usize,
}

/// The partitions of a topic in order, from lines such as `partition 0, leader 1, replicas: 1,2,3, isrs: 2,3`.
///
/// # Errors
/// Also when there is no such topic.
pub fn placements(bootstrap: &str, topic: &str) -> Result<Vec<Placement>> {
    parse_placements(&list(bootstrap, Some(topic))?)
}

/// The partitions of all topics.
pub fn every_placement(bootstrap: &str) -> Result<Vec<Placement>> {
    parse_placements(&list(bootstrap, None)?)
}

fn parse_placements(listed: &str) -> Result<Vec<Placement>> {
    let mut found = Vec::new();
    for line in listed.lines().filter(|line| line.contains("replicas:")) {
        let part = |from: &str, to: &str| {
            let rest = line.split(from).nth(1).unwrap_or_default();
            rest.split(to).next().unwrap_or_default().trim().to_owned()
        };
        let replicas: Result<Vec<i32>, _> = part("replicas: ", ", isrs").split(',').map(str::parse).collect();
        found.push(Placement {
            leader: part("leader ", ",").parse()?,
            replicas: replicas?,
            in_sync: part("isrs: ", ", Broker").split(',').count(),
        });
    }
    ensure!(!found.is_empty(), "no partition in: {listed}");
    Ok(found)
}

/// The addresses of all brokers, from lines such as `broker 2 at 127.0.0.1:9092 (controller)`.
pub fn brokers(bootstrap: &str) -> Result<Vec<String>> {
    let listed = list(bootstrap, None)?;
    let brokers = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("broker "));
    let address = |line: &str| line.split(' ').nth(2).map(str::to_owned);
    Ok(brokers.filter_map(address).collect())
}

/// The id of the controller, if there is one, from a line such as `broker 2 at 127.0.0.1:9092 (controller)`.
pub fn controller(bootstrap: &str) -> Result<Option<i32>> {
    let listed = list(bootstrap, None)?;
    let line = listed.lines().find(|line| line.contains("(controller)"));
    let id = line.and_then(|line| line.trim().strip_prefix("broker ")?.split(' ').next());
    Ok(id.map(str::parse).transpose()?)
}

fn list(bootstrap: &str, topic: Option<&str>) -> Result<String> {
    let mut list = tools::kcat();
    list.args(["-L", "-b", bootstrap]);
    if let Some(topic) = topic {
        list.args(["-t", topic]);
    }
    Ok(process::run(&mut list, Duration::from_secs(60))?.text())
}

/// Parses what [`consume`] has it print. Keys and values hold any byte: their lengths say where they end.
fn parse(mut rest: &[u8]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while !rest.is_empty() {
        let partition = i32::try_from(number(&mut rest)?)?;
        let (offset, timestamp) = (number(&mut rest)?, number(&mut rest)?);
        let (key_len, value_len) = (number(&mut rest)?, number(&mut rest)?);
        let key = bytes(&mut rest, key_len)?;
        let value = bytes(&mut rest, value_len)?;
        rest = rest
            .strip_prefix(b"\n")
            .context("kcat: a record without an end")?;
        records.push(Record {
            partition,
            offset,
            timestamp,
            key,
            value,
        });
    }
    Ok(records)
}

fn number(rest: &mut &[u8]) -> Result<i64> {
    let end = rest
        .iter()
        .position(|&b| b == b' ')
        .context("kcat: a number without an end")?;
    let value = std::str::from_utf8(&rest[..end])?.parse()?;
    *rest = &rest[end + 1..];
    Ok(value)
}

/// `len` bytes; null for -1.
fn bytes(rest: &mut &[u8], len: i64) -> Result<Option<Vec<u8>>> {
    let Ok(len) = usize::try_from(len) else {
        return Ok(None);
    };
    let (head, tail) = rest.split_at_checked(len).context("kcat: a record cut short")?;
    *rest = tail;
    Ok(Some(head.to_vec()))
}
