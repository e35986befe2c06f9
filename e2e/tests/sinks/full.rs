//! Disks of `takhin-cdc` that fill up: it is said which, nothing is lost, and it goes on when there is room.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::cdc::{Cdc, LIMIT};
use takhin_e2e::disk::{self, Mount};
use takhin_e2e::{Broker, Kind, wait};
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::numbers::Numbers;
use takhin_pika_testing::replayed::Replayed;

use crate::stage::{Suites, read_until};

/// Bytes of the disk.
const SIZE: u64 = 8 << 20;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("full::positions", Kind::Takhin, positions);
    suites.add("full::log_of_a_master_before_3_1", Kind::Takhin, log);
    suites.add("full::log_of_a_master_from_3_1_on", Kind::Takhin, logs);
    suites.add("full::data_set", Kind::Takhin, data_set);
}

/// Takes all the room that there is.
fn stuff(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for len in [1 << 20, 64 << 10, 4 << 10] {
        loop {
            let file = dir.join(format!("stuffing-{}", files.len()));
            let is_full = disk::fill(&file, len).is_err();
            files.push(file);
            if is_full {
                break;
            }
        }
    }
    files
}

fn unstuff(files: &[PathBuf]) -> Result<()> {
    files.iter().try_for_each(|file| Ok(fs::remove_file(file)?))
}

fn says(cdc: &Cdc, words: &[&str]) -> Result<()> {
    wait::until(format_args!("{words:?}"), LIMIT, || {
        let said = cdc.says();
        Ok(words.iter().all(|words| said.contains(words)))
    })
    .with_context(|| format!("{}\n{}", cdc.says(), cdc.tail()))
}

fn positions(broker: &Broker) -> Result<()> {
    let mount = Mount::memory(SIZE)?;
    let master = Master::start(Settings {
        databases: 2,
        ..Settings::default()
    })?;
    let mut writer = Numbers::new(1);
    let mut cdc = Cdc::new("full-positions", master.port(), &broker.bootstrap())?;
    cdc.set("snapshot.mode=no_data")
        .set(&format!("checkpoint.dir={}", mount.path().join("cdc").display()));
    // As with a volume that somebody else has filled: there is no room for the file.
    fs::create_dir(mount.path().join("cdc"))?;
    let files = stuff(&mount.path());
    cdc.start()?;
    says(
        &cdc,
        &[
            "checkpoint.dir: cannot write",
            "No space left on device",
            "; nothing is acknowledged to the master until there is room",
        ],
    )?;
    unstuff(&files)?;
    cdc.wait_ready()?;
    let mut written = |cdc: &Cdc| -> Result<()> {
        writer.write(&master, 100);
        wait::until("everything is acknowledged", LIMIT, || {
            let is_acknowledged = |db: &&str| master.acked(db) == Some(master.end(db));
            Ok(["db0", "db1"].iter().all(is_acknowledged))
        })
        .with_context(|| cdc.tail())
    };
    // Until both files are there. From then on they are written in place.
    for _ in 0..3 {
        written(&cdc)?;
    }
    let files = stuff(&mount.path());
    written(&cdc)?;
    cdc.kill();
    cdc.start()?;
    written(&cdc)?;
    unstuff(&files)?;
    writer.check(&read_until(broker, "pika.full-positions.binlog", |read| {
        writer.is_whole(read)
    })?);
    Ok(())
}

fn log(broker: &Broker) -> Result<()> {
    let mount = Mount::memory(SIZE)?;
    let master = Master::start(Settings {
        version: "3.0.16".into(),
        ..Settings::default()
    })?;
    let mut writer = Numbers::new(2);
    let mut cdc = Cdc::new("full-log", master.port(), &broker.bootstrap())?;
    cdc.set("snapshot.mode=no_data")
        .set(&format!("wal.dir={}", mount.path().join("wal").display()))
        .listed()?;
    cdc.start()?;
    cdc.wait_ready()?;
    let is_written = |cdc: &Cdc| {
        let end = master.legacy(|legacy| legacy.end());
        cdc.saved("db0") == Some((end.filenum.into(), end.offset))
    };
    writer.write_legacy(&master, 100);
    wait::until("everything is written", LIMIT, || Ok(is_written(&cdc))).with_context(|| cdc.tail())?;
    let files = stuff(&mount.path());
    writer.write_legacy(&master, 2000);
    says(&cdc, &["wal.dir: cannot write", "No space left on device"])?;
    cdc.kill();
    cdc.start()?;
    says(&cdc, &["wal.dir: cannot write"])?;
    unstuff(&files)?;
    wait::until("everything is written", LIMIT, || Ok(is_written(&cdc))).with_context(|| cdc.tail())?;
    writer.check(&read_until(broker, "pika.full-log.binlog", |read| {
        writer.is_whole(read)
    })?);
    Ok(())
}

/// The master is told of nothing that there is no room for.
fn logs(broker: &Broker) -> Result<()> {
    let mount = Mount::memory(SIZE)?;
    let master = Master::start(Settings {
        databases: 2,
        ..Settings::default()
    })?;
    let mut writer = Numbers::new(3);
    let mut cdc = Cdc::new("full-logs", master.port(), &broker.bootstrap())?;
    cdc.set("snapshot.mode=no_data")
        .set("wal.enabled=true")
        .set(&format!("wal.dir={}", mount.path().join("wal").display()));
    cdc.start()?;
    cdc.wait_ready()?;
    let is_written = |cdc: &Cdc| {
        ["db0", "db1"].iter().all(|db| {
            let end = master.end(db);
            cdc.saved(db) == Some((end.filenum.into(), end.offset))
        })
    };
    writer.write(&master, 100);
    wait::until("everything is written", LIMIT, || Ok(is_written(&cdc))).with_context(|| cdc.tail())?;
    let files = stuff(&mount.path());
    writer.write(&master, 4000);
    says(&cdc, &["wal.dir: cannot write", "No space left on device"])?;
    for db in ["db0", "db1"] {
        ensure!(
            master.acked(db) < Some(master.end(db)),
            "{db}: all is acknowledged"
        );
    }
    cdc.kill();
    cdc.start()?;
    says(&cdc, &["wal.dir: cannot write"])?;
    unstuff(&files)?;
    wait::until("everything is written", LIMIT, || Ok(is_written(&cdc))).with_context(|| cdc.tail())?;
    writer.check(&read_until(broker, "pika.full-logs.binlog", |read| {
        writer.is_whole(read)
    })?);
    Ok(())
}

fn data_set(broker: &Broker) -> Result<()> {
    let mount = Mount::memory(SIZE)?;
    let replayed = Replayed::start("4.0.1")?;
    let mut cdc = Cdc::new("full-data-set", replayed.master.port(), &broker.bootstrap())?;
    cdc.set(&format!("snapshot.dir={}", mount.path().join("dump").display()));
    let files = stuff(&mount.path());
    cdc.start()?;
    says(&cdc, &["snapshot.dir: cannot write", "No space left on device"])?;
    unstuff(&files)?;
    wait::until("everything is acknowledged", LIMIT, || {
        Ok(replayed.is_acknowledged())
    })
    .with_context(|| cdc.tail())?;
    Ok(())
}
