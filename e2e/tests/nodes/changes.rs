//! Changes of a cluster under load, and what befalls it meanwhile: nothing that was acknowledged is lost.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use takhin_e2e::kubernetes::{Ground, condition, text};
use takhin_e2e::{kcat, wait};

use crate::house::{House, LIMIT};
use crate::stage::{SYSTEM, Suites, local};
use crate::story::produce;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("changes::restart_while_the_operator_dies", restart);
    suites.add("changes::from_three_brokers_to_five_and_back", scale);
    suites.add("changes::more_and_fewer_replicas_of_a_topic", replicas);
    suites.add("changes::an_image_that_is_not_there_and_then_is", image);
    suites.add_if(local(), "changes::a_node_cut_off_and_back", node);
    suites.add_if(local(), "changes::larger_volumes", volumes);
    suites.add("changes::a_volume_lost_and_its_broker_renewed", lost);
    suites.add("changes::a_namespace_goes_whole", whole);
}

/// A restart that somebody asks for replaces every pod, one at a time, also when the operator that does it is killed.
fn restart(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    let before = house.pods()?;
    let writer = house.write("restarted")?;
    house.change(&json!({ "metadata": { "annotations": { "takhin.io/restart": "now" } } }))?;
    house.reason("Progressing", "RollingUpdate")?;
    kill_operator(cluster)?;
    house.wait("TakhinCluster", "prod", "every pod to be another one", |_| {
        let now = house.pods().ok()?;
        let replaced = before
            .iter()
            .all(|(name, uid)| now.get(name).is_some_and(|now| now != uid));
        replaced.then_some(())
    })?;
    house.quiet()?;
    house.check_smooth(writer)
}

/// Of the operators the one that works is killed; the other one takes over.
fn kill_operator(cluster: &Ground) -> Result<()> {
    let lease = cluster
        .kube()
        .get("Lease", SYSTEM, "takhin-operator")?
        .unwrap_or_default();
    let leader = text(&lease, "/spec/holderIdentity");
    let operators = cluster.kube().list("Pod", SYSTEM)?;
    let names = operators.iter().map(|pod| text(pod, "/metadata/name"));
    let leading: Vec<&str> = names.filter(|name| leader.starts_with(name)).collect();
    ensure!(leading.len() == 1, "{leader} is no pod's");
    cluster.kubectl(&[
        "delete",
        "pod",
        "-n",
        SYSTEM,
        leading[0],
        "--grace-period=0",
        "--force",
    ])?;
    Ok(())
}

/// Brokers come and take replicas, and go after they have given theirs away; fewer than a topic has replicas is refused.
/// Clients hardly notice, up or down.
fn scale(cluster: &Ground) -> Result<()> {
    // Of its own: every topic of another test would move too.
    let house = House::build(cluster, "scale")?;
    let writer = house.write("scaled")?;
    let wish = |replicas: usize| {
        house.change(&json!({ "spec": { "replicas": replicas } }))?;
        house.quiet()?;
        ensure!(house.pods()?.len() == replicas, "{:?}", house.pods()?);
        Ok(())
    };
    wish(5)?;
    takes_replicas(&house)?;
    // A wish that is taken back on the way, when the operator that began with it is gone.
    house.change(&json!({ "spec": { "replicas": 3 } }))?;
    house.wait("TakhinCluster", "prod", "brokers to leave", |seen| {
        let brokers = seen.pointer("/status/brokers")?.as_array()?;
        let leaves = |broker: &serde_json::Value| broker["state"] == "decommissioning";
        brokers.iter().any(leaves).then_some(())
    })?;
    kill_operator(cluster)?;
    wish(5)?;
    house.wait("TakhinCluster", "prod", "no broker to leave", |seen| {
        let brokers = seen.pointer("/status/brokers")?.as_array()?;
        let stays = |broker: &serde_json::Value| broker["state"] != "decommissioning";
        brokers.iter().all(stays).then_some(())
    })?;
    wish(3)?;
    house.spread("scaled", &[3, 4], false)?;
    // They come back to the volumes that they have left.
    wish(5)?;
    takes_replicas(&house)?;
    wish(3)?;
    house.spread("scaled", &[3, 4], false)?;
    house.change(&json!({ "spec": { "replicas": 2 } }))?;
    let message = house.wait("TakhinCluster", "prod", "to refuse two brokers", |seen| {
        let (status, _, message) = condition(seen, "ScaleDownBlocked")?;
        (status == "True").then(|| message.to_owned())
    })?;
    ensure!(message.contains("scaled"), "it names no topic: {message}");
    ensure!(house.pods()?.len() == 3, "{:?}", house.pods()?);
    house.change(&json!({ "spec": { "replicas": 3 } }))?;
    house.quiet()?;
    house.check_smooth(writer)?;
    house.leave()
}

