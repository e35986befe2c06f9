//! The life of topics in a cluster that serves.

use std::net::ToSocketAddrs as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{Ground, condition, refusal, text};
use takhin_e2e::wire::{Connection, Of};
use takhin_e2e::{kcat, wait};

use crate::house::{House, LIMIT};
use crate::stage::Suites;
use crate::story::produce;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("topics::grown_refused_claimed_kept_deleted_and_taken_back", lives);
}

/// A setting, as it is wished and as somebody else sets it.
const SETTING: (&str, &str, &str) = ("retention.ms", "86400000", "3600000");

/// What a user does to topics, and what the brokers have then, as stock clients see it.
fn lives(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    // Taken back with the next look at all topics, two minutes later at most: the rest is done meanwhile.
    let (name, wished, other) = SETTING;
    let drifting = json!({ "partitions": 3, "replicationFactor": 3, "config": { name: wished } });
    apply(&house, "drifting", drifting)?;
    synced(&house, "drifting", 3)?;
    any(&house)?.set_config(Of::Topic("drifting"), name, other)?;
    is(&house, other)?;

    grows(&house)?;
    is_kept_and_adopted(&house)?;
    is_claimed_once(&house)?;

    is(&house, wished)?;
    wait::until("an event about it", LIMIT, || {
        let events = cluster.kube().list("Event", house.namespace)?;
        let tells = |event: &Value| {
            text(event, "/reason") == "TopicDrifted" && text(event, "/regarding/name") == "drifting"
        };
        Ok(events.iter().any(tells))
    })?;
    deleted(&house, "drifting", "drifting")
}

/// More partitions come with the records staying; fewer are refused by the API server.
fn grows(house: &House<'_>) -> Result<()> {
    let wish = |partitions: usize| json!({ "partitions": partitions, "replicationFactor": 3, "deletionPolicy": "Retain" });
    apply(house, "grown", wish(3))?;
    synced(house, "grown", 3)?;
    produce(&house.inside(), "grown", 100)?;
    apply(house, "grown", wish(5))?;
    synced(house, "grown", 5)?;
    has(house, "grown", 5)?;
    let refused = refusal(house.cluster.kube().merge(
        "Topic",
        house.namespace,
        "grown",
        &json!({ "spec": { "partitions": 4 } }),
    ))?;
    ensure!(
        refused.code == 422 && refused.message.contains("spec.partitions"),
        "{refused:?}"
    );
    has(house, "grown", 5)
}

/// A topic that was to be kept outlives its resource, with its records. Another resource that wishes for less says so and
/// changes nothing; one that wishes for what is there has it, and takes it along.
fn is_kept_and_adopted(house: &House<'_>) -> Result<()> {
    let kube = house.cluster.kube();
    kube.delete("Topic", house.namespace, "grown")?;
    kube.gone("Topic", house.namespace, "grown", LIMIT)?;
    has(house, "grown", 5)?;
    let fewer =
        json!({ "topicName": "grown", "partitions": 4, "replicationFactor": 3, "deletionPolicy": "Retain" });
    apply(house, "fewer", fewer)?;
    let said = not_ready(house, "fewer", "PartitionDecreaseNotSupported")?;
    ensure!(said.contains('5') && said.contains('4'), "{said}");
    has(house, "grown", 5)?;
    kube.delete("Topic", house.namespace, "fewer")?;
    kube.gone("Topic", house.namespace, "fewer", LIMIT)?;
    apply(house, "grown", json!({ "partitions": 5, "replicationFactor": 3 }))?;
    synced(house, "grown", 5)?;
    let records = kcat::consume(&house.inside(), "grown", None, "beginning")?.len();
    ensure!(records == 100, "{records} records of 100");
    deleted(house, "grown", "grown")
}

