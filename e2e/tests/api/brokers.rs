//! What happens to brokers' pods: images that do not come, nodes and their addresses, volumes that grow.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{ControlPlane, condition, pods, text};
use takhin_e2e::wait;

use crate::room::{Room, SOON};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("brokers: a wrong image is mended by a right one", image);
    suites.add("brokers: pods are told rack and address of their node", nodes);
    suites.add("brokers: volumes grow, around pods that stay", volumes);
    suites.add(
        "brokers: a file system that grows with the next start has one start",
        file_system,
    );
    suites.add(
        "brokers: it is said why there are no volumes, and what to do",
        unprovided,
    );
}

fn image(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "image")?;
    let operator = room.lone_operator()?;
    let spec = |image: &str| json!({ "replicas": 1, "image": image, "storage": { "type": "Ephemeral" } });
    room.kube()
        .apply(&room.ours("TakhinCluster", "prod", spec("no/such:image")))?;
    let pod = room.soon("Pod", "prod-0")?;
    pods::cannot_pull(room.kube(), &room.name, "prod-0")?;
    // First it was said of the cluster that it has no pods yet.
    room.wait("TakhinCluster", "prod", "to say why no pod runs", |seen| {
        let (status, reason, message) = condition(seen, "Ready")?;
        let why = "prod-0: ImagePullBackOff: no such image";
        ((status, reason) == ("False", "BrokersNotReady") && message.contains(why)).then_some(())
    })?;
    room.kube()
        .apply(&room.ours("TakhinCluster", "prod", spec("some/such:image")))?;
    room.wait("Pod", "prod-0", "to be a new one with the right image", |now| {
        let other = now["metadata"]["uid"] != pod["metadata"]["uid"];
        (other && now["spec"]["containers"][0]["image"] == "some/such:image").then_some(())
    })
    .with_context(|| operator.tail())?;
    let events = room.kube().list("Event", &room.name)?;
    // Each pod has one of its own: the same said of another pod would only be counted.
    ensure!(
        events.iter().any(|event| {
            text(event, "/reason") == "BrokerRestarted" && text(event, "/related/name") == "prod-0"
        }),
        "no event of prod-0: {events:#?}"
    );
    room.leave()
}

