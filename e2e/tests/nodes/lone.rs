//! A broker on its own, whose restart is an outage.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::kubernetes::{Ground, condition, text};
use takhin_e2e::{kcat, wait};

use crate::house::{House, LIMIT};
use crate::stage::Suites;
use crate::story::produce;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "lone::a_broker_without_a_volume_begins_anew_with_its_pod",
        begins_anew,
    );
    suites.add(
        "lone::a_broker_with_a_volume_is_restarted_and_that_is_told",
        restarted,
    );
}

/// What it had is gone, and it serves: the topic is made again.
fn begins_anew(cluster: &Ground) -> Result<()> {
    let spec = json!({ "replicas": 1, "storage": { "type": "Ephemeral" } });
    let house = House::build_as(cluster, "ephemeral", &spec)?;
    orders(&house)?;
    let first = synced(&house, "")?;
    produce(&house.inside(), "orders", 10)?;
    ensure!(kcat::consume(&house.inside(), "orders", None, "beginning")?.len() == 10);
    let before = house.pods()?;
    let uid = before.get("prod-0").context("no pod prod-0")?;
    cluster.kubectl(&["delete", "pod", "-n", house.namespace, "prod-0"])?;
    house.back("Pod", "prod-0", uid)?;
    synced(&house, &first)?;
    house.quiet()?;
    produce(&house.inside(), "orders", 5)?;
    let records = kcat::consume(&house.inside(), "orders", None, "beginning")?.len();
    ensure!(records == 5, "{records} records of 5");
    house.leave()
}

/// A topic of one replica.
fn orders(house: &House<'_>) -> Result<()> {
    house.apply(&json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "Topic",
        "metadata": { "name": "orders", "namespace": house.namespace },
        "spec": { "clusterRef": { "name": "prod" }, "partitions": 3 },
    }))
}

/// Waits until it is synced, as another topic than the one with this id; its id.
fn synced(house: &House<'_>, but: &str) -> Result<String> {
    house.wait("Topic", "orders", "to be synced", |seen| {
        let (status, ..) = condition(seen, "Ready")?;
        let id = text(seen, "/status/topicId");
        (status == "True" && id != but).then(|| id.to_owned())
    })
}

/// Nobody takes over from it: it is restarted all the same, with an event that says so, and has what it had.
fn restarted(cluster: &Ground) -> Result<()> {
    let spec = json!({
        "replicas": 1,
        "storage": { "type": "PersistentVolumeClaim", "size": "1Gi", "className": cluster.class() },
    });
    let house = House::build_as(cluster, "lone", &spec)?;
    orders(&house)?;
    let id = synced(&house, "")?;
    produce(&house.inside(), "orders", 10)?;
    let before = house.pods()?;
    let uid = before.get("prod-0").context("no pod prod-0")?;
    house.change(&json!({ "metadata": { "annotations": { "takhin.io/restart": "now" } } }))?;
    house.back("Pod", "prod-0", uid)?;
    house.quiet()?;
    let after = synced(&house, "")?;
    ensure!(after == id, "another topic than before: {after}, not {id}");
    let what = "the records from before the restart";
    wait::until(what, LIMIT, || {
        let read = kcat::consume(&house.inside(), "orders", None, "beginning").unwrap_or_default();
        Ok(read.len() == 10)
    })?;
    let events = cluster.kube().list("Event", house.namespace)?;
    let told = events
        .iter()
        .find(|event| text(event, "/reason") == "UnsafeRestart");
    let told = told.context("no event UnsafeRestart")?;
    ensure!(
        text(told, "/regarding/name") == "prod" && text(told, "/note").contains("broker 0"),
        "{told:#}"
    );
    house.leave()
}
