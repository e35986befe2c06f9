//! A cluster that grows from one broker to five and shrinks to three, one of the first among those that go, while clients
//! write and commit.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use takhin_e2e::committer::{Commits, Committer};
use takhin_e2e::kcat::placements;
use takhin_e2e::wire::{Asker, Connection};
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Cluster, process, replicas, tools, wait};

use crate::crash::all_answered;
use crate::suite::{Context, Suites};

const TOPIC: &str = "elastic";
const OFFSETS: &str = "__consumer_offsets";
const PARTITIONS: i32 = 9;

/// Replicas are copied meanwhile.
const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("elastic::a_cluster_grows_and_shrinks_under_load", elastic);
}

fn elastic(_: &Context) -> Result<()> {
    let mut cluster = Cluster::found_with(5, 1, |_, broker| {
        broker.set("kafka.groups.offsets_topic_partitions", "8");
        // The disk of the machine that runs this is its owner's.
        broker.set("cluster.rebalance.max_disk_usage", "100");
    })?;
    internal_topics_grow(&mut cluster)?;
    let bootstrap = addresses(&cluster, &[0, 1, 2]);
    let mut connection = Connection::open(cluster.brokers[0].address())?;
    let error = connection.create_replicated_topic(TOPIC, PARTITIONS, 3, &[("min.insync.replicas", "2")])?;
    ensure!(error == 0, "CreateTopics {TOPIC}: error {error}");
    let mut writer = Writer::start(&bootstrap, TOPIC, PARTITIONS)?;
    let mut committer = Committer::start(&bootstrap, TOPIC, PARTITIONS)?;
    progress(&mut writer, &mut committer)?;

    for joining in [3, 4] {
        cluster.start_again(joining)?;
    }
    replicas_are_even(&cluster, 5)?;
    progress(&mut writer, &mut committer)?;

    refuse_to_forget(&cluster)?;
    for leaving in [1, 4] {
        ask(&cluster, "POST", &format!("/v1/brokers/{leaving}/decommission"))?;
    }
    refuse_one_more(&cluster)?;
    progress(&mut writer, &mut committer)?;
    for leaving in [1, 4] {
        leave(&mut cluster, leaving)?;
        progress(&mut writer, &mut committer)?;
    }
    replicas_are_even(&cluster, 3)?;
    describe(&addresses(&cluster, &[1, 2, 4]))?;

    let log = writer.finish()?;
    all_answered(&writer::check(&addresses(&cluster, &[1, 2, 4]), TOPIC, &log)?)?;
    commits_are_there(&cluster, &committer.finish()?)?;
    replicas::wait_identical(&cluster.brokers, 3, LIMIT).map(drop)
}

/// The addresses of the brokers at these places of the list, with commas between them.
fn addresses(cluster: &Cluster, places: &[usize]) -> String {
    let addresses = places.iter().filter_map(|place| cluster.brokers.get(*place));
    addresses
        .map(takhin_e2e::Broker::bootstrap)
        .collect::<Vec<_>>()
        .join(",")
}

/// Asks the third broker, which stays.
fn ask(cluster: &Cluster, method: &str, path: &str) -> Result<Value> {
    let (status, json) = cluster.brokers[2].ask_admin(method, path, None)?;
    ensure!(status == 200, "{method} {path}: {status} {json}");
    Ok(json)
}

/// The clients go on.
fn progress(writer: &mut Writer, committer: &mut Committer) -> Result<()> {
    writer.wait_acked(1_000, LIMIT)?;
    let goal = committer.commits()?.total("members") + 50;
    committer.wait("commits", LIMIT, |commits| commits.total("members") >= goal)
}

/// What groups keep is on one broker at first, and on three once there are three.
fn internal_topics_grow(cluster: &mut Cluster) -> Result<()> {
    let mut connection = Connection::open(cluster.brokers[0].address())?;
    let error = connection.create_replicated_topic("first", 1, 1, &[])?;
    ensure!(error == 0, "CreateTopics first: error {error}");
    let asker = Asker {
        group: "first",
        generation: -1,
        member: "",
    };
    wait::until("an offset to be committed", LIMIT, || {
        // Who looks for the coordinator has the topic made.
        let found = connection.find_coordinator(asker.group)?;
        Ok(found == 0 && connection.offset_commit(asker, "first", 0, 7, "")? == 0)
    })?;
    let founder = addresses(cluster, &[0]);
    let replicas = |bootstrap: &str| -> Result<Vec<usize>> {
        let placements = placements(bootstrap, OFFSETS)?;
        Ok(placements
            .iter()
            .map(|p| p.replicas.len().min(p.in_sync))
            .collect())
    };
    ensure!(replicas(&founder)? == [1; 8], "{:?}", replicas(&founder)?);
    for joining in [1, 2] {
        cluster.start_again(joining)?;
    }
    wait::until("internal topics to have three replicas", LIMIT, || {
        Ok(replicas(&founder)? == [3; 8])
    })
}