fn nodes(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "nodes")?;
    let operator = room.lone_operator()?;
    room.kube().apply(&json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": "n1", "labels": { "topology.kubernetes.io/zone": "z1" } },
    }))?;
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": "192.0.2.7" }] });
    room.kube()
        .merge_status("Node", "", "n1", &json!({ "status": status }))?;
    let spec = json!({
        "replicas": 1,
        "storage": { "type": "Ephemeral" },
        "rack": { "topologyKey": "topology.kubernetes.io/zone" },
        "listeners": [
            { "name": "internal", "port": 9092, "type": "Internal" },
            { "name": "external", "port": 9094, "type": "NodePort" },
        ],
    });
    room.kube().apply(&room.ours("TakhinCluster", "prod", spec))?;
    room.soon("Pod", "prod-0")?;
    pods::bind(room.kube(), &room.name, "prod-0", "n1")?;
    let told = room
        .wait("Pod", "prod-0", "to be told", |pod| {
            pod.pointer("/metadata/annotations/takhin.io~1node").cloned()
        })
        .with_context(|| operator.tail())?;
    ensure!(told.as_str() == Some(r#"{"rack":"z1"}"#), "{told}");
    let service = room.soon("Service", "prod-external-0")?;
    let port = &service["spec"]["ports"][0]["nodePort"];
    ensure!(port.is_number(), "{service:#}");
    let pod = room.soon("Pod", "prod-0")?;
    let listeners = text(&pod, "/metadata/annotations/takhin.io~1listeners");
    ensure!(listeners.contains(&format!("192.0.2.7:{port}")), "{listeners}");
    room.wait(
        "TakhinCluster",
        "prod",
        "the address of the listener",
        |cluster| {
            let listeners = cluster.pointer("/status/listeners")?.as_array()?;
            let address = text(
                listeners.iter().find(|listener| listener["name"] == "external")?,
                "/bootstrapServers",
            );
            address.starts_with("192.0.2.7:").then_some(())
        },
    )?;
    pods::ends(room.kube(), &room.name, "prod-0")?;
    room.kube().delete("Node", "", "n1")?;
    room.leave()
}

fn volumes(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "volumes")?;
    let operator = room.lone_operator()?;
    for (name, may) in [("grows", true), ("stays", false)] {
        room.kube().apply(&json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": { "name": name },
            "provisioner": "example.com/none",
            "allowVolumeExpansion": may,
        }))?;
    }
    for class in ["grows", "stays"] {
        with_size(&room, class, "1Gi")?;
    }
    let claim = |cluster: &str| format!("data-{cluster}-0");
    // Before there is a volume nothing can grow, and nothing else may suffer.
    room.soon("PersistentVolumeClaim", &claim("grows"))?;
    with_size(&room, "grows", "2Gi")?;
    room.condition("TakhinCluster", "grows", "Ready", ("False", "StorageNotBound"))?;
    wait_template(&room, "grows", "2Gi")?;
    for class in ["grows", "stays"] {
        room.soon("PersistentVolumeClaim", &claim(class))?;
        bound(&room, &claim(class), "1Gi")?;
    }
    asks_for(&room, &claim("grows"), "2Gi").with_context(|| operator.tail())?;
    let pod = room.soon("Pod", "grows-0")?;
    with_size(&room, "grows", "3Gi")?;
    asks_for(&room, &claim("grows"), "3Gi")?;
    wait_template(&room, "grows", "3Gi")?;
    room.condition("TakhinCluster", "grows", "StorageExpanded", ("False", "Resizing"))?;
    bound(&room, &claim("grows"), "3Gi")?;
    room.condition("TakhinCluster", "grows", "StorageExpanded", ("True", "Expanded"))?;
    let now = room.soon("Pod", "grows-0")?;
    ensure!(
        pod["metadata"]["uid"] == now["metadata"]["uid"],
        "the pod was replaced"
    );

    with_size(&room, "stays", "2Gi")?;
    let said = room.condition(
        "TakhinCluster",
        "stays",
        "StorageExpanded",
        ("False", "ResizeNotSupported"),
    )?;
    ensure!(
        said.contains("allowVolumeExpansion") && said.contains("data-stays-0"),
        "{said}"
    );
    for name in ["grows", "stays"] {
        room.kube().delete("StorageClass", "", name)?;
    }
    room.leave()
}