/// Brokers that have come take replicas, in the racks that they are in.
fn takes_replicas(house: &House<'_>) -> Result<()> {
    house.spread("scaled", &[3, 4], true)?;
    house.wait(
        "TakhinCluster",
        "prod",
        "to tell of replicas on all brokers",
        |seen| {
            let brokers = seen.pointer("/status/brokers")?.as_array()?;
            let has = |broker: &serde_json::Value| broker["replicas"].as_u64() > Some(0);
            (brokers.len() == 5 && brokers.iter().all(has)).then_some(())
        },
    )
}

/// Another replication factor moves replicas, with what is in them.
fn replicas(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    // Three in the end: with two, the broker that loses its volume later would have taken the majority with it.
    for factor in [1_usize, 3, 2, 3] {
        house.apply(&json!({
            "apiVersion": "takhin.io/v1alpha1",
            "kind": "Topic",
            "metadata": { "name": "moved", "namespace": house.namespace },
            "spec": { "clusterRef": { "name": "prod" }, "partitions": 3, "replicationFactor": factor },
        }))?;
        house.synced("moved", factor)?;
        // Any broker may be asked, and a name inside may lead to none yet.
        let what = format!("{factor} replicas of each partition, all in sync");
        wait::until(what, LIMIT, || {
            let placed = kcat::placements(&house.inside(), "moved").unwrap_or_default();
            let right = |one: &kcat::Placement| one.replicas.len() == factor && one.in_sync == factor;
            Ok(placed.len() == 3 && placed.iter().all(right))
        })?;
        if factor == 1 {
            produce(&house.inside(), "moved", 100)?;
        }
    }
    let records = kcat::consume(&house.inside(), "moved", None, "beginning")?.len();
    ensure!(records == 100, "{records} records of 100");
    Ok(())
}

/// Of an image that cannot be pulled one broker suffers, and the right one mends it.
fn image(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    let writer = house.write("imaged")?;
    let before = house.pods()?;
    house.change(&json!({ "spec": { "image": "takhin/takhin:missing" } }))?;
    house.wait(
        "TakhinCluster",
        "prod",
        "to say that the image is missing",
        |seen| {
            let said = ["Progressing", "Degraded", "Ready"].map(|kind| condition(seen, kind));
            let names =
                |(_, _, message): (&str, &str, &str)| message.contains("takhin:missing").then_some(());
            said.into_iter().flatten().find_map(names)
        },
    )?;
    let replaced = house.pods()?;
    let left = before
        .iter()
        .filter(|(name, uid)| replaced.get(*name) == Some(*uid))
        .count();
    ensure!(left == 2, "{left} of three brokers were left alone");
    house.change(&json!({ "spec": { "image": null } }))?;
    house.quiet()?;
    house.check_smooth(writer)
}

/// A broker whose node is cut off is missed, told of, and comes back by itself.
fn node(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    let writer = house.write("cut")?;
    cluster.made()?.connect("n3", false)?;
    let degraded = house.wait("TakhinCluster", "prod", "to be degraded", |seen| {
        let (status, _, message) = condition(seen, "Degraded")?;
        (status == "True").then(|| message.to_owned())
    });
    cluster.made()?.connect("n3", true)?;
    eprintln!("        {}", degraded?);
    house.quiet()?;
    house.check(writer).map(drop)
}

