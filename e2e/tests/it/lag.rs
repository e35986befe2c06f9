//! What a broker's metrics say of followers that fall behind, of its ISR, and of brokers that are gone; damaged replicas.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kcat::placements;
use takhin_e2e::{Broker, Cluster, process, tools, wait, wire};

use crate::crash::LIMIT;
use crate::suite::{Context, Suites};

const TOPIC: &str = "lagging";

/// Records that a follower misses, and the size of each.
const RECORDS: usize = 300;
const RECORD: usize = 1_000;

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("lag::followers_that_fall_behind_show_in_the_metrics", fall_behind);
    suites.add_takhin("lag::a_damaged_replica_counts_no_more_and_is_replaced", damaged);
}

fn fall_behind(_: &Context) -> Result<()> {
    let cluster = Cluster::start(3)?;
    let mut connection = wire::Connection::open(cluster.brokers[0].address())?;
    let error = connection.create_replicated_topic(TOPIC, 1, 3, &[("min.insync.replicas", "2")])?;
    ensure!(error == 0, "CreateTopics: error {error}");
    let leads = leader(&cluster)?;
    let follower = (leads + 1) % cluster.brokers.len();
    let (leader, behind) = (&cluster.brokers[leads], &cluster.brokers[follower]);
    write(leader)?;
    let nothing = |what: &str| {
        wait_for(leader, &format!("takhin_replica_max_lag_{what}"), |lag| {
            lag == 0.0
        })
    };
    nothing("records")?;

    behind.freeze()?;
    write(leader)?;
    let id = behind.node_id();
    let lag = |what: &str| {
        format!("takhin_replica_lag_{what}{{topic=\"{TOPIC}\",partition=\"0\",broker=\"{id}\"}}")
    };
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let (records, bytes) = (RECORDS as f64, (RECORDS * RECORD) as f64);
    wait_for(leader, &lag("records"), |lag| lag == records)?;
    // Counted in shares of a segment by its entries, which are batches of any size.
    wait_for(leader, &lag("bytes"), |lag| {
        (bytes / 10.0..2.0 * bytes).contains(&lag)
    })?;
    wait_for(leader, &lag("seconds"), |lag| lag >= 3.0)?;
    for what in ["records", "bytes", "seconds"] {
        wait_for(leader, &format!("takhin_replica_max_lag_{what}"), |lag| lag > 0.0)?;
    }
    wait_for(leader, "takhin_partitions_under_replicated", |count| count >= 1.0)?;
    wait_for(leader, "takhin_partitions_at_min_isr", |count| count == 1.0)?;
    wait_for(leader, "takhin_isr_shrinks_total", |count| count >= 1.0)?;
    wait_for(leader, "takhin_cluster_brokers{state=\"fenced\"}", |count| {
        count == 1.0
    })?;
    wait_for(leader, "takhin_cluster_brokers{state=\"active\"}", |count| {
        count == 2.0
    })?;
    // It is told by the one that leads, and by nobody else.
    let led_here = |count: f64| count == 0.0;
    let third = (follower + 1) % cluster.brokers.len();
    wait_for(&cluster.brokers[third], "takhin_partitions_at_min_isr", led_here)?;
    wait_for(leader, "takhin_partitions_under_min_isr", led_here)?;

    behind.thaw()?;
    for what in ["records", "bytes", "seconds"] {
        nothing(what)?;
        wait_for(leader, &lag(what), |lag| lag == 0.0)?;
    }
    wait_for(leader, "takhin_isr_expands_total", |count| count >= 1.0)?;
    wait_for(leader, "takhin_partitions_under_replicated", led_here)?;
    wait_for(leader, "takhin_cluster_brokers{state=\"active\"}", |count| {
        count == 3.0
    })
}

