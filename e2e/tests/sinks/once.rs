//! Exactly once: whatever befalls master, program and brokers, readers of committed records see every change once, and those
//! of a key in order.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::cdc::{Cdc, LIMIT};
use takhin_e2e::{Broker, Kind, kcat, wait};
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::numbers::Numbers;

use crate::stage::{Suites, read, read_until};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("once::killed_at_any_point", Kind::Kafka, killed);
    suites.add("once::killed_at_any_point_before_3_1", Kind::Kafka, killed_legacy);
    suites.add(
        "once::killed_at_any_point_with_a_log",
        Kind::Kafka,
        killed_with_logs,
    );
    suites.add("once::a_second_one_takes_over", Kind::Kafka, second);
    suites.add("once::away_for_longer_than_a_transaction", Kind::Kafka, away);
    suites.add("once::brokers_killed", Kind::Kafka, brokers);
    suites.add("once::brokers_without_transactions", Kind::Takhin, refused);
}

fn two_databases() -> Result<Master> {
    Master::start(Settings {
        databases: 2,
        ..Settings::default()
    })
}

fn cdc(name: &str, master: &Master, broker: &Broker) -> Result<Cdc> {
    let mut cdc = Cdc::new(name, master.port(), &broker.bootstrap())?;
    cdc.set("sink.delivery=exactly_once").set("snapshot.mode=no_data");
    Ok(cdc)
}

fn is_acknowledged(master: &Master) -> bool {
    ["db0", "db1"]
        .iter()
        .all(|db| master.end(db).offset == 0 || master.acked(db) == Some(master.end(db)))
}

fn acknowledged(master: &Master, cdc: &Cdc) -> Result<()> {
    wait::until("everything is acknowledged", LIMIT, || {
        Ok(is_acknowledged(master))
    })
    .with_context(|| format!("{}\n{}", cdc.says(), cdc.tail()))
}

/// Every change is there once; returns how many records there are that no reader of committed ones sees.
fn check(broker: &Broker, name: &str, writer: &Numbers) -> Result<usize> {
    let topic = format!("pika.{name}.binlog");
    let seen = read_until(broker, &topic, |read| writer.is_whole(read))?;
    ensure!(writer.check(&seen) == 0, "a change came twice");
    ensure!(seen.len() as u64 == writer.written(), "{} records", seen.len());
    let all = kcat::consume_uncommitted(&broker.bootstrap(), &topic)?;
    Ok(all.len() - seen.len())
}

/// Returns after some moments, which is somewhere on the way.
fn moments(writer: &Numbers, is_over: impl Fn() -> bool) -> Result<()> {
    let moments = writer.random.range(0..40);
    let mut looks = 0;
    wait::until("a moment", LIMIT, || {
        looks += 1;
        Ok(looks > moments || is_over())
    })
}

fn killed(broker: &Broker) -> Result<()> {
    let mut unseen = 0;
    for seed in 1..4 {
        let master = two_databases()?;
        let mut writer = Numbers::new(seed);
        let name = format!("killed-{seed}");
        let mut cdc = cdc(&name, &master, broker)?;
        cdc.set("sink.batch_size=4KiB");
        cdc.start()?;
        cdc.wait_ready()?;
        for _ in 0..8 {
            writer.write(&master, 400);
            moments(&writer, || is_acknowledged(&master))?;
            cdc.kill();
            match writer.random.range(0..3) {
                // As with a pod's directory: only the topic has positions.
                0 => cdc.lose_disk()?,
                1 => master.restart(),
                _ => {}
            }
            writer.write(&master, 20);
            cdc.start()?;
        }
        acknowledged(&master, &cdc)?;
        unseen += check(broker, &name, &writer)?;
    }
    ensure!(unseen > 0, "no transaction was cut short: the test shows nothing");
    Ok(())
}

/// Masters that take no acknowledgements: what they have sent is in a log on the own disk.
fn killed_legacy(broker: &Broker) -> Result<()> {
    let master = Master::start(Settings {
        version: "3.0.16".into(),
        ..Settings::default()
    })?;
    let mut writer = Numbers::new(30);
    let mut cdc = cdc("legacy", &master, broker)?;
    cdc.set("sink.batch_size=4KiB").listed()?;
    cdc.start()?;
    cdc.wait_ready()?;
    let is_written = |cdc: &Cdc| {
        let end = master.legacy(|legacy| legacy.end());
        cdc.saved("db0") == Some((end.filenum.into(), end.offset))
    };
    for round in 0..8 {
        writer.write_legacy(&master, 300);
        moments(&writer, || is_written(&cdc))?;
        cdc.kill();
        if round % 3 == 1 {
            master.restart();
        }
        cdc.start()?;
    }
    wait::until("everything is written", LIMIT, || Ok(is_written(&cdc))).with_context(|| cdc.tail())?;
    check(broker, "legacy", &writer)?;
    Ok(())
}

