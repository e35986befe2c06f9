//! Data directories of a cluster, written once and kept: every later broker opens them, and finds all that was there.
//!
//! `e2e/golden/README.md` says how they are made.

mod make;
mod newer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use takhin_e2e::kcat::placements;
use takhin_e2e::records::{self, at};
use takhin_e2e::wire::{Connection, Reader};
use takhin_e2e::{Broker, Cluster, process, tools, wait};

use crate::crash::LIMIT;
use crate::suite::{Context, Suites};

/// What is in an archive beside the data directories.
const OBSERVED: &str = "observed.json";
const IDEMPOTENT: &str = "golden-idempotent";
const COMPACTED: &str = "golden-compacted";
/// Codecs in the order of their numbers in a batch, and in the names of topics.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("golden::old_data_directories_open", old_directories_open);
    suites.add_takhin("golden::newer_formats_are_refused", newer::refused);
    if std::env::var_os(make::NAME).is_some() {
        suites.add_takhin("golden::make", make::archive);
    }
}

/// All that clients can see of a golden cluster.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Observed {
    /// What `clients/python/golden.py observe` prints: the cluster's id, configurations, offsets of groups, records.
    clients: Value,
    /// Replicas of each partition of the topics.
    replicas: BTreeMap<String, Vec<Vec<i32>>>,
    /// CRC-32C of everything that a fetch of a partition returns, and the codecs of the batches in it. Not of a compacted
    /// one: each replica compacts for itself, and cuts what is left into batches as it comes.
    batches: BTreeMap<String, (u64, Vec<u8>)>,
}

impl Observed {
    fn of(cluster: &Cluster) -> Result<Self> {
        let bootstrap = cluster.bootstrap();
        let clients: Value = serde_json::from_str(&golden(&["observe", &bootstrap])?)?;
        let records = clients["records"].as_object().context("no records")?;
        let (mut replicas, mut batches) = (BTreeMap::new(), BTreeMap::new());
        for place in records.keys() {
            let (topic, partition) = place.rsplit_once('-').context("not a partition")?;
            if topic != COMPACTED {
                let fetched = fetch(cluster, topic, partition.parse()?)?;
                let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &fetched);
                batches.insert(place.clone(), (crc, records::codecs(&fetched)?));
            }
            let placed = placements(&bootstrap, topic)?;
            replicas.insert(
                topic.to_owned(),
                placed.into_iter().map(|placement| placement.replicas).collect(),
            );
        }
        let observed = Self {
            clients,
            replicas,
            batches,
        };
        observed.holds_everything()?;
        Ok(observed)
    }

    /// An observation that sees too little would equal any other that does.
    fn holds_everything(&self) -> Result<()> {
        for (number, codec) in (0..).zip(CODECS) {
            let (_, codecs) = &self.batches[&format!("golden-{codec}-0")];
            ensure!(
                codecs.len() > 1 && codecs.iter().all(|found| *found == number),
                "codecs of golden-{codec}: {codecs:?}"
            );
        }
        for part in ["configs", "offsets", "records"] {
            let entries = self.clients[part].as_object().map_or(0, serde_json::Map::len);
            ensure!(entries > 1, "{part}: {entries} entries");
        }
        Ok(())
    }

    /// The records of each partition as `golden.py` shows them: offset, timestamp, key, value, headers.
    fn records(&self) -> impl Iterator<Item = (&String, &Vec<Value>)> {
        let all = self.clients["records"].as_object().into_iter().flatten();
        all.filter_map(|(place, records)| Some((place, records.as_array()?)))
    }
}

/// Every archive opens, on other addresses than it was written with.
fn old_directories_open(_: &Context) -> Result<()> {
    let archives = archives()?;
    ensure!(!archives.is_empty(), "no archive in e2e/golden");
    for archive in archives {
        opens(&archive).with_context(|| archive.display().to_string())?;
    }
    Ok(())
}

fn opens(archive: &Path) -> Result<()> {
    let dir = unpack(archive)?;
    let expected: Observed = serde_json::from_slice(&fs::read(dir.path().join(OBSERVED))?)?;
    let cluster = Cluster::start_with(3, usize::MAX, |id, broker| prepare(dir.path(), id, broker))?;
    let found = Observed::of(&cluster)?;
    same(&expected, &found)?;
    producer_goes_on(&cluster)?;
    let before = Observed::of(&cluster)?;
    golden(&["write", &cluster.bootstrap()])?;
    goes_on_from_the_end(&before, &Observed::of(&cluster)?)
}

/// Names what differs first: the whole is too much to read.
fn same(expected: &Observed, found: &Observed) -> Result<()> {
    let parts = expected.clients.as_object().context("no object")?;
    for (part, value) in parts {
        for (key, value) in value.as_object().into_iter().flatten() {
            let other = &found.clients[part][key];
            ensure!(other == value, "{part} of {key}: wanted {value}, found {other}");
        }
    }
    for (place, batches) in &expected.batches {
        let other = found.batches.get(place);
        ensure!(
            other == Some(batches),
            "{place}: wanted {batches:?}, found {other:?}"
        );
    }
    ensure!(
        expected.replicas == found.replicas,
        "wanted {:?}, found {:?}",
        expected.replicas,
        found.replicas
    );
    ensure!(expected == found, "there is more than there was");
    Ok(())
}