/// Waits until so many brokers are left and have equally many replicas, but for one, of which none lacks anything.
fn replicas_are_even(cluster: &Cluster, brokers: usize) -> Result<()> {
    let mut last = Value::Null;
    let even = wait::until(
        format_args!("replicas to be even on {brokers} brokers"),
        LIMIT,
        || {
            last = ask(cluster, "GET", "/v1/brokers")?;
            let counts = last["brokers"].as_array().into_iter().flatten();
            let counts: Vec<u64> = counts.filter_map(|broker| broker["replicas"].as_u64()).collect();
            let (Some(least), Some(most)) = (counts.iter().min(), counts.iter().max()) else {
                return Ok(false);
            };
            let mut connection = Connection::open(cluster.brokers[2].address())?;
            let told = connection.metadata_brokers()?;
            Ok(counts.len() == brokers && most - least <= 1 && usize::try_from(told)? == brokers)
        },
    );
    even.with_context(|| last.to_string())
}

/// Kafka's tool that forgets brokers; what it says.
fn forget(cluster: &Cluster, id: i32) -> Result<String> {
    let mut tool = tools::java("-Xmx128m", "org.apache.kafka.tools.ClusterTool")?;
    tool.args(["unregister", "--bootstrap-server", &addresses(cluster, &[2])]);
    tool.args(["--id", &id.to_string()]);
    let output = process::run_any(&mut tool, Duration::from_secs(120))?;
    Ok(output.text() + &output.stderr)
}

fn refuse_to_forget(cluster: &Cluster) -> Result<()> {
    let text = forget(cluster, 4)?;
    ensure!(text.contains("it has replicas of"), "unregister 4: {text}");
    let text = forget(cluster, 9)?;
    ensure!(
        text.contains("no broker 9 is registered") || text.contains("not registered"),
        "unregister 9: {text}"
    );
    Ok(())
}

/// Two of five are on their way out: three replicas need the other three.
fn refuse_one_more(cluster: &Cluster) -> Result<()> {
    let (status, problem) = cluster.brokers[2].ask_admin("POST", "/v1/brokers/2/decommission", None)?;
    ensure!(status == 409, "a third broker: {status} {problem}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains(TOPIC) && detail.contains(OFFSETS), "{problem}");
    let mut connection = Connection::open(cluster.brokers[2].address())?;
    let error = connection.create_replicated_topic("too-wide", 1, 4, &[])?;
    // INVALID_REPLICATION_FACTOR
    ensure!(error == 38, "a topic of four replicas: error {error}");
    Ok(())
}

/// Waits until the broker has nothing any more, stops it and has it forgotten.
fn leave(cluster: &mut Cluster, id: i32) -> Result<()> {
    let path = format!("/v1/brokers/{id}/decommission");
    let mut last = Value::Null;
    let done = wait::until(format_args!("broker {id} to be decommissioned"), LIMIT, || {
        last = ask(cluster, "GET", &path)?;
        Ok(last["done"] == true)
    });
    done.with_context(|| last.to_string())?;
    ensure!(last["replicas"] == 0 && last["voter"] == false, "{last}");
    let text = forget(cluster, id)?;
    ensure!(text.contains("it is running"), "unregister {id}: {text}");
    let place = usize::try_from(id - 1)?;
    cluster.brokers[place].stop()?;
    wait::until(format_args!("broker {id} to be forgotten"), LIMIT, || {
        forget(cluster, id)?;
        let brokers = ask(cluster, "GET", "/v1/brokers")?;
        let mut brokers = brokers["brokers"].as_array().into_iter().flatten();
        Ok(brokers.all(|broker| broker["id"] != id))
    })
}

/// Kafka's tool finds three replicas in sync of every partition, on the brokers that are left.
fn describe(bootstrap: &str) -> Result<()> {
    let mut tool = tools::java("-Xmx128m", "org.apache.kafka.tools.TopicCommand")?;
    tool.args(["--bootstrap-server", bootstrap, "--describe", "--topic", TOPIC]);
    let text = process::run(&mut tool, Duration::from_secs(120))?.text();
    let partitions: Vec<&str> = text.lines().filter(|line| line.contains("Partition: ")).collect();
    ensure!(partitions.len() == usize::try_from(PARTITIONS)?, "{text}");
    for line in partitions {
        for list in ["Replicas: ", "Isr: "] {
            let rest = line.split(list).nth(1).unwrap_or_default();
            let mut ids: Vec<&str> = rest
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .split(',')
                .collect();
            ids.sort_unstable();
            ensure!(ids == ["2", "3", "5"], "{line}");
        }
    }
    Ok(())
}

/// Every offset is there as it was acknowledged, or as it was sent later; the first one, too.
fn commits_are_there(cluster: &Cluster, log: &Commits) -> Result<()> {
    for ((group, partition), acked) in &log.acked {
        let found = committed(cluster, group, TOPIC, *partition)?;
        let sent = log.sent[&(group.clone(), *partition)];
        ensure!(
            (*acked..=sent).contains(&found),
            "{group} {partition}: {acked} was acknowledged, {found} is there"
        );
    }
    let first = committed(cluster, "first", "first", 0)?;
    ensure!(first == 7, "the first commit is {first}");
    Ok(())
}

/// The committed offset, as whichever broker coordinates the group says.
fn committed(cluster: &Cluster, group: &str, topic: &str, partition: i32) -> Result<i64> {
    wait::value("a coordinator", LIMIT, || {
        for place in [1, 2, 4] {
            let mut connection = Connection::open(cluster.brokers[place].address())?;
            if let (0, offset) = connection.offset_fetch(group, topic, partition)? {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    })
}
