//! The data set, from the first key to the last.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use takhin_e2e::{Broker, process, tools, wait};

use crate::usage::{Usage, peak_mib};
use crate::{Args, LIMIT};

/// What writes the dump: RocksDB has one room, which is not here.
const WRITER: (&str, &str, &str) = (
    "TAKHIN_WRITE_DUMP_BIN",
    "examples/write-dump",
    "cargo build --release -p takhin-pika-dump --example write-dump",
);

/// Whether a master of this version pushes its dump, rather than to offer it.
fn is_pushing(version: &str) -> bool {
    let offers = ["3.5.", "4."];
    !offers.iter().any(|begin| version.starts_with(begin))
}

pub(crate) fn measure(args: &Args, broker: &Broker) -> Result<()> {
    let dump = tempfile::tempdir()?;
    let (variable, program, make) = WRITER;
    let mut command = Command::new(tools::built(variable, program, make)?);
    command
        .arg(dump.path())
        .args([&args.keys.to_string(), &args.version]);
    process::run(&mut command, LIMIT)?;
    let master = args.master()?;
    match is_pushing(&args.version) {
        true => drop(master.push(|push| push.dumps.insert("db0".into(), dump.path().into()))),
        false => master.dump("db0", dump.path())?,
    }
    let mut cdc = args.cdc("data-set", &master, broker)?;
    cdc.start()?;
    let keys = || cdc.metric("takhin_cdc_snapshot_keys_total{db=\"db0\"}");
    wait::until("the first key", LIMIT, || Ok(keys().unwrap_or(0.0) > 0.0)).with_context(|| cdc.tail())?;
    // What was read until this look is not counted.
    let (begin, before) = (Instant::now(), keys()?);
    let usage = Usage::begin(cdc.pid()?, broker.pid()?)?;
    // The position is noted when all of it is acknowledged.
    wait::until("the data set is acknowledged", LIMIT, || {
        Ok(cdc.saved("db0").is_some())
    })
    .with_context(|| cdc.tail())?;
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52")]
    let counted = args.keys as f64 - before;
    println!(
        "data set: {:.0} keys/s; {}; at most {} MiB resident",
        counted / begin.elapsed().as_secs_f64(),
        usage.end(counted)?,
        peak_mib(cdc.pid()?)?
    );
    Ok(())
}
