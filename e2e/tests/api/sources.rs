//! PikaSources: what they become, and what is said where something is missing.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::kubernetes::{ControlPlane, condition, text};

use crate::brokers::{asks_for, bound};
use crate::room::{Room, SOON, controller};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "sources: a Deployment, restricted, once all that is named is there",
        deployed,
    );
    suites.add(
        "sources: a volume is made, grows, and is kept or not, as it is wished",
        volume,
    );
}

fn deployed(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "sources")?;
    let operator = room.lone_operator()?;
    let spec = |paused: bool| {
        json!({
            "clusterRef": { "name": "prod" },
            "source": { "host": "pika", "port": 9221, "passwordSecretRef": { "name": "auth", "key": "password" } },
            "sink": { "topic": "profiles" },
            "paused": paused,
        })
    };
    room.kube()
        .apply(&room.ours("PikaSource", "profiles", spec(false)))?;
    room.condition("PikaSource", "profiles", "Ready", ("False", "SinkUnreachable"))?;
    room.small_cluster("prod")?;
    let said = room.condition("PikaSource", "profiles", "Ready", ("False", "SourceAuthFailed"))?;
    ensure!(said.contains("auth") && said.contains("password"), "{said}");
    room.kube().apply(&json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "auth", "namespace": room.name },
        "stringData": { "password": "secret" },
    }))?;
    let deployment = room
        .soon("Deployment", "profiles-cdc")
        .with_context(|| operator.tail())?;
    ensure!(controller(&deployment)?.0 == "PikaSource", "{deployment:#}");
    room.wait(
        "Deployment",
        "profiles-cdc",
        "a pod, which is restricted",
        |deployment| (deployment["status"]["replicas"] == 1).then_some(()),
    )?;
    room.kube()
        .apply(&room.ours("PikaSource", "profiles", spec(true)))?;
    room.wait("Deployment", "profiles-cdc", "no pods", |deployment| {
        (deployment["spec"]["replicas"] == 0).then_some(())
    })?;
    room.condition("PikaSource", "profiles", "Ready", ("False", "Paused"))?;
    for (kind, name) in [("ConfigMap", "profiles-cdc"), ("ServiceAccount", "profiles-cdc")] {
        let before = room.soon(kind, name)?;
        room.kube().delete(kind, &room.name, name)?;
        room.wait(kind, name, "to be made again", |now| {
            (!now.is_null() && now["metadata"]["uid"] != before["metadata"]["uid"]).then_some(())
        })?;
    }
    room.leave()
}

/// A source with a volume: what is said without one, who owns the claim, how it grows.
fn volume(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "source-volume")?;
    let operator = room.lone_operator()?;
    room.small_cluster("prod")?;
    let wish = |size: &str, delete: bool| with_volume(&room, "profiles", size, delete);
    wish("1Gi", false)?;
    let why = "no volume yet for profiles-cdc: there is no storage class logs: make it";
    room.wait("PikaSource", "profiles", "to say why it has no volume", |seen| {
        let (status, reason, message) = condition(seen, "Ready")?;
        ((status, reason) == ("False", "WorkloadNotReady") && message.contains(why)).then_some(())
    })
    .with_context(|| operator.tail())?;
    let deployment = room.soon("Deployment", "profiles-cdc")?;
    ensure!(
        deployment["spec"]["strategy"]["type"] == "Recreate",
        "{deployment:#}"
    );
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].to_string();
    ensure!(volumes.contains(r#""claimName":"profiles-cdc""#), "{volumes}");
    let claim = room.soon("PersistentVolumeClaim", "profiles-cdc")?;
    ensure!(text(&claim, "/spec/storageClassName") == "logs", "{claim:#}");
    ensure!(claim["metadata"]["ownerReferences"].is_null(), "{claim:#}");

    class(&room, false)?;
    bound(&room, "profiles-cdc", "1Gi")?;
    let expanded = |is| room.condition("PikaSource", "profiles", "StorageExpanded", is);
    expanded(("True", "Expanded"))?;
    wish("2Gi", false)?;
    let said = expanded(("False", "ResizeNotSupported"))?;
    ensure!(
        said.contains("logs") && said.contains("allowVolumeExpansion"),
        "{said}"
    );
    class(&room, true)?;
    expanded(("False", "Resizing"))?;
    asks_for(&room, "profiles-cdc", "2Gi")?;
    bound(&room, "profiles-cdc", "2Gi")?;
    expanded(("True", "Expanded"))?;

    // It stays without its source, and the next of the name has it again.
    room.kube().delete("PikaSource", &room.name, "profiles")?;
    room.kube().gone("Deployment", &room.name, "profiles-cdc", SOON)?;
    wish("3Gi", false)?;
    asks_for(&room, "profiles-cdc", "3Gi").with_context(|| operator.tail())?;
    let now = room.soon("PersistentVolumeClaim", "profiles-cdc")?;
    ensure!(now["metadata"]["uid"] == claim["metadata"]["uid"], "{now:#}");
    owned(&room)?;
    room.kube().delete("StorageClass", "", "logs")?;
    room.leave()
}

/// The storage class of the volume, which may grow or not.
fn class(room: &Room<'_>, may: bool) -> Result<()> {
    room.kube()
        .apply(&json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": { "name": "logs" },
            "provisioner": "example.com/none",
            "allowVolumeExpansion": may,
        }))
        .map(drop)
}

fn with_volume(room: &Room<'_>, name: &str, size: &str, delete: bool) -> Result<()> {
    let spec = json!({
        "clusterRef": { "name": "prod" },
        "source": { "host": "pika", "port": 9221 },
        "sink": { "topic": name },
        "storage": { "size": size, "className": "logs", "deleteOnRemoval": delete },
    });
    room.kube().apply(&room.ours("PikaSource", name, spec)).map(drop)
}

/// A claim that is to go with its source does.
fn owned(room: &Room<'_>) -> Result<()> {
    with_volume(room, "short", "1Gi", true)?;
    let claim = room.soon("PersistentVolumeClaim", "short-cdc")?;
    ensure!(controller(&claim)?.0 == "PikaSource", "{claim:#}");
    room.kube().delete("PikaSource", &room.name, "short")?;
    room.wait("PersistentVolumeClaim", "short-cdc", "to be deleted", |now| {
        // Nobody may be there who takes the protection of claims in use from it.
        (now.is_null() || now["metadata"]["deletionTimestamp"].is_string()).then_some(())
    })
}