/// What a node has to do for it takes as long as it takes: the pod that it does it for is not replaced meanwhile.
fn file_system(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "file-system")?;
    let operator = room.lone_operator()?;
    room.kube().apply(&json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": { "name": "offline" },
        "provisioner": "example.com/none",
        "allowVolumeExpansion": true,
    }))?;
    with_size(&room, "offline", "1Gi")?;
    let claim = "data-offline-0";
    room.soon("PersistentVolumeClaim", claim)?;
    bound(&room, claim, "1Gi")?;
    let first = room.soon("Pod", "offline-0")?;
    with_size(&room, "offline", "2Gi")?;
    asks_for(&room, claim, "2Gi").with_context(|| operator.tail())?;
    let made: Timestamp = text(&first, "/metadata/creationTimestamp").parse()?;
    wait::until("a second to pass", SOON, || {
        Ok(Timestamp::now().as_second() > made.as_second())
    })?;
    let pending = json!([{
        "type": "FileSystemResizePending",
        "status": "True",
        "lastTransitionTime": Timestamp::now().to_string(),
    }]);
    let status = json!({ "status": { "conditions": pending } });
    room.kube()
        .merge_status("PersistentVolumeClaim", &room.name, claim, &status)?;
    let uid = |pod: &Value| text(pod, "/metadata/uid").to_owned();
    let second = room
        .wait("Pod", "offline-0", "to be another one", |now| {
            (!now.is_null() && uid(now) != uid(&first)).then(|| uid(now))
        })
        .with_context(|| operator.tail())?;
    room.condition(
        "TakhinCluster",
        "offline",
        "StorageExpanded",
        ("False", "RestartRequired"),
    )?;
    // The operator looks again and again, and the pod stays.
    for seconds in 601..606 {
        let patch = json!({ "spec": { "rollout": { "timeoutSeconds": seconds } } });
        let wished = room
            .kube()
            .merge("TakhinCluster", &room.name, "offline", &patch)?;
        let generation = wished.pointer("/metadata/generation");
        room.wait("TakhinCluster", "offline", "to be looked at", |seen| {
            let all = seen.pointer("/status/conditions")?.as_array()?;
            let ready = all.iter().find(|said| said["type"] == "Ready")?;
            let looked = ready.get("observedGeneration") == generation && ready["reason"] != "Reconciling";
            looked.then_some(())
        })?;
    }
    let now = room.soon("Pod", "offline-0")?;
    ensure!(uid(&now) == second, "the pod was replaced while its volume grew");
    room.kube().delete("StorageClass", "", "offline")?;
    room.leave()
}

/// A storage class that is not there, and none where none is the default. A claim gets the default one whenever it comes.
fn unprovided(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "unprovided")?;
    let operator = room.lone_operator()?;
    with_size(&room, "nowhere", "1Gi")?;
    let storage = json!({ "type": "PersistentVolumeClaim", "size": "1Gi" });
    let spec = json!({ "replicas": 1, "storage": storage });
    room.kube().apply(&room.ours("TakhinCluster", "prod", spec))?;
    for (cluster, why) in [
        (
            "nowhere",
            "data-nowhere-0: there is no storage class nowhere: make it",
        ),
        (
            "prod",
            "data-prod-0: it names no storage class, and none is the default: make one",
        ),
    ] {
        room.wait("TakhinCluster", cluster, &format!("to say {why}"), |seen| {
            let (status, reason, message) = condition(seen, "Ready")?;
            ((status, reason) == ("False", "StorageNotBound") && message.contains(why)).then_some(())
        })
        .with_context(|| operator.tail())?;
    }
    room.leave()
}

/// A cluster of one broker, with the name of its storage class.
fn with_size(room: &Room<'_>, class: &str, size: &str) -> Result<()> {
    let storage = json!({ "type": "PersistentVolumeClaim", "size": size, "className": class });
    let spec = json!({ "replicas": 1, "storage": storage });
    room.kube()
        .apply(&room.ours("TakhinCluster", class, spec))
        .map(drop)
}

/// The claim is to have this size.
pub(crate) fn asks_for(room: &Room<'_>, claim: &str, size: &str) -> Result<()> {
    room.wait(
        "PersistentVolumeClaim",
        claim,
        &format!("to ask for {size}"),
        |claim| (text(claim, "/spec/resources/requests/storage") == size).then_some(()),
    )
}

/// The StatefulSet gives new claims this size.
fn wait_template(room: &Room<'_>, cluster: &str, size: &str) -> Result<()> {
    room.wait(
        "StatefulSet",
        cluster,
        &format!("to have claims of {size}"),
        |set: &Value| {
            let place = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
            (text(set, place) == size).then_some(())
        },
    )
}

/// Says of a claim what a provisioner would.
pub(crate) fn bound(room: &Room<'_>, claim: &str, size: &str) -> Result<()> {
    let status = json!({ "phase": "Bound", "capacity": { "storage": size } });
    room.kube()
        .merge_status(
            "PersistentVolumeClaim",
            &room.name,
            claim,
            &json!({ "status": status }),
        )
        .map(drop)
}