/// The producer of the last batch, which nobody has heard of since the directories were written: what it sends again is
/// known, what leaves a gap is refused, and what is next gets the next offset.
fn producer_goes_on(cluster: &Cluster) -> Result<()> {
    let fetched = fetch(cluster, IDEMPOTENT, 0)?;
    let last = *records::batches(&fetched)?.last().context("no batch")?;
    let base_offset = Reader(last).i64()?;
    let count = Reader(&last[at::RECORDS_COUNT..]).i32()?;
    let sequence = Reader(&last[at::BASE_SEQUENCE..]).i32()?;
    let next = |skipped: i32| {
        let mut producer = last[at::PRODUCER_ID..at::BASE_SEQUENCE].to_vec();
        producer.extend((sequence + count + skipped).to_be_bytes());
        let batch = records::batch(&[b"goes on"], 1_700_000_100_000)?;
        anyhow::Ok(records::forge(batch, at::PRODUCER_ID, &producer))
    };
    let mut again = last.to_vec();
    again[..at::BATCH_LENGTH].fill(0);
    let end = base_offset + i64::from(count);
    let mut connection = Connection::open(leader(cluster, IDEMPOTENT, 0)?.address())?;
    for (batch, expected) in [
        (again, (0, base_offset)),
        (next(1)?, (OUT_OF_ORDER_SEQUENCE_NUMBER, -1)),
        (next(0)?, (0, end)),
    ] {
        let answer = connection.produce(IDEMPOTENT, 0, &batch)?;
        ensure!(answer == expected, "wanted {expected:?}, answered {answer:?}");
    }
    Ok(())
}

/// What was there is still there, and what was written since follows it without a gap, from producers with ids of their
/// own.
fn goes_on_from_the_end(before: &Observed, after: &Observed) -> Result<()> {
    let mut more = 0;
    for ((place, before), (other, after)) in before.records().zip(after.records()) {
        ensure!(place == other, "{place} and {other}");
        ensure!(
            after.starts_with(before),
            "{place}: what was there is not there any more"
        );
        let offset = |record: Option<&Value>| record.and_then(|record| record[0].as_i64());
        let end = offset(before.last()).context("an empty partition")?;
        for (expected, record) in (end + 1..).zip(&after[before.len()..]) {
            ensure!(offset(Some(record)) == Some(expected), "{place}: {record}");
            more += 1;
        }
    }
    // 20 for each of the topics that `golden.py write` writes to.
    ensure!(more == 20 * (CODECS.len() + 1), "{more} new records");
    Ok(())
}

/// All that a partition holds, as it is stored.
fn fetch(cluster: &Cluster, topic: &str, partition: i32) -> Result<Vec<u8>> {
    let mut connection = Connection::open(leader(cluster, topic, partition)?.address())?;
    let (error, _, fetched) = connection.fetch(topic, partition, 0, 4 << 20)?;
    ensure!(error == 0, "fetch of {topic}-{partition}: error {error}");
    Ok(fetched)
}

fn leader<'a>(cluster: &'a Cluster, topic: &str, partition: i32) -> Result<&'a Broker> {
    let bootstrap = cluster.bootstrap();
    let index = usize::try_from(partition)?;
    wait::value(format_args!("a leader of {topic}-{partition}"), LIMIT, || {
        let leader = placements(&bootstrap, topic)?[index].leader;
        let id = u32::try_from(leader).ok();
        Ok(id.and_then(|id| cluster.brokers.iter().find(|broker| broker.node_id() == id)))
    })
}

/// Has a broker use its directory of an archive, and keep what would be thrown away because it is old.
fn prepare(dir: &Path, id: u32, broker: &mut Broker) {
    broker.move_to(&dir.join(format!("broker-{id}")));
    broker.set("node.rack", &format!("rack-{id}"));
    broker.set("kafka.groups.offsets_topic_partitions", "4");
    broker.set("kafka.groups.offsets_retention", "36500d");
    broker.set("storage.producer_expiration", "36500d");
}

/// Runs `clients/python/golden.py`; what it prints.
fn golden(words: &[&str]) -> Result<String> {
    let mut command = tools::python("golden.py")?;
    Ok(process::run(command.args(words), Duration::from_secs(120))?.text())
}

fn home() -> Result<PathBuf> {
    Ok(tools::checkout()?.join("e2e/golden"))
}

/// The archives, the oldest first.
fn archives() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(home()?)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn unpack(archive: &Path) -> Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("takhin-golden-").tempdir()?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(archive).arg("-C").arg(dir.path());
    process::run(&mut tar, LIMIT)?;
    Ok(dir)
}
