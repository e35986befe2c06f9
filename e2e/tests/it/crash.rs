//! kill -9 under an idempotent producer: no acknowledged record may be lost, doubled, moved or reordered.

use std::time::Duration;

use anyhow::{Result, ensure};
use takhin_e2e::checker::Report;
use takhin_e2e::rng::Rng;
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Broker, Kind};

use crate::suite::{Context, Suites, create_topic};

const TOPIC: &str = "crash";
pub(crate) const PARTITIONS: i32 = 3;
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn add(suites: &mut Suites) {
    suites.add("crash::kill_9_loses_and_doubles_nothing", kill_loop);
    suites.add("crash::an_orderly_stop_loses_nothing", orderly_stop);
}

/// Kills per run: Apache Kafka takes seconds to start.
fn kills(kind: Kind) -> u64 {
    match kind {
        Kind::Kafka => 4,
        Kind::Takhin => 15,
    }
}

fn kill_loop(context: &Context) -> Result<()> {
    let mut rng = Rng::from_env("crash");
    let mut broker = Broker::new(context.kind)?;
    broker.start()?;
    create_topic(&broker, TOPIC, PARTITIONS, &[])?;
    load_under_faults(&mut broker, TOPIC, &mut rng, kills(context.kind), |broker| {
        broker.kill();
        broker.start()
    })
}

/// Writes to a topic of [`PARTITIONS`] partitions without a pause, calls `fault` at `times` random moments of that
/// load, and judges what is there in the end.
pub(crate) fn load_under_faults(
    broker: &mut Broker,
    topic: &str,
    rng: &mut Rng,
    times: u64,
    mut fault: impl FnMut(&mut Broker) -> Result<()>,
) -> Result<()> {
    let mut writer = Writer::start(&broker.bootstrap(), topic, PARTITIONS)?;
    let faults = (0..times).try_for_each(|_| {
        // At a random moment of the load, so never between two requests only.
        writer.wait_acked(usize::try_from(rng.within(1..2_000))?, LIMIT)?;
        fault(broker)
    });
    if let Err(error) = faults.and_then(|()| writer.wait_acked(500, LIMIT)) {
        // What is there often says why it went wrong.
        let judged = writer
            .abandon()
            .and_then(|log| writer::check(&broker.bootstrap(), topic, &log));
        let found = judged.map_or_else(|e| format!("{e:#}"), |report| summary(&report));
        return Err(error.context(found));
    }
    let log = writer.finish()?;
    sound(&writer::check(&broker.bootstrap(), topic, &log)?)
}

fn orderly_stop(context: &Context) -> Result<()> {
    let mut broker = Broker::new(context.kind)?;
    broker.start()?;
    create_topic(&broker, TOPIC, PARTITIONS, &[])?;
    let mut writer = Writer::start(&broker.bootstrap(), TOPIC, PARTITIONS)?;
    writer.wait_acked(1_000, LIMIT)?;
    broker.stop()?;
    broker.start()?;
    writer.wait_acked(1_000, LIMIT)?;
    let log = writer.finish()?;
    all_answered(&writer::check(&broker.bootstrap(), TOPIC, &log)?)
}

/// Nothing is wrong with what was written.
pub(crate) fn sound(report: &Report) -> Result<()> {
    eprintln!("        {}", summary(report));
    ensure!(report.faults.is_empty(), summary(report));
    ensure!(report.acked > 0, "nothing was acknowledged");
    Ok(())
}

/// The same, and no record was given up: nothing happened but what was planned.
pub(crate) fn all_answered(report: &Report) -> Result<()> {
    sound(report)?;
    let unknown = report.unknown_present + report.unknown_absent;
    ensure!(unknown == 0, "{unknown} records were given up");
    Ok(())
}

fn summary(report: &Report) -> String {
    let Report {
        acked,
        unknown_present,
        unknown_absent,
        faults,
    } = report;
    let some: Vec<_> = faults.iter().take(10).collect();
    let counts =
        format!("{acked} acked, {unknown_present} unknown there, {unknown_absent} unknown not there");
    format!("{counts}, {} faults: {some:#?}", faults.len())
}