/// A driver of volumes does nothing for a claim that has this annotation.
const HELD: &str = "takhin.io/e2e-held";

/// A larger size makes every broker's volume larger, also when the operator is killed meanwhile. A broker whose file system
/// grows only with a start has one; the others stay.
fn volumes(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    let writer = house.write("grown")?;
    let (kube, namespace) = (cluster.kube(), house.namespace);
    let kind = "PersistentVolumeClaim";
    let before = house.pods()?;
    let held = |value: Option<&str>| {
        let patch = json!({ "metadata": { "annotations": { HELD: value } } });
        kube.merge(kind, namespace, "data-prod-2", &patch).map(drop)
    };
    let pending = |conditions: serde_json::Value| {
        let patch = json!({ "status": { "conditions": conditions } });
        kube.merge_status(kind, namespace, "data-prod-2", &patch)
            .map(drop)
    };
    held(Some("true"))?;
    house.change(&json!({ "spec": { "storage": { "size": "2Gi" } } }))?;
    house.reason("StorageExpanded", "Resizing")?;
    kill_operator(cluster)?;
    pending(json!([{
        "type": "FileSystemResizePending",
        "status": "True",
        "lastTransitionTime": Timestamp::now().to_string(),
    }]))?;
    // The next pod starts although its file system has not grown yet.
    house.wait("Pod", "prod-2", "to be another one, and ready", |pod| {
        let other = before.get("prod-2").map(String::as_str) != Some(text(pod, "/metadata/uid"));
        let (ready, ..) = condition(pod, "Ready")?;
        (other && ready == "True").then_some(())
    })?;
    let replaced = house.pods()?;
    held(None)?;
    pending(serde_json::Value::Null)?;
    house.reason("StorageExpanded", "Expanded")?;
    for pod in house.pods()?.keys() {
        let name = format!("data-{pod}");
        let claim = kube.get(kind, namespace, &name)?;
        let claim = claim.with_context(|| format!("no claim {name}"))?;
        let size = text(&claim, "/status/capacity/storage");
        ensure!(size == "2Gi", "{name} has {size}");
    }
    house.quiet()?;
    let after = house.pods()?;
    ensure!(after == replaced, "replaced again: {replaced:?}, now {after:?}");
    for name in ["prod-0", "prod-1"] {
        ensure!(before.get(name) == after.get(name), "{name} was replaced");
    }
    house.check_smooth(writer)
}

/// A broker whose claim somebody deletes comes back with an empty volume, which the others refuse. It is said what to do, and
/// that mends it.
fn lost(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    let writer = house.write("lost")?;
    let namespace = house.namespace;
    for (kind, name) in [("pvc", "data-prod-2"), ("pod", "prod-2")] {
        cluster.kubectl(&["delete", kind, name, "-n", namespace, "--wait=false"])?;
    }
    let said = house.wait("TakhinCluster", "prod", "to miss the data of a broker", |seen| {
        let (_, reason, message) = condition(seen, "Degraded")?;
        (reason == "DataLost").then(|| message.to_owned())
    })?;
    eprintln!("        {said}");
    ensure!(
        said.contains("prod-2 has another volume") && said.contains("raise spec.replicas to 4"),
        "{said}"
    );
    house.change(&json!({ "spec": { "replicas": 4 } }))?;
    house.quiet()?;
    house.change(&json!({ "spec": { "replicas": 3 } }))?;
    house.quiet()?;
    ensure!(house.pods()?.len() == 3, "{:?}", house.pods()?);
    house.check(writer).map(drop)
}

/// With the namespace everything goes, whatever the order.
fn whole(cluster: &Ground) -> Result<()> {
    House::shared(cluster)?.leave()
}
