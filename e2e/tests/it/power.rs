//! Power cuts: in flushed mode an acknowledged record survives the loss of everything that was not synced.
//!
//! The data directory lies on XFS, whose shutdown drops dirty pages and unwritten log records alike. The third test
//! takes the broker's syncs away and demands that the loss is then found: without it the first two would prove nothing.

use std::fs;

use anyhow::{Result, ensure};
use takhin_e2e::checker::Fault;
use takhin_e2e::disk::Mount;
use takhin_e2e::rng::Rng;
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Broker, Cluster, Kind, wait, wire};

use crate::crash::{LIMIT, PARTITIONS, load_under_faults, sound};
use crate::suite::{Context, Suites, create_topic};

const TOPIC: &str = "power";
const IMAGE_BYTES: u64 = 600 << 20;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("power::a_cut_loses_nothing_in_flushed_mode", cuts);
    suites.add("power::a_cut_is_noticed_when_syncs_do_nothing", control);
    suites.add_takhin("power::what_one_of_three_has_lost_the_others_keep", one_of_three);
}

fn cuts_per_run(kind: Kind) -> u64 {
    match kind {
        Kind::Kafka => 2,
        Kind::Takhin => 6,
    }
}

/// Sync before acknowledging: takhin's default, for Apache Kafka a topic setting.
fn flushed(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::Kafka => &[("flush.messages", "1")],
        Kind::Takhin => &[],
    }
}

fn broker_on(disk: &Mount, kind: Kind) -> Result<Broker> {
    let mut broker = Broker::with_data_dir(kind, &disk.path().join("data"))?;
    broker.start()?;
    create_topic(&broker, TOPIC, PARTITIONS, flushed(kind))?;
    if kind == Kind::Kafka {
        // Its `format` command does not sync what it writes, and a broker cannot start from half of that.
        disk.sync()?;
    }
    Ok(broker)
}

fn cuts(context: &Context) -> Result<()> {
    let mut rng = Rng::from_env("power");
    let disk = Mount::xfs(IMAGE_BYTES)?;
    let mut broker = broker_on(&disk, context.kind)?;
    load_under_faults(
        &mut broker,
        TOPIC,
        &mut rng,
        cuts_per_run(context.kind),
        |broker| {
            // A machine without power answers nobody. Without this the shutdown can make an `fdatasync` in progress
            // return success for what it has just thrown away (Linux 6.18: a program that only writes, syncs and
            // reports lost a reported write in 1 of 40 shutdowns).
            broker.freeze()?;
            disk.cut_power()?;
            broker.kill();
            disk.restore_power()?;
            broker.start()
        },
    )
}

/// The same with `fdatasync` and its relatives doing nothing, by strace in front of the broker.
fn control(context: &Context) -> Result<()> {
    let disk = Mount::xfs(IMAGE_BYTES)?;
    let mut broker = broker_on(&disk, context.kind)?;
    broker.stop()?;
    // What the broker is and which topics it has must survive; only the records may be lost.
    disk.sync()?;
    broker.wrap(&[
        "strace",
        "--daemonize",
        "--follow-forks",
        "--seccomp-bpf",
        "--output=/dev/null",
        "--signal=none",
        "--inject=fdatasync,fsync,syncfs,sync_file_range,msync:retval=0",
    ]);
    broker.start()?;
    let mut writer = Writer::start(&broker.bootstrap(), TOPIC, PARTITIONS)?;
    writer.wait_acked(2_000, LIMIT)?;
    disk.cut_power()?;
    // Before the broker is back: a producer that goes on would meet a broker that has forgotten it.
    let log = writer.abandon()?;
    broker.kill();
    disk.restore_power()?;
    broker.wrap(&[]);
    broker.start()?;
    let report = writer::check(&broker.bootstrap(), TOPIC, &log)?;
    let lost = report
        .faults
        .iter()
        .filter(|f| matches!(f, Fault::Lost(_)))
        .count();
    eprintln!(
        "        {lost} of {} acknowledged records lost, as they must be here",
        report.acked
    );
    ensure!(
        lost > 0,
        "no loss although nothing was synced: the cut or the checker does not work"
    );
    Ok(())
}

/// Records of a cached topic that two of three brokers have acknowledged from their page caches. One of them loses its own
/// with the power, the other is killed: until it is back nobody may lead, for the third never had them.
fn one_of_three(_: &Context) -> Result<()> {
    let disk = Mount::xfs(IMAGE_BYTES)?;
    let dir = tempfile::tempdir()?;
    // A machine that has lost its power begins with another id.
    let boot = dir.path().join("boot_id");
    fs::write(&boot, "before\n")?;
    let mount = format!(
        "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
        boot.display()
    );
    let mut cluster = Cluster::start_with(3, usize::MAX, |id, broker| {
        if id == 2 {
            broker.move_to(&disk.path().join("data"));
            broker.wrap(&["unshare", "--mount", "sh", "-c", &mount, "sh"]);
        }
    })?;
    let mut connection = wire::Connection::open(cluster.brokers[0].address())?;
    let cached = [("takhin.durability", "cached")];
    let error = connection.create_replicated_topic(TOPIC, PARTITIONS, 3, &cached)?;
    ensure!(error == 0, "CreateTopics {TOPIC}: error {error}");
    let mut writer = Writer::start(&cluster.bootstrap(), TOPIC, PARTITIONS)?;
    writer.wait_acked(500, LIMIT)?;
    cluster.brokers[2].kill();
    writer.wait_acked(2_000, LIMIT)?;
    cluster.brokers[1].freeze()?;
    cluster.brokers[0].kill();
    disk.cut_power()?;
    cluster.brokers[1].kill();
    disk.restore_power()?;
    fs::write(&boot, "after\n")?;
    for broker in [1, 2] {
        cluster.brokers[broker].start_process()?;
    }
    let all = f64::from(PARTITIONS);
    wait::until("the second broker to have doubts", LIMIT, || {
        let in_doubt = cluster.brokers[1].metric("takhin_replicas_in_doubt");
        Ok(in_doubt.is_ok_and(|count| count >= all))
    })?;
    cluster.start_again(0)?;
    writer.wait_acked(500, LIMIT)?;
    wait::until("nobody to be in doubt", LIMIT, || {
        Ok(cluster.brokers[1].metric("takhin_replicas_in_doubt")? < 1.0)
    })?;
    let log = writer.finish()?;
    sound(&writer::check(&cluster.bootstrap(), TOPIC, &log)?)
}
