//! What the program's producer can do with the same records when nobody has to make them.

use anyhow::{Context as _, Result};
use std::process::Command;

use takhin_e2e::{Broker, process, tools};

use crate::{Args, LIMIT};

/// What writes them: the producer has its room, which is not here.
const WRITER: (&str, &str, &str) = (
    "TAKHIN_WRITE_AGAIN_BIN",
    "examples/write-again",
    "cargo build --release -p takhin-cdc --example write-again",
);

/// Writes the records of the part before this one again; `rate` is what the program did.
pub(crate) fn measure(args: &Args, broker: &Broker, rate: f64) -> Result<()> {
    let (variable, program, make) = WRITER;
    let mut command = Command::new(tools::built(variable, program, make)?);
    command
        .arg(broker.bootstrap())
        .args(["pika.changes.binlog", "again", &args.items.to_string()]);
    let output = process::run(&mut command, LIMIT)?;
    let alone: f64 = output.text().trim().parse().context("no rate")?;
    println!(
        "the producer alone: {alone:.0} records/s; changes are {:.2} of that",
        rate / alone
    );
    Ok(())
}
