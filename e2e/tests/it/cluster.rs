//! Several brokers: stock clients while brokers die, come back and stop.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use takhin_e2e::kcat::{self, Placement, placements};
use takhin_e2e::process::{self, Running};
use takhin_e2e::rng::Rng;
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Broker, Cluster, broker, tools, wait, wire};

use crate::crash::{LIMIT, PARTITIONS, all_answered, sound};
use crate::suite::{Context, Suites};

pub(crate) const TOPIC: &str = "replicated";

/// Kills per run.
const KILLS: u64 = 9;

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("cluster::the_death_of_any_broker_loses_nothing", kill_loop);
    suites.add_takhin("cluster::brokers_restart_in_turn_under_load", rolling_restart);
    suites.add_takhin(
        "cluster::brokers_that_come_back_elsewhere_are_found_without_their_seeds",
        elsewhere,
    );
    suites.add_takhin("cluster::one_command_runs_three_brokers", one_command);
}

/// The topic that is created through this broker.
fn own_topic(broker: &Broker) -> String {
    format!("{TOPIC}-{}", broker.address().port())
}

pub(crate) fn create(cluster: &Cluster) -> Result<()> {
    // Any broker takes what only the controller can do.
    for broker in &cluster.brokers {
        let mut connection = wire::Connection::open(broker.address())?;
        let name = own_topic(broker);
        let error = connection.create_replicated_topic(&name, PARTITIONS, 3, &[])?;
        ensure!(
            error == 0,
            "CreateTopics {name} at {}: error {error}",
            broker.address()
        );
    }
    let mut connection = wire::Connection::open(cluster.brokers[0].address())?;
    let error = connection.create_replicated_topic(TOPIC, PARTITIONS, 3, &[])?;
    ensure!(error == 0, "CreateTopics {TOPIC}: error {error}");
    Ok(())
}

/// One broker after the other is killed with -9 and comes back, leader or not, while idempotent producers write.
fn kill_loop(_: &Context) -> Result<()> {
    let mut rng = Rng::from_env("cluster");
    let mut cluster = Cluster::start(3)?;
    create(&cluster)?;
    let mut writer = Writer::start(&cluster.bootstrap(), TOPIC, PARTITIONS)?;
    for _ in 0..KILLS {
        writer.wait_acked(usize::try_from(rng.within(500..3_000))?, LIMIT)?;
        let victim = usize::try_from(rng.within(0..3))?;
        cluster.brokers[victim].kill();
        // The other two go on alone.
        writer.wait_acked(500, LIMIT)?;
        cluster.start_again(victim)?;
    }
    writer.wait_acked(500, LIMIT)?;
    let log = writer.finish()?;
    sound(&writer::check(&cluster.bootstrap(), TOPIC, &log)?)
}

/// Each broker is stopped in order and started again.
fn rolling_restart(_: &Context) -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    create(&cluster)?;
    let mut writer = Writer::start(&cluster.bootstrap(), TOPIC, PARTITIONS)?;
    for broker in 0..cluster.brokers.len() {
        writer.wait_acked(1_000, LIMIT)?;
        cluster.brokers[broker].stop()?;
        writer.wait_acked(1_000, LIMIT)?;
        cluster.start_again(broker)?;
    }
    writer.wait_acked(1_000, LIMIT)?;
    elect_preferred(&cluster)?;
    writer.wait_acked(1_000, LIMIT)?;
    let log = writer.finish()?;
    all_answered(&writer::check(&cluster.bootstrap(), TOPIC, &log)?)
}

/// All brokers move to other addresses, one after the other under load and then all at once, until the list of seeds that
/// they were founded with leads nowhere.
fn elsewhere(_: &Context) -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    create(&cluster)?;
    // One for each of the clients.
    let topics: Vec<String> = cluster.brokers.iter().map(own_topic).collect();
    for (place, topic) in topics.iter().enumerate() {
        // A client begins anew with the addresses it was given when it loses all others.
        let mut writer = Writer::start(&cluster.bootstrap(), topic, PARTITIONS)?;
        writer.wait_acked(1_000, LIMIT)?;
        cluster.brokers[place].kill();
        cluster.brokers[place].relocate()?;
        cluster.start_again(place)?;
        is_found(&cluster)?;
        writer.wait_acked(1_000, LIMIT)?;
        let log = writer.finish()?;
        sound(&writer::check(&cluster.bootstrap(), topic, &log)?)?;
    }
    for broker in &mut cluster.brokers {
        broker.kill();
    }
    for broker in &mut cluster.brokers {
        broker.start_process()?;
    }
    for broker in &mut cluster.brokers {
        broker.wait_ready()?;
    }
    is_found(&cluster)
}

