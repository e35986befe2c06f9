//! What a TakhinCluster becomes: made as promised, made again, and shared with others.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{ControlPlane, Entry, audit, text};
use takhin_e2e::wait;

use crate::brokers::{asks_for, bound};
use crate::room::{Room, SOON, controller};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "children: a cluster gets what it needs, restricted, and leaves only its claims",
        made,
    );
    suites.add(
        "children: claims that go with a cluster stay when its volumes grow",
        removed,
    );
    suites.add("children: what somebody deletes is made again", made_again);
    suites.add(
        "children: what others own stays, what they take comes back once",
        shared,
    );
}

fn wish() -> Value {
    json!({
        "replicas": 3,
        "storage": { "type": "PersistentVolumeClaim", "size": "1Gi" },
        "listeners": [
            { "name": "internal", "port": 9092, "type": "Internal" },
            { "name": "external", "port": 9094, "type": "NodePort" },
        ],
        "rack": { "topologyKey": "topology.kubernetes.io/zone" },
    })
}

/// Everything that belongs to the cluster "prod" with [`wish`].
const CHILDREN: &[(&str, &str)] = &[
    ("StatefulSet", "prod"),
    ("Service", "prod-brokers"),
    ("Service", "prod-bootstrap"),
    ("Service", "prod-external-bootstrap"),
    ("Service", "prod-external-0"),
    ("Service", "prod-external-1"),
    ("Service", "prod-external-2"),
    ("ConfigMap", "prod-config"),
    ("Secret", "prod-admin-token"),
    ("ServiceAccount", "prod-broker"),
    ("PodDisruptionBudget", "prod"),
    ("NetworkPolicy", "prod"),
];

fn made(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "made")?;
    let mut operator = room.operator(
        "operator",
        &["--no-leader-election", "--pod-namespace", "takhin-system"],
    )?;
    operator.ready()?;
    let mut spec = wish();
    spec["networkPolicy"] = json!({ "enabled": true, "metricsPeers": [] });
    room.kube().apply(&room.ours("TakhinCluster", "prod", spec))?;
    for (kind, name) in CHILDREN {
        let child = room.soon(kind, name).with_context(|| operator.tail())?;
        ensure!(
            controller(&child)? == ("TakhinCluster".to_owned(), "prod".to_owned()),
            "{child:#}"
        );
        ensure!(
            text(&child, "/metadata/labels/takhin.io~1cluster") == "prod",
            "{child:#}"
        );
    }
    for pod in ["prod-0", "prod-1", "prod-2"] {
        // That Kubernetes made it in this namespace says that it is restricted.
        let pod = room.soon("Pod", pod)?;
        ensure!(controller(&pod)?.0 == "StatefulSet");
        ensure!(pod["spec"]["automountServiceAccountToken"] == false, "{pod:#}");
    }
    closed(&room)?;
    let budget = room.soon("PodDisruptionBudget", "prod")?;
    ensure!(budget["spec"]["maxUnavailable"] == 1);
    ensure!(budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow");
    let set = room.soon("StatefulSet", "prod")?;
    ensure!(set["spec"]["replicas"] == 3 && set["spec"]["updateStrategy"]["type"] == "OnDelete");
    room.condition("TakhinCluster", "prod", "Ready", ("False", "StorageNotBound"))?;
    fewer_listeners(&room)?;

    let wished = format!(
        "takhin_cluster_brokers{{namespace=\"{}\",name=\"prod\",state=\"wished\"}}",
        room.name
    );
    let is = |brokers: f64| {
        wait::until(format_args!("{wished} to be {brokers}"), SOON, || {
            Ok((operator.metric(&wished)? - brokers).abs() < 0.5)
        })
    };
    is(3.0)?;
    room.kube().delete("TakhinCluster", &room.name, "prod")?;
    // Nothing is said any more of what is gone: alerts would go on about it.
    is(0.0)?;
    for (kind, name) in CHILDREN {
        room.kube().gone(kind, &room.name, name, SOON)?;
    }
    for number in 0..3 {
        room.kube()
            .gone("Pod", &room.name, &format!("prod-{number}"), SOON)?;
        let claim = room.kube().get(
            "PersistentVolumeClaim",
            &room.name,
            &format!("data-prod-{number}"),
        )?;
        let claim = claim.context("a claim is gone")?;
        ensure!(claim["metadata"]["deletionTimestamp"].is_null(), "{claim:#}");
    }
    ensure!(operator.ended()?.is_none(), "{}", operator.tail());
    room.leave()
}