/// What is acknowledged is in a log on the own disk, and the master has deleted it.
fn killed_with_logs(broker: &Broker) -> Result<()> {
    let master = two_databases()?;
    let mut writer = Numbers::new(35);
    let mut cdc = cdc("logs", &master, broker)?;
    cdc.set("sink.batch_size=4KiB").set("wal.enabled=true");
    cdc.start()?;
    cdc.wait_ready()?;
    for round in 0..8 {
        writer.write(&master, 400);
        moments(&writer, || is_acknowledged(&master))?;
        cdc.kill();
        for db in ["db0", "db1"] {
            let acked = master.acked(db).map_or(0, |acked| acked.filenum);
            master.purge(db, acked);
        }
        if round % 3 == 1 {
            master.restart();
        }
        writer.write(&master, 20);
        cdc.start()?;
    }
    wait::until("everything is written", LIMIT, || {
        Ok(["db0", "db1"].iter().all(|db| {
            let end = master.end(db);
            cdc.saved(db) == Some((end.filenum.into(), end.offset))
        }))
    })
    .with_context(|| cdc.tail())?;
    check(broker, "logs", &writer)?;
    Ok(())
}

/// One that hangs while another one takes its place writes nothing when it wakes, and ends.
fn second(broker: &Broker) -> Result<()> {
    let master = two_databases()?;
    let mut writer = Numbers::new(40);
    let mut first = cdc("second", &master, broker)?;
    first.start()?;
    first.wait_ready()?;
    let mut second = cdc("second", &master, broker)?;
    second.set("source.listed_as=127.0.0.1:21444");
    writer.write(&master, 2000);
    first.freeze()?;
    second.start()?;
    second.wait_ready()?;
    writer.write(&master, 200);
    first.thaw()?;
    let status = first.wait_end()?;
    ensure!(status.code() == Some(1), "{status}: {}", first.tail());
    let said =
        "error: another takhin-cdc has begun to write for source.id second: only one can; this one ends";
    ensure!(first.log().lines().any(|line| line == said), "{}", first.tail());
    writer.write(&master, 200);
    acknowledged(&master, &second)?;
    check(broker, "second", &writer)?;
    ensure!(second.stop()?.success(), "{}", second.tail());
    Ok(())
}

/// The brokers abort what takes too long: it is written again, and nobody was there to be fenced by.
fn away(broker: &Broker) -> Result<()> {
    let away = Duration::from_secs(3);
    let master = two_databases()?;
    let mut writer = Numbers::new(50);
    let mut cdc = cdc("away", &master, broker)?;
    cdc.set("sink.transaction_timeout=1s").set("sink.batch_size=1KiB");
    cdc.start()?;
    cdc.wait_ready()?;
    let is_aborted = |cdc: &Cdc| cdc.log().contains("_EPOCH") || cdc.log().contains("_FENCED");
    let mut rounds = 0;
    while !is_aborted(&cdc) {
        rounds += 1;
        ensure!(rounds < 15, "no transaction was open when it was stopped");
        writer.write(&master, 3000);
        moments(&writer, || is_acknowledged(&master))?;
        cdc.freeze()?;
        let begin = Instant::now();
        wait::until("the brokers' patience is over", LIMIT, || {
            Ok(begin.elapsed() > away)
        })?;
        cdc.thaw()?;
        acknowledged(&master, &cdc)?;
    }
    check(broker, "away", &writer)?;
    ensure!(cdc.stop()?.success(), "{}", cdc.tail());
    Ok(())
}

fn brokers(_: &Broker) -> Result<()> {
    let mut broker = Broker::new(Kind::Kafka)?;
    broker.start()?;
    let master = two_databases()?;
    let mut writer = Numbers::new(60);
    let mut cdc = cdc("brokers", &master, &broker)?;
    cdc.set("sink.batch_size=4KiB");
    cdc.start()?;
    cdc.wait_ready()?;
    for _ in 0..3 {
        writer.write(&master, 2000);
        moments(&writer, || is_acknowledged(&master))?;
        broker.kill();
        broker.start()?;
        acknowledged(&master, &cdc)?;
    }
    check(&broker, "brokers", &writer)?;
    Ok(())
}

fn refused(broker: &Broker) -> Result<()> {
    let master = two_databases()?;
    let mut cdc = cdc("refused", &master, broker)?;
    cdc.start()?;
    let says = |cdc: &Cdc| {
        let said = cdc.says();
        said.contains("sink.delivery is exactly_once, and the brokers have no transactions")
            && said.contains("set it to at_least_once")
    };
    wait::until("it is said", LIMIT, || Ok(says(&cdc))).with_context(|| cdc.tail())?;
    ensure!(master.tried().is_empty(), "it follows nevertheless");
    let written = read(broker, "pika.refused.binlog")?;
    ensure!(written.is_empty(), "{} records", written.len());
    Ok(())
}