/// A replica that has lost the end of its log, which nobody writes to: it is no more than a directory until it is made anew.
fn damaged(_: &Context) -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let mut connection = wire::Connection::open(cluster.brokers[0].address())?;
    let error = connection.create_replicated_topic(TOPIC, 1, 3, &[])?;
    ensure!(error == 0, "CreateTopics: error {error}");
    let leads = leader(&cluster)?;
    write(&cluster.brokers[leads])?;
    let in_sync = |cluster: &Cluster, wanted: &[usize]| {
        wait::until(format_args!("{wanted:?} replicas to be in sync"), LIMIT, || {
            let placements = placements(&cluster.bootstrap(), TOPIC)?;
            let found = placements.first().context("no partition")?;
            Ok([found.replicas.len(), found.in_sync] == *wanted)
        })
    };
    in_sync(&cluster, &[3, 3])?;
    let hurt = (leads + 1) % cluster.brokers.len();
    let broker = &mut cluster.brokers[hurt];
    // What a kill leaves torn is cut; what was closed in order and is shorter now is damaged.
    broker.stop()?;
    let log = largest_log(broker.data_dir())?;
    let length = fs::metadata(&log)?.len();
    OpenOptions::new().write(true).open(&log)?.set_len(length / 2)?;
    cluster.start_again(hurt)?;
    in_sync(&cluster, &[3, 2])?;
    wait_for(&cluster.brokers[hurt], "takhin_replicas_offline", |count| {
        count == 1.0
    })?;
    wait_for(
        &cluster.brokers[leads],
        "takhin_partitions_under_replicated",
        |count| count >= 1.0,
    )?;

    // As the page tells people.
    let all: Vec<i32> = (1..=3).collect();
    let id = i32::try_from(cluster.brokers[hurt].node_id())?;
    let others: Vec<i32> = all.iter().copied().filter(|other| *other != id).collect();
    let mut connection = wire::Connection::open(cluster.brokers[leads].address())?;
    for (replicas, wanted) in [(&others, [2, 2]), (&all, [3, 3])] {
        let error = connection.reassign(TOPIC, 0, replicas)?;
        ensure!(error == 0, "AlterPartitionReassignments: error {error}");
        in_sync(&cluster, &wanted)?;
    }
    wait_for(&cluster.brokers[hurt], "takhin_replicas_offline", |count| {
        count == 0.0
    })?;
    takhin_e2e::replicas::wait_identical(&cluster.brokers, 3, LIMIT).map(drop)
}

/// The largest segment file of a broker.
fn largest_log(data: &Path) -> Result<PathBuf> {
    let mut logs = Vec::new();
    for directory in data.join("partitions").read_dir()? {
        for file in directory?.path().read_dir()? {
            let file = file?;
            if file
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
            {
                logs.push((file.metadata()?.len(), file.path()));
            }
        }
    }
    let (_, largest) = logs.into_iter().max().context("no log")?;
    Ok(largest)
}

/// Which broker leads the only partition.
fn leader(cluster: &Cluster) -> Result<usize> {
    wait::value("a leader", LIMIT, || {
        let placements = placements(&cluster.bootstrap(), TOPIC)?;
        let leader = placements.first().context("no partition")?.leader;
        let is_it = |broker: &Broker| i32::try_from(broker.node_id()) == Ok(leader);
        Ok(cluster.brokers.iter().position(is_it))
    })
}

/// Has kcat write all records, which all replicas but one acknowledge.
fn write(broker: &Broker) -> Result<()> {
    let mut records = tempfile::NamedTempFile::new()?;
    for _ in 0..RECORDS {
        writeln!(records, "{}", "r".repeat(RECORD))?;
    }
    let mut produce = tools::kcat();
    produce.args([
        "-P",
        "-b",
        &broker.bootstrap(),
        "-t",
        TOPIC,
        "-X",
        "acks=all",
        "-l",
    ]);
    produce.arg(records.path()).stdin(Stdio::null());
    process::run(&mut produce, Duration::from_secs(60))?;
    Ok(())
}

fn wait_for(broker: &Broker, series: &str, holds: impl Fn(f64) -> bool) -> Result<()> {
    let mut last = f64::NAN;
    let waited = wait::until(series, LIMIT, || {
        last = broker.metric(series)?;
        Ok(holds(last))
    });
    waited.with_context(|| format!("{series} is {last} on broker {}", broker.node_id()))
}
