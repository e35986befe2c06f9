//! Real input: Debian's package list, tens of thousands of texts from a hundred bytes to many kilobytes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::{Broker, kcat, process, tools, wait};

use crate::suite::{Context, Suites, create_topic};

const LIMIT: Duration = Duration::from_secs(180);
/// A list shorter than this is no real input.
const STANZAS_MIN: usize = 10_000;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("packages::the_package_list_survives_per_key", package_list);
    suites.add_takhin("packages::compaction_keeps_the_last_of_each_package", compacted);
}

/// Values of each key, in order.
type ByKey = HashMap<Vec<u8>, Vec<Vec<u8>>>;

/// The list in a file, and what is expected of it.
struct Packages {
    _dir: tempfile::TempDir,
    path: PathBuf,
    bytes: usize,
    by_key: ByKey,
    count: usize,
}

impl Packages {
    fn read() -> Result<Self> {
        let dump = process::run(Command::new("apt-cache").arg("dumpavail"), LIMIT)?.stdout;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("dump");
        std::fs::write(&path, &dump)?;
        let by_key = by_package(&dump)?;
        let count: usize = by_key.values().map(Vec::len).sum();
        ensure!(
            count >= STANZAS_MIN,
            "only {count} packages: apt-get update, or run e2e/setup/install.sh"
        );
        let bytes = dump.len();
        Ok(Self {
            _dir: dir,
            path,
            bytes,
            by_key,
            count,
        })
    }

    fn produce(&self, bootstrap: &str, topic: &str) -> Result<()> {
        let mut producer = tools::python("packages.py")?;
        process::run(producer.args([bootstrap, topic]).arg(&self.path), LIMIT)?;
        Ok(())
    }
}

fn package_list(context: &Context) -> Result<()> {
    let packages = Packages::read()?;
    let (mut expected, count) = (packages.by_key.clone(), packages.count);
    context.with_shared(|broker| {
        let bootstrap = broker.bootstrap();
        create_topic(broker, "packages", 4, &[])?;
        packages.produce(&bootstrap, "packages")?;

        let read = kcat::consume(&bootstrap, "packages", None, "beginning")?;
        ensure!(read.len() == count, "{} of {count} records", read.len());
        let mut partitions = HashMap::new();
        let mut found = ByKey::new();
        for record in read {
            let key = record.key.context("a record without its key")?;
            let home = *partitions.entry(key.clone()).or_insert(record.partition);
            ensure!(
                home == record.partition,
                "{} is in two partitions",
                String::from_utf8_lossy(&key)
            );
            found
                .entry(key)
                .or_default()
                .push(record.value.context("a record without its value")?);
        }
        for (key, values) in found {
            let written = expected.remove(&key);
            ensure!(
                written.as_ref() == Some(&values),
                "{} differs",
                String::from_utf8_lossy(&key)
            );
        }
        ensure!(expected.is_empty(), "{} packages are missing", expected.len());
        eprintln!("        {count} stanzas, {} MiB", packages.bytes >> 20);
        Ok(())
    })
}

/// The list is written three times over while the cleaner runs. What is left holds the last value of every package, in
/// order, and much less than was written; so it does after a kill.
fn compacted(context: &Context) -> Result<()> {
    let packages = Packages::read()?;
    let mut broker = Broker::new(context.kind)?;
    broker.set("storage.cleaner_interval", "100ms").start()?;
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    create_topic(&broker, "compacted", 2, &configs)?;
    let bootstrap = broker.bootstrap();
    for _ in 0..3 {
        packages.produce(&bootstrap, "compacted")?;
    }
    let mut left = 0;
    wait::until("most of what was written to be compacted", LIMIT, || {
        left = check_compacted(&packages, &bootstrap)?;
        Ok(left < packages.count * 3 / 2)
    })?;
    broker.kill();
    broker.start()?;
    check_compacted(&packages, &broker.bootstrap())?;
    eprintln!("        {left} of {} records left", packages.count * 3);
    Ok(())
}

/// Returns how many records are left.
fn check_compacted(packages: &Packages, bootstrap: &str) -> Result<usize> {
    let read = kcat::consume(bootstrap, "compacted", None, "beginning")?;
    let left = read.len();
    let mut last = HashMap::new();
    let mut offsets = HashMap::new();
    for record in read {
        let before = offsets.insert(record.partition, record.offset);
        ensure!(
            before < Some(record.offset),
            "offset {} comes late",
            record.offset
        );
        last.insert(record.key.context("a record without its key")?, record.value);
    }
    ensure!(last.len() == packages.by_key.len(), "{} packages", last.len());
    for (key, values) in &packages.by_key {
        let name = || String::from_utf8_lossy(key).into_owned();
        let kept = last.get(key).with_context(name)?;
        ensure!(kept.as_ref() == values.last(), "{} is not the last", name());
    }
    Ok(left)
}

/// The stanzas by package name, cut at empty lines. The list is not sorted, and a name may come more than once.
fn by_package(dump: &[u8]) -> Result<ByKey> {
    let text = std::str::from_utf8(dump).context("the package list is not UTF-8")?;
    let mut packages = ByKey::new();
    for stanza in text.split("\n\n").filter(|s| !s.trim().is_empty()) {
        let name = stanza
            .lines()
            .find_map(|l| l.strip_prefix("Package: "))
            .context("a stanza without name")?;
        packages.entry(name.into()).or_default().push(stanza.into());
    }
    Ok(packages)
}
