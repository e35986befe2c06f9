//! Replicas that are moved with Kafka's own tool while clients write and brokers die.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kcat::placements;
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Cluster, process, tools, wait, wire};

use crate::cluster::{TOPIC, create};
use crate::crash::{LIMIT, PARTITIONS, sound};
use crate::suite::{Context, Suites};

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("reassign::replicas_move_under_load", replicas_move);
}

/// Every partition gets a replica where it had none; one shrinks to it, one grows by it, others swap one for it. A broker
/// that all this needs is killed meanwhile.
fn replicas_move(_: &Context) -> Result<()> {
    let mut cluster = Cluster::start(4)?;
    create(&cluster)?;
    let dir = tempfile::tempdir()?;
    let mut writer = Writer::start(&cluster.bootstrap(), TOPIC, PARTITIONS)?;
    writer.wait_acked(2_000, LIMIT)?;
    let before: Vec<Vec<i32>> = replicas(&cluster)?;
    let wanted: Vec<Vec<i32>> = before.iter().enumerate().map(target).collect();
    let moves: Vec<_> = wanted.iter().cloned().enumerate().collect();
    execute(&cluster, dir.path(), &moves)?;
    let victim = usize::try_from(placements(&cluster.bootstrap(), TOPIC)?[0].leader)?.saturating_sub(1);
    cluster.brokers[victim].kill();
    writer.wait_acked(500, LIMIT)?;
    cluster.start_again(victim)?;
    verify(&cluster, dir.path())?;
    writer.wait_acked(500, LIMIT)?;
    ensure!(
        replicas(&cluster)? == wanted,
        "wanted {wanted:?}, found {:?}",
        replicas(&cluster)?
    );
    wait::until("all replicas to be in sync", LIMIT, || {
        let placements = placements(&cluster.bootstrap(), TOPIC)?;
        Ok(placements.iter().all(|p| p.in_sync == p.replicas.len()))
    })?;
    let expected: usize = wanted.iter().map(Vec::len).sum();
    wait::until("replicas that went to be deleted", LIMIT, || {
        Ok(replicas_on_disk(&cluster)? == expected)
    })?;
    cancel(&mut cluster, dir.path(), &wanted)?;
    writer.wait_acked(500, LIMIT)?;
    let log = writer.finish()?;
    sound(&writer::check(&cluster.bootstrap(), TOPIC, &log)?)
}

/// A move to a broker that is away does not end until it is taken back.
fn cancel(cluster: &mut Cluster, dir: &Path, now: &[Vec<i32>]) -> Result<()> {
    let (partition, away) = now
        .iter()
        .enumerate()
        .find_map(|(partition, replicas)| {
            let away = (1..=4).find(|id| !replicas.contains(id))?;
            (replicas.len() == 3).then_some((partition, away))
        })
        .context("a partition that is not on every broker")?;
    let index = usize::try_from(away)? - 1;
    cluster.brokers[index].kill();
    // Not by the tool, which first asks all the brokers that are listed.
    let mut wanted = now[partition].clone();
    wanted[2] = away;
    let there = cluster
        .brokers
        .iter_mut()
        .find_map(|broker| matches!(broker.is_running(), Ok(true)).then(|| broker.address()));
    let mut connection = wire::Connection::open(there.context("a broker that runs")?)?;
    let error = connection.reassign(TOPIC, i32::try_from(partition)?, &wanted)?;
    ensure!(error == 0, "AlterPartitionReassignments: error {error}");
    let listed = reassign(cluster, &["--list"])?;
    ensure!(
        listed.contains(&format!("{TOPIC}-{partition}: replicas: "))
            && listed.contains(&format!("adding: {away}.")),
        "--list: {listed}"
    );
    let address = cluster.brokers[index].bootstrap();
    wait::until("the dead broker to be fenced", LIMIT, || {
        let mut list = tools::kcat();
        list.args(["-L", "-b", &cluster.bootstrap()]);
        let listed = process::run(&mut list, Duration::from_secs(60))?.text();
        Ok(!listed.contains(&address))
    })?;
    let mut described = tools::python("offline.py")?;
    described.args([&cluster.bootstrap(), TOPIC]);
    let described = process::run(&mut described, Duration::from_secs(60))?.text();
    ensure!(
        described
            .lines()
            .any(|line| line == format!("{partition}: [{away}]")),
        "offline replicas: {described}"
    );
    let file = write_moves(dir, &[(partition, wanted)])?;
    let cancelled = reassign(
        cluster,
        &[
            "--cancel",
            "--preserve-throttles",
            "--reassignment-json-file",
            &file.to_string_lossy(),
        ],
    )?;
    ensure!(
        cancelled.contains("Successfully cancelled"),
        "--cancel: {cancelled}"
    );
    wait::until("nothing to be moved", LIMIT, || {
        Ok(reassign(cluster, &["--list"])?.contains("No partition reassignments found"))
    })?;
    ensure!(
        replicas(cluster)? == now,
        "not what it was: {:?}",
        replicas(cluster)?
    );
    cluster.start_again(index)
}