/// Of two resources for one topic the older one has it, and the other one takes over when that goes.
fn is_claimed_once(house: &House<'_>) -> Result<()> {
    let wish = |policy: &str| json!({ "topicName": "shop.Claimed", "partitions": 3, "replicationFactor": 3, "deletionPolicy": policy });
    apply(house, "first", wish("Retain"))?;
    synced(house, "first", 3)?;
    // Ages are told in seconds: readiness takes less than one of them.
    wait::until("the next second", LIMIT, || {
        apply(
            house,
            "clock",
            json!({ "topicName": "shop.Clock", "partitions": 1 }),
        )?;
        let made = |name| {
            let found = house.cluster.kube().get("Topic", house.namespace, name)?;
            let found = found.with_context(|| format!("no Topic {name}"))?;
            Ok::<_, anyhow::Error>(text(&found, "/metadata/creationTimestamp").to_owned())
        };
        let is_later = made("clock")? > made("first")?;
        deleted(house, "clock", "shop.Clock")?;
        Ok(is_later)
    })?;
    apply(house, "second", wish("Delete"))?;
    let said = not_ready(house, "second", "TopicNameConflict")?;
    ensure!(said.contains("first"), "{said}");
    let kube = house.cluster.kube();
    kube.delete("Topic", house.namespace, "first")?;
    synced(house, "second", 3)?;
    deleted(house, "second", "shop.Claimed")
}

fn apply(house: &House<'_>, name: &str, mut spec: Value) -> Result<()> {
    spec["clusterRef"] = json!({ "name": "prod" });
    house.apply(&json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "Topic",
        "metadata": { "name": name, "namespace": house.namespace },
        "spec": spec,
    }))
}

/// Waits until a topic is as it is wished now, with so many partitions.
fn synced(house: &House<'_>, name: &str, partitions: usize) -> Result<()> {
    house.wait(
        "Topic",
        name,
        &format!("to have {partitions} partitions"),
        |seen| {
            let (status, reason, _) = condition(seen, "Ready")?;
            let current = seen.pointer("/status/observedGeneration") == seen.pointer("/metadata/generation");
            let has = seen.pointer("/status/partitions")? == &json!(partitions);
            (current && has && (status, reason) == ("True", "Synced")).then_some(())
        },
    )
}

/// Waits until a topic is refused for this reason; what is said of it.
fn not_ready(house: &House<'_>, name: &str, reason: &str) -> Result<String> {
    house.wait("Topic", name, &format!("to be refused: {reason}"), |seen| {
        let (status, has, message) = condition(seen, "Ready")?;
        ((status, has) == ("False", reason)).then(|| message.to_owned())
    })
}

/// Waits until any broker that is asked has so many partitions of it, each with three replicas in sync.
fn has(house: &House<'_>, topic: &str, partitions: usize) -> Result<()> {
    wait::until(format_args!("{partitions} partitions of {topic}"), LIMIT, || {
        let placed = kcat::placements(&house.inside(), topic).unwrap_or_default();
        Ok(placed.len() == partitions && placed.iter().all(|one| one.in_sync == 3))
    })
}

/// Deletes a resource; with it goes its topic.
fn deleted(house: &House<'_>, name: &str, topic: &str) -> Result<()> {
    let kube = house.cluster.kube();
    kube.delete("Topic", house.namespace, name)?;
    kube.gone("Topic", house.namespace, name, LIMIT)?;
    wait::until(format_args!("no topic {topic}"), LIMIT, || {
        Ok(any(house)?.partitions(topic)? == 0)
    })
}

/// A connection to any broker.
fn any(house: &House<'_>) -> Result<Connection> {
    let mut addresses = house.inside().to_socket_addrs()?;
    Connection::open(addresses.next().context("no broker has a name")?)
}

/// Waits until the brokers have this value of the setting.
fn is(house: &House<'_>, value: &str) -> Result<()> {
    let (name, ..) = SETTING;
    eprintln!("        waiting for {name} to be {value}");
    wait::until(format_args!("{name} to be {value}"), LIMIT, || {
        Ok(any(house)?.config(Of::Topic("drifting"), name)?.as_deref() == Some(value))
    })
}
