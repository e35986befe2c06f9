//! PikaSources: what they become, and what is said where something is missing.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::kubernetes::ControlPlane;

use crate::room::{Room, controller};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "sources: a Deployment, restricted, once all that is named is there",
        deployed,
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