/// The admin port is for nobody but brokers and the operator, which is looked for where it runs.
fn closed(room: &Room<'_>) -> Result<()> {
    let policy = room.soon("NetworkPolicy", "prod")?;
    let of_admin = &policy["spec"]["ingress"][1];
    ensure!(of_admin["ports"][0]["port"] == 9644, "{policy:#}");
    let home = &of_admin["from"][1]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
    ensure!(
        home == "takhin-system" && of_admin["from"][2].is_null(),
        "{policy:#}"
    );
    Ok(())
}

/// Services of a listener, and the network policy, go with what they are for.
fn fewer_listeners(room: &Room<'_>) -> Result<()> {
    let mut less = wish();
    less["listeners"] = json!([{ "name": "internal", "port": 9092, "type": "Internal" }]);
    less["networkPolicy"] = json!({ "enabled": false });
    room.kube().apply(&room.ours("TakhinCluster", "prod", less))?;
    for (kind, name) in CHILDREN
        .iter()
        .filter(|(kind, name)| name.contains("external") || *kind == "NetworkPolicy")
    {
        room.kube().gone(kind, &room.name, name, SOON)?;
    }
    Ok(())
}

/// With `deleteOnRemoval` the StatefulSet owns the claims; it is made anew for another size, and they may not go with it.
fn removed(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "removed")?;
    let operator = room.lone_operator()?;
    room.kube().apply(&json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": { "name": "removed" },
        "provisioner": "example.com/none",
        "allowVolumeExpansion": true,
    }))?;
    let with_size = |size: &str| {
        let storage = json!({
            "type": "PersistentVolumeClaim", "size": size, "className": "removed", "deleteOnRemoval": true,
        });
        let spec = json!({ "replicas": 1, "storage": storage });
        room.kube().apply(&room.ours("TakhinCluster", "prod", spec))
    };
    let claim = "data-prod-0";
    let owned_by = |set: &Value| {
        let set = text(set, "/metadata/uid").to_owned();
        room.wait("PersistentVolumeClaim", claim, "to belong to the set", |claim| {
            let owners = claim["metadata"]["ownerReferences"].as_array()?;
            let is_its = owners.iter().any(|owner| owner["uid"] == set.as_str());
            is_its.then(|| text(claim, "/metadata/uid").to_owned())
        })
        .with_context(|| operator.tail())
    };
    with_size("1Gi")?;
    let first = room.soon("StatefulSet", "prod")?;
    let made = owned_by(&first)?;
    bound(&room, claim, "1Gi")?;
    with_size("2Gi")?;
    let second = room
        .wait("StatefulSet", "prod", "to be another one", |set| {
            let is_new = !set.is_null() && set["metadata"]["uid"] != first["metadata"]["uid"];
            is_new.then(|| set.clone())
        })
        .with_context(|| operator.tail())?;
    asks_for(&room, claim, "2Gi")?;
    ensure!(owned_by(&second)? == made, "the claim is another one");
    let now = room.soon("PersistentVolumeClaim", claim)?;
    ensure!(now["metadata"]["deletionTimestamp"].is_null(), "{now:#}");

    room.kube().delete("TakhinCluster", &room.name, "prod")?;
    for (kind, name) in [
        ("StatefulSet", "prod"),
        ("Pod", "prod-0"),
        ("PersistentVolumeClaim", claim),
    ] {
        room.kube().gone(kind, &room.name, name, SOON)?;
    }
    room.kube().delete("StorageClass", "", "removed")?;
    room.leave()
}

