//! What real masters had is in the topics, whoever reads them.

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::cdc::{Cdc, LIMIT};
use takhin_e2e::{Broker, Kind, wait};
use takhin_pika_testing::replayed::{self, Replayed};
use takhin_pika_testing::topics::{Read, distinct};

use crate::stage::{Suites, read_until};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("contents::in_kafka", Kind::Kafka, |broker| {
        contents(broker, "at_least_once")
    });
    suites.add("contents::in_kafka_by_transactions", Kind::Kafka, |broker| {
        contents(broker, "exactly_once")
    });
    suites.add("contents::in_takhin", Kind::Takhin, |broker| {
        contents(broker, "at_least_once")
    });
}

/// Recorded dumps and the changes after them, each of another server, equal what the server had in the end.
fn contents(broker: &Broker, delivery: &str) -> Result<()> {
    for version in ["3.5.5", "4.0.1"] {
        let replayed = Replayed::start(version)?;
        let name = format!("contents-{delivery}-{version}");
        let mut cdc = Cdc::new(&name, replayed.master.port(), &broker.bootstrap())?;
        cdc.set(&format!("sink.delivery={delivery}"));
        cdc.start()?;
        wait::until("everything is acknowledged", LIMIT, || {
            Ok(replayed.is_acknowledged())
        })
        .with_context(|| cdc.tail())?;
        let status = cdc.stop()?;
        ensure!(status.success(), "{status}: {}", cdc.tail());
        let has_ended = |read: &[Read]| {
            let ends = read.iter().filter(|event| event.text("op") == "snapshot_end");
            ends.count() == 8
        };
        let snapshot = read_until(broker, &format!("pika.{name}.snapshot"), has_ended)?;
        let binlog = read_until(broker, &format!("pika.{name}.binlog"), |read| !read.is_empty())?;
        replayed::check(version, &snapshot, &binlog);
        // `flushdb` is in every partition.
        let keyed = |read: &[Read]| {
            let keyed = read.iter().filter(|event| event.key_bytes().is_some());
            keyed.cloned().collect::<Vec<_>>()
        };
        ensure!(
            distinct(&keyed(&binlog)) == keyed(&binlog).len(),
            "a change came twice"
        );
    }
    Ok(())
}