fn target((partition, replicas): (usize, &Vec<i32>)) -> Vec<i32> {
    let missing = (1..=4).find(|id| !replicas.contains(id)).unwrap_or(1);
    let mut target = vec![missing];
    match partition {
        0 => {}
        1 => target.extend(replicas),
        _ => target.extend(&replicas[..2]),
    }
    target
}

pub(crate) fn replicas(cluster: &Cluster) -> Result<Vec<Vec<i32>>> {
    let placements = placements(&cluster.bootstrap(), TOPIC)?;
    Ok(placements
        .into_iter()
        .map(|placement| placement.replicas)
        .collect())
}

pub(crate) fn write_moves(dir: &Path, wanted: &[(usize, Vec<i32>)]) -> Result<PathBuf> {
    let mut json = String::from(r#"{"version":1,"partitions":["#);
    for (i, (partition, replicas)) in wanted.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(
            json,
            r#"{comma}{{"topic":"{TOPIC}","partition":{partition},"replicas":{replicas:?}}}"#
        )?;
    }
    json.push_str("]}");
    let file = dir.join("moves.json");
    fs::write(&file, json)?;
    Ok(file)
}

fn execute(cluster: &Cluster, dir: &Path, wanted: &[(usize, Vec<i32>)]) -> Result<()> {
    let file = write_moves(dir, wanted)?;
    let file = file.to_string_lossy();
    let text = reassign(cluster, &["--execute", "--reassignment-json-file", &file])?;
    ensure!(text.contains("Successfully started"), "--execute: {text}");
    Ok(())
}

fn verify(cluster: &Cluster, dir: &Path) -> Result<()> {
    let file = dir.join("moves.json");
    let file = file.to_string_lossy();
    wait::until("the replicas to be moved", LIMIT, || {
        let text = reassign(
            cluster,
            &[
                "--verify",
                "--preserve-throttles",
                "--reassignment-json-file",
                &file,
            ],
        )?;
        let done = text.lines().filter(|line| line.ends_with("is completed."));
        Ok(i32::try_from(done.count()) == Ok(PARTITIONS))
    })
}

pub(crate) fn reassign(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let mut tool = tools::java(
        "-Xmx128m",
        "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    )?;
    tool.args(["--bootstrap-server", &cluster.bootstrap()])
        .args(arguments);
    Ok(process::run(&mut tool, Duration::from_secs(120))?.text())
}

/// Replicas of the topic in all data directories, as Kafka's tool finds them.
fn replicas_on_disk(cluster: &Cluster) -> Result<usize> {
    let mut tool = tools::java("-Xmx128m", "org.apache.kafka.tools.LogDirsCommand")?;
    tool.args([
        "--bootstrap-server",
        &cluster.bootstrap(),
        "--describe",
        "--topic-list",
        TOPIC,
    ]);
    let text = process::run(&mut tool, Duration::from_secs(120))?.text();
    Ok(text.matches(&format!(r#""partition":"{TOPIC}-"#)).count())
}
