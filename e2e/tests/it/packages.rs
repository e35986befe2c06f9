//! Real input: Debian's package list, tens of thousands of texts from a hundred bytes to many kilobytes.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::{kcat, process, tools};

use crate::suite::{Context, Suites, create_topic};

const LIMIT: Duration = Duration::from_secs(180);
/// A list shorter than this is no real input.
const STANZAS_MIN: usize = 10_000;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("packages::the_package_list_survives_per_key", package_list);
}

/// Values of each key, in order.
type ByKey = HashMap<Vec<u8>, Vec<Vec<u8>>>;

fn package_list(context: &Context) -> Result<()> {
    let dump = process::run(Command::new("apt-cache").arg("dumpavail"), LIMIT)?.stdout;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("dump");
    std::fs::write(&path, &dump)?;
    let mut expected = by_package(&dump)?;
    let count: usize = expected.values().map(Vec::len).sum();
    ensure!(
        count >= STANZAS_MIN,
        "only {count} packages: apt-get update, or run e2e/setup/install.sh"
    );

    context.with_shared(|broker| {
        let bootstrap = broker.bootstrap();
        create_topic(broker, "packages", 4, &[])?;
        process::run(
            tools::python("packages.py")?
                .args([&bootstrap, "packages"])
                .arg(&path),
            LIMIT,
        )?;

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
        eprintln!("        {count} stanzas, {} MiB", dump.len() >> 20);
        Ok(())
    })
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
