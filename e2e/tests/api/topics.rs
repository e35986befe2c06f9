//! Topics with a real broker, and how their resources go.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::Broker;
use takhin_e2e::kubernetes::{ControlPlane, text};
use takhin_e2e::{wait, wire};

use crate::brokers::bound;
use crate::room::{Room, SOON};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("topics: made, adopted, grown, refused, kept and deleted", lives);
    suites.add("topics: kubectl shows what there is, and scales", shown);
    suites.add("topics: nothing holds up what is deleted", gone);
}

/// Partitions of a topic as the broker has it; none if there is no such topic.
fn partitions(broker: &Broker, topic: &str) -> Result<i32> {
    wire::Connection::open(broker.address())?.partitions(topic)
}

/// A second resource for a topic. It is made in a later second than the first: ages are told in seconds, and of two that are
/// as old as each other either may have the topic.
fn claims_again(room: &Room<'_>) -> Result<()> {
    let clock = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map(|since| since.as_secs())
    };
    let now = clock()?;
    wait::until("the next second", SOON, || Ok(clock()? > now))?;
    room.topic("second", "prod", json!({ "topicName": "shop.Orders" }))?;
    let said = room.condition("Topic", "second", "Ready", ("False", "TopicNameConflict"))?;
    ensure!(said.contains("orders"), "{said}");
    Ok(())
}

fn lives(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "topics")?;
    let operator = room.lone_operator()?;
    room.topic("early", "prod", json!({}))?;
    room.condition("Topic", "early", "Ready", ("False", "ClusterNotFound"))?;
    room.small_cluster("prod")?;
    room.condition("Topic", "early", "Ready", ("False", "ClusterNotReady"))?;
    let broker = room.broker("prod").with_context(|| operator.tail())?;
    room.condition("Topic", "early", "Ready", ("True", "Synced"))?;

    room.topic(
        "orders",
        "prod",
        json!({ "topicName": "shop.Orders", "partitions": 3, "config": { "retention.ms": "1000" } }),
    )?;
    room.condition("Topic", "orders", "Ready", ("True", "Synced"))?;
    ensure!(partitions(&broker, "shop.Orders")? == 3);
    room.topic(
        "orders",
        "prod",
        json!({ "topicName": "shop.Orders", "partitions": 5, "config": {} }),
    )?;
    room.wait("Topic", "orders", "5 partitions, no settings", |topic| {
        (topic["status"]["partitions"] == 5 && topic["status"]["config"].is_null()).then_some(())
    })?;
    ensure!(partitions(&broker, "shop.Orders")? == 5);

    let mut client = wire::Connection::open(broker.address())?;
    ensure!(client.create_topic("adopted", 7, &[])? == 0);
    room.topic(
        "adopted",
        "prod",
        json!({ "partitions": 6, "deletionPolicy": "Retain" }),
    )?;
    let said = room.condition(
        "Topic",
        "adopted",
        "Ready",
        ("False", "PartitionDecreaseNotSupported"),
    )?;
    ensure!(said.contains('7') && said.contains('6'), "{said}");
    claims_again(&room)?;
    room.topic("wide", "prod", json!({ "replicationFactor": 3 }))?;
    room.condition("Topic", "wide", "Ready", ("False", "InvalidReplicationFactor"))?;
    room.topic("odd", "prod", json!({ "config": { "retention.ms": "soon" } }))?;
    let said = room.condition("Topic", "odd", "Ready", ("False", "InvalidConfig"))?;
    ensure!(said.contains("retention.ms"), "{said}");

    for name in ["early", "second", "orders", "adopted", "wide", "odd"] {
        room.kube().delete("Topic", &room.name, name)?;
        room.kube()
            .gone("Topic", &room.name, name, SOON)
            .with_context(|| operator.tail())?;
    }
    ensure!(
        partitions(&broker, "shop.Orders")? == 0,
        "the topic is still there"
    );
    ensure!(partitions(&broker, "adopted")? == 7, "the topic is gone");
    let events = room.kube().list("Event", &room.name)?;
    for reason in ["TopicCreated", "TopicDeleted"] {
        ensure!(
            events.iter().any(|event| text(event, "/reason") == reason),
            "no event {reason}"
        );
    }
    room.leave()
}