fn made_again(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "made-again")?;
    let operator = room.lone_operator()?;
    room.kube().apply(&room.ours("TakhinCluster", "prod", wish()))?;
    room.soon("Pod", "prod-2")?;
    for (kind, name) in CHILDREN {
        let before = room.soon(kind, name)?;
        room.kube().delete(kind, &room.name, name)?;
        room.wait(kind, name, "to be made again", |now| {
            (!now.is_null() && now["metadata"]["uid"] != before["metadata"]["uid"]).then_some(())
        })
        .with_context(|| operator.tail())?;
    }
    // A Secret that has lost its key gets one again.
    let secret = json!({ "data": { "token": null } });
    room.kube()
        .merge("Secret", &room.name, "prod-admin-token", &secret)?;
    room.wait("Secret", "prod-admin-token", "to have a token", |secret| {
        (!text(secret, "/data/token").is_empty()).then_some(())
    })?;
    // One of somebody else's is not touched.
    room.kube().delete("TakhinCluster", &room.name, "prod")?;
    room.kube().gone("ConfigMap", &room.name, "prod-config", SOON)?;
    room.kube().apply(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "prod-config", "namespace": room.name },
        "data": { "mine": "yes" },
    }))?;
    room.kube().apply(&room.ours("TakhinCluster", "prod", wish()))?;
    let said = room.condition("TakhinCluster", "prod", "Ready", ("False", "NameConflict"))?;
    ensure!(said.contains("ConfigMap prod-config"), "{said}");
    let config = room.soon("ConfigMap", "prod-config")?;
    ensure!(config["data"] == json!({ "mine": "yes" }), "{config:#}");
    room.leave()
}

fn shared(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "shared")?;
    let operator = room.lone_operator()?;
    room.small_cluster("prod")?;
    let _broker = room.broker("prod").with_context(|| operator.tail())?;
    let theirs = |kind: &str, version: &str, name: &str, rest: Value| {
        let mut object = json!({ "apiVersion": version, "kind": kind });
        object["metadata"] = json!({ "name": name, "namespace": room.name });
        for (key, value) in rest.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    };
    let begin = room.audit()?;
    // Fields that are nobody's yet: seconds of the set, an annotation of the Service.
    room.kube().apply_as(
        "other",
        &theirs(
            "StatefulSet",
            "apps/v1",
            "prod",
            json!({ "spec": { "minReadySeconds": 7 } }),
        ),
    )?;
    let mut service = theirs("Service", "v1", "prod-bootstrap", json!({}));
    service["metadata"]["annotations"] = json!({ "example.com/mine": "yes" });
    room.kube().apply_as("other", &service)?;
    // One that is the operator's.
    let stolen = theirs(
        "PodDisruptionBudget",
        "policy/v1",
        "prod",
        json!({ "spec": { "maxUnavailable": 5 } }),
    );
    room.kube().apply_as("other", &stolen)?;
    room.wait(
        "PodDisruptionBudget",
        "prod",
        "to be the operator's again",
        |budget| (budget["spec"]["maxUnavailable"] == 1).then_some(()),
    )?;
    quiet(&room)?;
    let writes: Vec<_> = room
        .asked(&begin)?
        .into_iter()
        .filter(|entry| entry.is_write())
        .collect();
    let of = |resource: &str| writes.iter().filter(|entry| entry.resource == resource).count();
    ensure!(
        of("poddisruptionbudgets") == 1,
        "a fight:\n{}",
        audit::summary(&writes)
    );
    ensure!(
        of("statefulsets") <= 1 && of("services") <= 1,
        "a fight:\n{}",
        audit::summary(&writes)
    );
    ensure!(room.soon("StatefulSet", "prod")?["spec"]["minReadySeconds"] == 7);
    let service = room.soon("Service", "prod-bootstrap")?;
    ensure!(
        text(&service, "/metadata/annotations/example.com~1mine") == "yes",
        "{service:#}"
    );
    room.leave()
}

/// Returns when the operator has written nothing for a while.
fn quiet(room: &Room<'_>) -> Result<()> {
    let mut log = room.audit()?;
    let mut since = Instant::now();
    wait::until("the operator to write no more", SOON, || {
        if room.asked(&log)?.iter().any(Entry::is_write) {
            log = room.audit()?;
            since = Instant::now();
        }
        // Longer than the pause between two passes over a cluster that is busy.
        Ok(since.elapsed() > Duration::from_secs(7))
    })
}