/// Waits until every broker sends clients to where all are now, and all replicas are in sync.
fn is_found(cluster: &Cluster) -> Result<()> {
    let mut now: Vec<String> = cluster.brokers.iter().map(Broker::bootstrap).collect();
    now.sort_unstable();
    for broker in &cluster.brokers {
        let bootstrap = broker.bootstrap();
        wait::until(
            format_args!("{bootstrap} to tell of {now:?} with all replicas in sync"),
            LIMIT,
            || {
                let mut told = kcat::brokers(&bootstrap)?;
                told.sort_unstable();
                let placements = placements(&bootstrap, TOPIC)?;
                Ok(told == now && placements.iter().all(|p| p.in_sync == p.replicas.len()))
            },
        )?;
    }
    Ok(())
}

/// Kafka's own tool has the first replica of every partition lead.
fn elect_preferred(cluster: &Cluster) -> Result<()> {
    let bootstrap = cluster.bootstrap();
    wait::until("all replicas to be in sync", LIMIT, || {
        Ok(placements(&bootstrap, TOPIC)?
            .iter()
            .all(|p| p.in_sync == p.replicas.len()))
    })?;
    let mut tool = tools::java("-Xmx128m", "org.apache.kafka.tools.LeaderElectionCommand")?;
    tool.args(["--bootstrap-server", &bootstrap, "--election-type", "preferred"]);
    tool.arg("--all-topic-partitions");
    let output = process::run(&mut tool, LIMIT)?;
    ensure!(
        !output.text().contains("Error"),
        "leader-election: {}",
        output.text()
    );
    // Whichever broker kcat asks may hear of it a little later than the one that the tool asked.
    wait::until("all to be led by their first replica", LIMIT, || {
        let is_stray = |placement: &Placement| placement.replicas.first() != Some(&placement.leader);
        Ok(!placements(&bootstrap, TOPIC)?.iter().any(is_stray))
    })
}

/// `takhin dev --nodes 3`, what it prints, and one of the three killed.
fn one_command(_: &Context) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let output = dir.path().join("output");
    let file = fs::File::create(&output)?;
    let mut command = Command::new(broker::takhin_binary()?);
    command
        .args(["dev", "--nodes", "3", "--data-dir"])
        .arg(dir.path().join("data"));
    // Ports count up, so that free ones must lie in a row: on addresses of this machine that nobody else uses.
    command.args([
        "--kafka",
        "127.77.0.1:9092",
        "--admin",
        "127.77.0.2:9644",
        "--rpc",
        "127.77.0.3:33145",
    ]);
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let mut run = Running::start(&mut command)?;
    let printed = wait::value("three brokers to be ready", LIMIT, || {
        let text = fs::read_to_string(&output)?;
        if let Some(status) = run.ended()? {
            bail!(
                "`takhin dev --nodes 3` {}:\n{}",
                process::ending(status),
                process::tail(&text, 30)
            );
        }
        Ok(text.contains("Stop all with").then_some(text))
    })?;
    let words: Vec<&str> = printed.split_whitespace().collect();
    let after = |word: &str| words.iter().skip_while(|w| **w != word).nth(1).copied();
    let bootstrap = after("-b").context("no address is printed")?;
    ensure!(bootstrap.split(',').count() == 3, "addresses: {bootstrap}");

    let hello = dir.path().join("hello");
    fs::write(&hello, "hello\n")?;
    let mut produce = tools::kcat();
    produce
        .args(["-P", "-b", bootstrap, "-t", "first", "-X", "acks=all", "-l"])
        .arg(&hello);
    process::run(&mut produce, Duration::from_secs(60))?;
    let pid = after("pid").context("no pid is printed")?;
    process::run(Command::new("kill").args(["-9", pid]), Duration::from_secs(10))?;
    let mut consume = tools::kcat();
    consume.args(["-C", "-b", bootstrap, "-t", "first", "-e", "-q"]);
    let read = process::run(&mut consume, Duration::from_secs(60))?;
    ensure!(read.text() == "hello\n", "`kcat -C` printed {:?}", read.text());
    run.terminate()?;
    let status = run.wait(Duration::from_secs(60))?;
    ensure!(
        status.success(),
        "`takhin dev --nodes 3` {}",
        process::ending(status)
    );
    Ok(())
}
