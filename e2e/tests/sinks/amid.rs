//! Killed while it writes the data set: what consumers rebuild is what the master had, and with transactions the changes after
//! it are there once.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::cdc::{Cdc, LIMIT};
use takhin_e2e::{Broker, Kind, wait};
use takhin_pika_testing::replayed::{self, Replayed};
use takhin_pika_testing::topics::{Read, distinct};

use crate::stage::{Suites, read_until};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("amid::data_set_in_takhin", Kind::Takhin, |broker| {
        amid(broker, "at_least_once")
    });
    suites.add("amid::data_set_in_kafka_by_transactions", Kind::Kafka, |broker| {
        amid(broker, "exactly_once")
    });
}

fn amid(broker: &Broker, delivery: &str) -> Result<()> {
    let replayed = Replayed::start("3.5.5")?;
    let name = format!("amid-{delivery}");
    let mut cdc = Cdc::new(&name, replayed.master.port(), &broker.bootstrap())?;
    // Many rounds, so that there is time.
    cdc.set(&format!("sink.delivery={delivery}"))
        .set("sink.batch_size=1KiB");
    let written = |cdc: &Cdc, db: &str| {
        let series = format!("takhin_cdc_events_total{{db=\"{db}\",kind=\"snapshot\"}}");
        cdc.metric(&series).unwrap_or(0.0)
    };
    // Amid that of either database.
    for (db, at_least) in [
        ("db0", 1.0),
        ("db0", 8.0),
        ("db0", 30.0),
        ("db1", 1.0),
        ("db1", 8.0),
    ] {
        cdc.start()?;
        let begin = Instant::now();
        // All of it takes less time than any pause between two looks.
        while written(&cdc, db) < at_least && !replayed.is_acknowledged() {
            ensure!(begin.elapsed() < LIMIT, "nothing is written: {}", cdc.tail());
        }
        cdc.kill();
    }
    cdc.start()?;
    cdc.wait_ready()?;
    wait::until("everything is acknowledged", LIMIT, || {
        Ok(replayed.is_acknowledged())
    })
    .with_context(|| cdc.tail())?;
    let status = cdc.stop()?;
    ensure!(status.success(), "{status}: {}", cdc.tail());
    let ids = |read: &[Read], op: &str| {
        let told = read.iter().filter(|event| event.text("op") == op);
        told.map(|event| event.json["snapshot"]["id"].to_string())
            .collect::<BTreeSet<_>>()
    };
    let has_ended = |read: &[Read]| {
        let ends = read.iter().filter(|event| event.text("op") == "snapshot_end");
        ends.count() >= 8
    };
    let snapshot = read_until(broker, &format!("pika.{name}.snapshot"), has_ended)?;
    let (begun, ended) = (ids(&snapshot, "snapshot_begin"), ids(&snapshot, "snapshot_end"));
    ensure!(
        begun.len() > ended.len() + 1,
        "{} data sets were begun and {} ended: the test shows nothing",
        begun.len(),
        ended.len()
    );
    let binlog = read_until(broker, &format!("pika.{name}.binlog"), |read| !read.is_empty())?;
    replayed::check("3.5.5", &snapshot, &binlog);
    if delivery == "exactly_once" {
        let keyed = |read: &[Read]| {
            let keyed = read.iter().filter(|event| event.key_bytes().is_some());
            keyed.cloned().collect::<Vec<_>>()
        };
        for read in [&snapshot, &binlog] {
            let keyed = keyed(read);
            ensure!(distinct(&keyed) == keyed.len(), "an event came twice");
        }
    }
    Ok(())
}
