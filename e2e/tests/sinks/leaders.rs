//! Brokers of a cluster that die while `takhin-cdc` dies too: nothing that the master executed is lost, and what comes again is
//! a tail.

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::cdc::{Cdc, LIMIT};
use takhin_e2e::{Cluster, Kind, wait};
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::numbers::Numbers;

use crate::stage::{Suites, read_at};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("leaders::killed_with_the_program", Kind::Takhin, |_| killed());
}

fn killed() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let bootstrap = cluster.bootstrap();
    let master = Master::start(Settings {
        databases: 2,
        ..Settings::default()
    })?;
    let older = Master::start(Settings {
        version: "3.0.16".into(),
        ..Settings::default()
    })?;
    let (mut writer, mut writer_older) = (Numbers::new(70), Numbers::new(71));
    let (first, others) = bootstrap.split_once(',').context("three brokers")?;
    let mut cdc = Cdc::new("leaders", master.port(), first)?;
    let mut cdc_older = Cdc::new("leaders-older", older.port(), first)?;
    cdc_older.listed()?;
    for cdc in [&mut cdc, &mut cdc_older] {
        cdc.set(&format!("sink.bootstrap={first},{others}"))
            .set("sink.replication_factor=3")
            .set("sink.batch_size=4KiB")
            .set("snapshot.mode=no_data");
        cdc.start()?;
    }
    cdc.wait_ready()?;
    cdc_older.wait_ready()?;
    for round in 0..6 {
        writer.write(&master, 500);
        writer_older.write_legacy(&older, 500);
        let moments = writer.random.range(0..60);
        let mut looks = 0;
        wait::until("a moment", LIMIT, || {
            looks += 1;
            Ok(looks > moments)
        })?;
        // Each leads some of the partitions.
        let victim = round % 3;
        cluster.brokers[victim].kill();
        if round % 2 == 0 {
            cdc.kill();
            cdc_older.kill();
            if round == 2 {
                // Only the topic has positions then.
                cdc.lose_disk()?;
            }
            cdc.start()?;
            cdc_older.start()?;
        }
        writer.write(&master, 100);
        writer_older.write_legacy(&older, 100);
        cluster.start_again(victim)?;
    }
    wait::until("everything is written", LIMIT, || {
        let is_acknowledged = ["db0", "db1"]
            .iter()
            .all(|db| master.acked(db) == Some(master.end(db)));
        let end = older.legacy(|legacy| legacy.end());
        Ok(is_acknowledged && cdc_older.saved("db0") == Some((end.filenum.into(), end.offset)))
    })
    .with_context(|| {
        format!(
            "{}\n{}\n{}\n{}",
            cdc.says(),
            cdc.tail(),
            cdc_older.says(),
            cdc_older.tail()
        )
    })?;
    check(&bootstrap, "leaders", &writer)?;
    check(&bootstrap, "leaders-older", &writer_older)
}

fn check(bootstrap: &str, name: &str, writer: &Numbers) -> Result<()> {
    let topic = format!("pika.{name}.binlog");
    let read = wait::value(format_args!("all of {topic}"), LIMIT, || {
        let read = read_at(bootstrap, &topic)?;
        Ok(writer.is_whole(&read).then_some(read))
    })?;
    let again = writer.check(&read) as u64;
    ensure!(
        again < 2 * writer.written(),
        "{name}: {again} of {}",
        writer.written()
    );
    Ok(())
}
