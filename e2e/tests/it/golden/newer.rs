//! Data directories of a later release: refused in one line that says what to do, and left as they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::records::{self, at};
use takhin_e2e::{Broker, Kind};

use super::{archives, prepare, unpack};
use crate::crash::LIMIT;
use crate::suite::{Context, create_topic};

/// A version that no format will reach soon.
const NEWER: u8 = 99;
const METADATA: &str = "00000000-0000-0000-0000-000000000001-0";
/// Where a framed file has its checksum, and its body.
const CHECKSUM: usize = 12;
const BODY: usize = 16;

pub(super) fn refused(_: &Context) -> Result<()> {
    let newest = archives()?.pop().context("no archive in e2e/golden")?;
    for (file, raise) in [
        ("node.meta", raise_frame as fn(&mut [u8])),
        ("journal", raise_version),
        ("state", raise_frame),
    ] {
        let dir = unpack(&newest)?;
        let mut broker = Broker::new(Kind::Takhin)?;
        prepare(dir.path(), 1, &mut broker);
        let mut path = broker.data_dir().join(file);
        if !path.exists() {
            path = some_partition(&broker)?.join(file);
        }
        let mut content = fs::read(&path)?;
        raise(&mut content);
        fs::write(&path, content)?;
        let before = files(broker.data_dir())?;
        let said = [path.to_string_lossy().into_owned(), format!("version {NEWER}")];
        refuses(&mut broker, &said).context(file)?;
        ensure!(files(broker.data_dir())? == before, "{file}: files have changed");
    }
    records_in_the_metadata_log()
}

/// What is replicated is read once it is committed: a broker alone commits all it has.
fn records_in_the_metadata_log() -> Result<()> {
    for (name, said) in [
        ("metadata record", "metadata record of version 9"),
        ("hidden entry", "version 99"),
    ] {
        let mut broker = Broker::new(Kind::Takhin)?;
        broker.start()?;
        create_topic(&broker, "first", 1, &[])?;
        broker.stop()?;
        let path = only_segment(&broker.data_dir().join("partitions").join(METADATA))?;
        let raised = raise_last(&fs::read(&path)?, name == "hidden entry").context(name)?;
        fs::write(&path, raised)?;
        refuses(&mut broker, &["metadata".to_owned(), said.to_owned()]).context(name)?;
    }
    Ok(())
}

/// Starts the broker: it ends with code 1, and its last line says why and what to do.
fn refuses(broker: &mut Broker, said: &[String]) -> Result<()> {
    broker.start_process()?;
    let status = broker.wait_end(LIMIT)?;
    let log = broker.log_tail();
    let last = log.lines().last().unwrap_or_default();
    ensure!(status.code() == Some(1), "it ended with {status}: {log}");
    let remedy = [
        "newest that this release knows",
        "start the release that wrote it",
    ];
    let is_said = said.iter().map(String::as_str).chain(remedy);
    for words in is_said.chain(["takhin: "]) {
        ensure!(last.contains(words), "no {words:?} in its last line: {last}");
    }
    Ok(())
}

/// As a framed file says its version; the checksum fits.
fn raise_frame(content: &mut [u8]) {
    raise_version(content);
    let covered = [&content[..CHECKSUM], &content[BODY..]].concat();
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &covered);
    content[CHECKSUM..BODY].copy_from_slice(&crc.to_be_bytes()[4..]);
}

/// Behind the four bytes that say what the file is.
fn raise_version(content: &mut [u8]) {
    content[4..6].copy_from_slice(&[0, NEWER]);
}

/// Raises the version in the last batch of the replication layer itself, or in the last of records.
fn raise_last(segment: &[u8], is_hidden: bool) -> Result<Vec<u8>> {
    let mut batches: Vec<Vec<u8>> = records::batches(segment)?
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
    let version = |batch: &[u8]| match is_hidden {
        // It has no record: kind and version follow the header.
        true => (batch[at::RECORDS_COUNT..at::RECORDS] == [0; 4]).then_some((at::RECORDS + 1, vec![NEWER])),
        // JSON, where one more digit would change the lengths around it.
        false => {
            let begin = br#"{"v":"#;
            let found = batch.windows(begin.len()).position(|bytes| bytes == begin)?;
            Some((found + begin.len(), b"9".to_vec()))
        }
    };
    let last = batches.iter_mut().rev().find_map(|batch| {
        let (position, bytes) = version(batch)?;
        Some((batch, position, bytes))
    });
    let (batch, position, bytes) = last.context("no such batch")?;
    *batch = records::forge(std::mem::take(batch), position, &bytes);
    Ok(batches.concat())
}

/// The directory of some partition of some topic.
fn some_partition(broker: &Broker) -> Result<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(broker.data_dir().join("partitions"))? {
        all.push(entry?.path());
    }
    all.retain(|path| !path.ends_with(METADATA));
    all.into_iter().max().context("no partition")
}

fn only_segment(dir: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
    let segment = found.pop().context("no segment")?;
    ensure!(found.is_empty(), "more than one segment");
    Ok(segment)
}

/// Every file below `dir` with its content, but for the lock, in which nothing is.
fn files(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if !path.ends_with("lock") {
                all.insert(path.clone(), fs::read(&path)?);
            }
        }
    }
    Ok(all)
}
