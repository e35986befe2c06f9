//! Moves of replicas under a throttle, with Kafka's own tools, under load, while all brokers live.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Cluster, process, tools, wait};

use crate::cluster::{TOPIC, create};
use crate::crash::{LIMIT, PARTITIONS, sound};
use crate::reassign::{reassign, replicas, write_moves};
use crate::suite::{Context, Suites};

/// Bytes a second, of all brokers: far less than is written.
const SLOW: &str = "1000";

const FAST: &str = "100000000";

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin(
        "throttle::throttled_moves_are_cancelled_and_done",
        throttled_moves,
    );
}

/// A move that a throttle keeps from ending is taken back; a second one is done once its throttle is raised.
fn throttled_moves(_: &Context) -> Result<()> {
    let cluster = Cluster::start(4)?;
    create(&cluster)?;
    let dir = tempfile::tempdir()?;
    let mut writer = Writer::start(&cluster.bootstrap(), TOPIC, PARTITIONS)?;
    writer.wait_acked(3_000, LIMIT)?;
    let before = replicas(&cluster)?;
    let wanted: Vec<Vec<i32>> = before.iter().map(|now| target(now)).collect::<Result<_>>()?;
    let moves: Vec<_> = wanted.iter().cloned().enumerate().collect();
    let file = write_moves(dir.path(), &moves)?;

    execute(&cluster, &file, &["--throttle", SLOW])?;
    under_way(&cluster, &before, &wanted)?;
    let set = throttles(&cluster)?;
    for side in ["leader", "follower"] {
        for what in [
            format!("{side}.replication.throttled.rate={SLOW}"),
            format!("{side}.replication.throttled.replicas="),
        ] {
            ensure!(set.contains(&what), "no {what} in {set}");
        }
    }
    // Nobody waits for what is moved.
    writer.wait_acked(2_000, LIMIT)?;
    under_way(&cluster, &before, &wanted)?;
    let cancelled = run(&cluster, "--cancel", &file, &[])?;
    ensure!(
        cancelled.contains("Successfully cancelled"),
        "--cancel: {cancelled}"
    );
    wait::until("nothing to be moved", LIMIT, || {
        Ok(reassign(&cluster, &["--list"])?.contains("No partition reassignments found"))
    })?;
    let back = replicas(&cluster)?;
    ensure!(back == before, "cancelled: wanted {before:?}, found {back:?}");
    no_throttles(&cluster)?;

    execute(&cluster, &file, &["--throttle", SLOW])?;
    under_way(&cluster, &before, &wanted)?;
    execute(&cluster, &file, &["--additional", "--throttle", FAST])?;
    wait::until("the replicas to be moved", LIMIT, || {
        let text = run(&cluster, "--verify", &file, &[])?;
        let done = text.lines().filter(|line| line.ends_with("is completed."));
        Ok(i32::try_from(done.count()) == Ok(PARTITIONS))
    })?;
    no_throttles(&cluster)?;
    let there = replicas(&cluster)?;
    ensure!(there == wanted, "wanted {wanted:?}, found {there:?}");
    writer.wait_acked(500, LIMIT)?;
    let log = writer.finish()?;
    sound(&writer::check(&cluster.bootstrap(), TOPIC, &log)?)
}

/// The last replica goes to the broker that has none.
fn target(now: &[i32]) -> Result<Vec<i32>> {
    let missing = (1..=4).find(|id| !now.contains(id));
    let mut target = now.to_vec();
    *target.last_mut().context("a partition without replicas")? = missing.context("a broker without it")?;
    Ok(target)
}

fn run(cluster: &Cluster, action: &str, file: &Path, more: &[&str]) -> Result<String> {
    let file = file.to_string_lossy();
    let mut words = vec![action, "--reassignment-json-file", &file];
    words.extend(more);
    reassign(cluster, &words)
}

fn execute(cluster: &Cluster, file: &Path, more: &[&str]) -> Result<()> {
    let text = run(cluster, "--execute", file, more)?;
    let is_begun = text.contains("Successfully started") && text.contains("throttle limit was set to");
    ensure!(is_begun, "--execute {more:?}: {text}");
    Ok(())
}

fn under_way(cluster: &Cluster, before: &[Vec<i32>], wanted: &[Vec<i32>]) -> Result<()> {
    let listed = reassign(cluster, &["--list"])?;
    for (partition, (now, target)) in before.iter().zip(wanted).enumerate() {
        let line = listed
            .lines()
            .find(|line| line.starts_with(&format!("{TOPIC}-{partition}: ")));
        let line = line.with_context(|| format!("partition {partition} is not moved: {listed}"))?;
        let (Some(adding), Some(removing)) = (target.last(), now.last()) else {
            continue;
        };
        ensure!(
            line.contains(&format!("adding: {adding}.")) && line.contains(&format!("removing: {removing}.")),
            "--list: {line}"
        );
    }
    Ok(())
}

/// What brokers and the topic were told, as Kafka's tool shows it.
fn throttles(cluster: &Cluster) -> Result<String> {
    let describe = |entity: &[&str]| -> Result<String> {
        let mut tool = tools::java("-Xmx128m", "kafka.admin.ConfigCommand")?;
        tool.args([
            "--bootstrap-server",
            &cluster.bootstrap(),
            "--describe",
            "--entity-type",
        ])
        .args(entity);
        Ok(process::run(&mut tool, Duration::from_secs(120))?.text())
    };
    let topic = describe(&["topics", "--entity-name", TOPIC])?;
    Ok(topic + &describe(&["brokers"])?)
}

fn no_throttles(cluster: &Cluster) -> Result<()> {
    let set = throttles(cluster)?;
    ensure!(!set.contains("throttled"), "throttles are left: {set}");
    Ok(())
}