fn shown(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "shown")?;
    let operator = room.lone_operator()?;
    let spec = json!({ "replicas": 1, "storage": { "type": "PersistentVolumeClaim", "size": "1Gi" } });
    room.kube().apply(&room.ours("TakhinCluster", "prod", spec))?;
    room.soon("PersistentVolumeClaim", "data-prod-0")?;
    bound(&room, "data-prod-0", "1Gi")?;
    let _broker = room.broker("prod").with_context(|| operator.tail())?;
    room.topic(
        "orders",
        "prod",
        json!({ "partitions": 6, "replicationFactor": 1 }),
    )?;
    room.condition("Topic", "orders", "Ready", ("True", "Synced"))?;
    let spec = json!({
        "clusterRef": { "name": "prod" },
        "source": { "host": "pika", "port": 9221 },
        "sink": { "topic": "profiles" },
    });
    room.kube().apply(&room.ours("PikaSource", "profiles", spec))?;
    room.condition("PikaSource", "profiles", "Ready", ("False", "WorkloadNotReady"))?;

    let version = env!("CARGO_PKG_VERSION");
    let get = |what: &str| plane.kubectl(&["get", what, "-n", &room.name]);
    let expected = [
        "NAME READY BROKERS VERSION PROGRESS AGE".to_owned(),
        format!("takhincluster.takhin.io/prod True 1/1 {version} Idle AGE"),
        String::new(),
        "NAME CLUSTER PARTITIONS REPLICAS READY REASON AGE".to_owned(),
        "topic.takhin.io/orders prod 6 1 True Synced AGE".to_owned(),
        String::new(),
        "NAME CLUSTER TOPIC PHASE LAG READY AGE".to_owned(),
        "pikasource.takhin.io/profiles prod profiles Pending False AGE".to_owned(),
    ];
    // Kinds come in the order of their names.
    let all = words(&get("takhin")?);
    for line in &expected {
        ensure!(all.contains(line), "no line {line:?} in {all:#?}");
    }
    ensure!(
        words(&get("tkc")?)[1] == "prod True 1/1 0.1.0 Idle AGE",
        "{}",
        get("tkc")?
    );
    ensure!(
        words(&get("tt")?)[1] == "orders prod 6 1 True Synced AGE",
        "{}",
        get("tt")?
    );
    ensure!(words(&get("pika")?).len() == 2, "{}", get("pika")?);
    let wide = plane.kubectl(&["get", "tkc", "-n", &room.name, "-o", "wide"])?;
    ensure!(
        wide.contains("Serving") && wide.contains("1 of 1 brokers ready"),
        "{wide}"
    );
    let cluster = format!("--namespace={}", room.name);
    plane.kubectl(&[
        "wait",
        "topic/orders",
        "--for=condition=Ready",
        "--timeout=5s",
        &cluster,
    ])?;
    subresources(&room)
}

/// The lines of a table with one space between words, and without the age.
fn words(table: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if words
            .last()
            .is_some_and(|last| last.ends_with('s') && last.starts_with(|first: char| first.is_ascii_digit()))
        {
            words.pop();
            words.push("AGE");
        }
        words.join(" ")
    };
    table.lines().map(line).collect()
}

/// Status and spec are written apart; `kubectl scale` works.
fn subresources(room: &Room<'_>) -> Result<()> {
    let kube = room.kube();
    let lie = json!({ "status": { "readyReplicas": 77 }, "spec": { "replicas": 1 } });
    let after = kube.merge("TakhinCluster", &room.name, "prod", &lie)?;
    ensure!(after["status"]["readyReplicas"] == 1, "{after:#}");
    let lie = json!({ "status": { "readyReplicas": 1 }, "spec": { "replicas": 9 } });
    let after = kube.merge_status("TakhinCluster", &room.name, "prod", &lie)?;
    ensure!(after["spec"]["replicas"] == 1, "{after:#}");
    let namespace = format!("--namespace={}", room.name);
    room.plane()
        .kubectl(&["scale", "takhincluster/prod", "--replicas=2", &namespace])?;
    room.wait("StatefulSet", "prod", "2 replicas", |set| {
        (set["spec"]["replicas"] == 2).then_some(())
    })?;
    room.condition("TakhinCluster", "prod", "Progressing", ("True", "ScalingUp"))?;
    let path = format!(
        "/apis/takhin.io/v1alpha1/namespaces/{}/takhinclusters/prod/scale",
        room.name
    );
    let scale = room.plane().kubectl(&["get", "--raw", &path])?;
    let scale: serde_json::Value = serde_json::from_str(&scale)?;
    ensure!(
        scale["spec"]["replicas"] == 2 && scale["status"]["replicas"] == 2,
        "{scale:#}"
    );
    ensure!(
        text(&scale, "/status/selector").contains("takhin.io/cluster=prod"),
        "{scale:#}"
    );
    // Nobody has joined: the second goes again at once.
    room.plane()
        .kubectl(&["scale", "takhincluster/prod", "--replicas=1", &namespace])?;
    room.wait("StatefulSet", "prod", "1 replica", |set| {
        (set["spec"]["replicas"] == 1).then_some(())
    })?;
    kube.delete("Namespace", "", &room.name)?;
    kube.gone("Namespace", "", &room.name, SOON * 2)
}

fn gone(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "gone")?;
    let operator = room.lone_operator()?;
    room.small_cluster("prod")?;
    let broker = room.broker("prod").with_context(|| operator.tail())?;
    for name in ["first", "second", "third"] {
        room.topic(name, "prod", json!({}))?;
        room.condition("Topic", name, "Ready", ("True", "Synced"))?;
        let topic = room.soon("Topic", name)?;
        ensure!(
            topic["metadata"]["finalizers"] == json!(["takhin.io/topic"]),
            "{topic:#}"
        );
    }
    // The cluster goes first: nobody asks its brokers.
    room.kube().delete("TakhinCluster", &room.name, "prod")?;
    room.condition("Topic", "first", "Ready", ("False", "ClusterNotFound"))?;
    room.kube().delete("Topic", &room.name, "first")?;
    room.kube().gone("Topic", &room.name, "first", SOON)?;
    ensure!(
        partitions(&broker, "first")? > 0,
        "a topic of a cluster that is gone was deleted"
    );
    // Without an operator a topic stays, and goes with the next one.
    drop(operator);
    room.kube().delete("Topic", &room.name, "second")?;
    ensure!(room.kube().get("Topic", &room.name, "second")?.is_some());
    room.kube().delete("Namespace", "", &room.name)?;
    let operator = room.lone_operator()?;
    room.kube()
        .gone("Namespace", "", &room.name, SOON * 2)
        .with_context(|| operator.tail())
}
