//! Listeners with load balancers, for which the test plays the cloud: it gives each Service an address, which kube-proxy then
//! leads to its pods.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{Ground, condition, text};
use takhin_e2e::{kcat, process};

use crate::house::House;
use crate::stage::{Suites, local};
use crate::story::produce;

/// Addresses that are given: of documentation (RFC 5737), so that nobody has them.
const NETWORK: &str = "203.0.113";

pub(crate) fn add(suites: &mut Suites) {
    suites.add_if(
        local(),
        "balancers::addresses_of_a_cloud_are_told_to_clients_and_stay",
        balanced,
    );
}

fn balanced(cluster: &Ground) -> Result<()> {
    // Packets to such addresses have to be sent somewhere before kube-proxy can turn them.
    let mut route = Command::new("ip");
    route.args(["route", "replace", &format!("{NETWORK}.0/24"), "dev", "lo"]);
    process::run(&mut route, Duration::from_secs(10))?;
    let house = begin(cluster)?;
    house.wait("TakhinCluster", "prod", "to say who has no address", |seen| {
        let (status, reason, message) = condition(seen, "Ready")?;
        let names = |service: &str| message.contains(&format!("Service prod-external-{service}"));
        let all = ["bootstrap", "0", "1", "2"].into_iter().all(names);
        ((status, reason) == ("False", "ListenerNotReady") && all).then_some(())
    })?;
    let given = give(&house)?;
    settled(&house)?;
    let before = told(&house)?;
    let wanted: Vec<String> = (0..3)
        .map(|broker| format!("{}:9094", given[&format!("prod-external-{broker}")]))
        .collect();
    ensure!(before == wanted, "{before:?} are told, {wanted:?} were given");

    let bootstrap = format!("{}:9094", given["prod-external-bootstrap"]);
    house.topic("balanced")?;
    produce(&bootstrap, "balanced", 100)?;
    let records = kcat::consume(&bootstrap, "balanced", None, "beginning")?.len();
    ensure!(records == 100, "{records} records of 100 at {bootstrap}");

    let pods = house.pods()?;
    house.change(&json!({ "metadata": { "annotations": { "takhin.io/restart": "now" } } }))?;
    house.wait("TakhinCluster", "prod", "every pod to be another one", |_| {
        let now = house.pods().ok()?;
        pods.iter()
            .all(|(name, uid)| now.get(name).is_some_and(|now| now != uid))
            .then_some(())
    })?;
    settled(&house)?;
    let after = told(&house)?;
    ensure!(after == before, "{before:?} were told, now {after:?}");
    produce(&bootstrap, "balanced", 100)?;
    let records = kcat::consume(&bootstrap, "balanced", None, "beginning")?.len();
    ensure!(records == 200, "{records} records of 200 at {bootstrap}");
    house.leave()
}

/// A cluster whose clients outside come by load balancers.
fn begin(cluster: &Ground) -> Result<House<'_>> {
    let house = House {
        cluster,
        namespace: "balanced",
    };
    house.apply(&json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": house.namespace },
    }))?;
    house.apply(&json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "TakhinCluster",
        "metadata": { "name": "prod", "namespace": house.namespace },
        "spec": {
            "replicas": 3,
            "storage": { "type": "PersistentVolumeClaim", "size": "1Gi", "className": cluster.class() },
            "listeners": [
                { "name": "internal", "port": 9092, "type": "Internal" },
                { "name": "external", "port": 9094, "type": "LoadBalancer" },
            ],
        },
    }))?;
    Ok(house)
}

/// What a cloud does: every Service of this type gets an address. Returns them by name.
fn give(house: &House<'_>) -> Result<BTreeMap<String, String>> {
    let kube = house.cluster.kube();
    let mut given = BTreeMap::new();
    for (index, name) in ["bootstrap", "0", "1", "2"].into_iter().enumerate() {
        let service = format!("prod-external-{name}");
        house.wait("Service", &service, "to ask for an address", |seen| {
            (text(seen, "/spec/type") == "LoadBalancer").then_some(())
        })?;
        let address = format!("{NETWORK}.{}", 10 + index);
        let status = json!({ "loadBalancer": { "ingress": [{ "ip": address }] } });
        kube.merge_status("Service", house.namespace, &service, &json!({ "status": status }))?;
        given.insert(service, address);
    }
    Ok(given)
}

/// Waits until all brokers serve and nothing is under way. How full the disks of this machine are does not matter here.
fn settled(house: &House<'_>) -> Result<()> {
    house.wait(
        "TakhinCluster",
        "prod",
        "to serve, with nothing under way",
        |seen| {
            let whole = seen.pointer("/status/readyReplicas") == seen.pointer("/spec/replicas");
            let current = seen.pointer("/status/observedGeneration") == seen.pointer("/metadata/generation");
            let (ready, ..) = condition(seen, "Ready")?;
            let (moving, ..) = condition(seen, "Progressing")?;
            (whole && current && [ready, moving] == ["True", "False"]).then_some(())
        },
    )
}

/// The brokers' addresses, as the status tells them.
fn told(house: &House<'_>) -> Result<Vec<String>> {
    let cluster = house
        .cluster
        .kube()
        .get("TakhinCluster", house.namespace, "prod")?
        .context("no cluster")?;
    let listeners = cluster["status"]["listeners"]
        .as_array()
        .context("no listeners")?;
    let external = listeners
        .iter()
        .find(|listener| listener["name"] == "external")
        .context("no listener external")?;
    let addresses = external["addresses"].as_array().context("no addresses")?;
    Ok(addresses
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect())
}
