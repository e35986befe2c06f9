//! PikaSources: what they become, and what is said where something is missing.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{ControlPlane, condition, pods, text};
use takhin_e2e::wait;

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
    suites.add(
        "sources: a volume grows with the next pod although the operator dies",
        grown,
    );
    suites.add(
        "sources: a master that connects to its slaves finds the way, or it is said what is missing",
        reached,
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

    // It stays without its source, and the next of the name has it again, as large as it is.
    room.kube().delete("PikaSource", &room.name, "profiles")?;
    room.kube().gone("Deployment", &room.name, "profiles-cdc", SOON)?;
    wish("1Gi", false)?;
    let said = expanded(("True", "Expanded"))?;
    ensure!(said.contains("has 2Gi") && said.contains("is 1Gi"), "{said}");
    wish("3Gi", false)?;
    asks_for(&room, "profiles-cdc", "3Gi").with_context(|| operator.tail())?;
    let now = room.soon("PersistentVolumeClaim", "profiles-cdc")?;
    ensure!(now["metadata"]["uid"] == claim["metadata"]["uid"], "{now:#}");
    owned(&room)?;
    room.kube().delete("StorageClass", "", "logs")?;
    room.leave()
}

/// The file system of a volume that grows when the pod starts again: another operator than the one that began goes on with it,
/// and replaces the pod once.
fn grown(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "source-grown")?;
    let mut operator = room.lone_operator()?;
    room.small_cluster("prod")?;
    class(&room, true)?;
    with_volume(&room, "profiles", "1Gi", false)?;
    room.soon("PersistentVolumeClaim", "profiles-cdc")
        .with_context(|| operator.tail())?;
    bound(&room, "profiles-cdc", "1Gi")?;
    let (name, first) = pod(&room, "")?;
    // Nobody answers there, because the process ends again and again: of one that runs it would not be known what it does.
    pods::runs(room.kube(), &room.name, &name, "127.0.0.77", false)?;
    let seen = room.soon("Pod", &name)?;
    let mut container = seen["status"]["containerStatuses"][0].clone();
    container["state"] = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
    container["started"] = false.into();
    let status = json!({ "status": { "containerStatuses": [container] } });
    room.kube().merge_status("Pod", &room.name, &name, &status)?;
    with_volume(&room, "profiles", "2Gi", false)?;
    asks_for(&room, "profiles-cdc", "2Gi")?;
    operator.kill();
    let resized = |conditions: Value| {
        let status = json!({ "status": { "conditions": conditions } });
        room.kube()
            .merge_status("PersistentVolumeClaim", &room.name, "profiles-cdc", &status)
    };
    resized(json!([{
        "type": "FileSystemResizePending",
        "status": "True",
        "lastTransitionTime": Timestamp::now().to_string(),
    }]))?;
    let operator = room.lone_operator()?;
    let (_, second) = pod(&room, &first).with_context(|| operator.tail())?;
    room.condition(
        "PikaSource",
        "profiles",
        "StorageExpanded",
        ("False", "RestartRequired"),
    )?;
    resized(Value::Null)?;
    bound(&room, "profiles-cdc", "2Gi")?;
    room.condition("PikaSource", "profiles", "StorageExpanded", ("True", "Expanded"))?;
    let (_, now) = pod(&room, "")?;
    ensure!(now == second, "the pod was replaced again");
    room.kube().delete("StorageClass", "", "logs")?;
    room.leave()
}

/// Name and UID of the source's pod that stays, once it is another one than that.
fn pod(room: &Room<'_>, but: &str) -> Result<(String, String)> {
    let mut found = None;
    wait::until("a pod of the source", SOON, || {
        let pods = room.kube().list("Pod", &room.name)?;
        let stays = pods.iter().find(|pod| {
            text(pod, "/metadata/name").starts_with("profiles-cdc")
                && text(pod, "/metadata/deletionTimestamp").is_empty()
                && text(pod, "/metadata/uid") != but
        });
        found = stays
            .map(|pod| ["name", "uid"].map(|field| text(&pod["metadata"], &format!("/{field}")).to_owned()));
        Ok(found.is_some())
    })?;
    let [name, uid] = found.context("no pod")?;
    Ok((name, uid))
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
        // Otherwise its own bound follows the size, and the pod is replaced for that.
        "wal": { "maxSize": "256Mi" },
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

/// The Service that leads older masters to the pod, and who may connect at all.
fn reached(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "source-listed")?;
    let operator = room.lone_operator()?;
    room.small_cluster("prod")?;
    let wish = |listing: Option<Value>, policy: bool| wish_listed(&room, listing, policy);
    let says = |words: &[&str]| {
        room.wait("PikaSource", "profiles", &words.join(" "), |seen| {
            let (status, reason, message) = condition(seen, "Ready")?;
            let has = words.iter().all(|word| message.contains(word));
            (has && (status, reason) == ("False", "WorkloadNotReady")).then_some(())
        })
        .with_context(|| operator.tail())
    };
    let ports = |place: &str, wanted: Value| {
        room.wait("Service", "profiles-cdc", "the ports", |service| {
            let all = service["spec"]["ports"].as_array()?;
            let found: Vec<_> = all.iter().map(|port| port[place].clone()).collect();
            (json!(found) == wanted).then_some(())
        })
    };
    // Ports that nodes do not have.
    wish(Some(json!({ "type": "NodePort", "port": 21_333 })), true)?;
    says(&["spec.source.listedAs.port 21333", "22333", "30000-32767"])?;
    ensure!(
        room.kube()
            .get("Deployment", &room.name, "profiles-cdc")?
            .is_none(),
        "a pod is made that no master reaches"
    );
    wish(Some(json!({ "type": "NodePort", "port": 29_333 })), true)?;
    let deployment = room.soon("Deployment", "profiles-cdc")?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args = container["args"].to_string();
    ensure!(args.contains("source.listed_as=$(NODE_ADDRESS):29333"), "{args}");
    ports("nodePort", json!([30_333, 32_333]))?;
    let service = room.soon("Service", "profiles-cdc")?;
    ensure!(controller(&service)?.0 == "PikaSource", "{service:#}");
    ensure!(
        service["spec"]["externalTrafficPolicy"] == "Local",
        "the master's address is lost: {service:#}"
    );
    let policy = room.soon("NetworkPolicy", "profiles-cdc")?;
    let open = policy["spec"]["ingress"][0]["ports"].as_array();
    let open: Vec<_> = open.into_iter().flatten().map(|port| &port["port"]).collect();
    ensure!(json!(open) == json!([9654, 30_333, 32_333]), "{policy:#}");

    // Behind a load balancer it is listed with the address of that.
    wish(Some(json!({ "type": "LoadBalancer", "port": 21_333 })), false)?;
    says(&["Service profiles-cdc has no address of a load balancer yet"])?;
    room.kube()
        .gone("NetworkPolicy", &room.name, "profiles-cdc", SOON)?;
    ports("port", json!([22_333, 24_333]))?;
    let address = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.7" }] } } });
    room.kube()
        .merge_status("Service", &room.name, "profiles-cdc", &address)?;
    listed(&room, Some("listed_as: 192.0.2.7:21333"))?;

    wish(None, true)?;
    room.kube().gone("Service", &room.name, "profiles-cdc", SOON)?;
    listed(&room, None)?;
    room.leave()
}

fn wish_listed(room: &Room<'_>, listing: Option<Value>, policy: bool) -> Result<()> {
    let mut source = json!({ "host": "pika", "port": 9221 });
    if let Some(listing) = listing {
        source["listedAs"] = listing;
    }
    let spec = json!({
        "clusterRef": { "name": "prod" },
        "source": source,
        "sink": { "topic": "profiles" },
        "networkPolicy": { "enabled": policy },
    });
    room.kube()
        .apply(&room.ours("PikaSource", "profiles", spec))
        .map(drop)
}

/// Waits until the file of `takhin-cdc` says this of its address, and its arguments nothing.
fn listed(room: &Room<'_>, words: Option<&str>) -> Result<()> {
    room.wait("ConfigMap", "profiles-cdc", "to say how it is listed", |map| {
        let file = text(map, "/data/cdc.yaml");
        let found = file
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with("listed_as"));
        (found == words).then_some(())
    })?;
    room.wait("Deployment", "profiles-cdc", "its arguments", |deployment| {
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        (!container["args"].to_string().contains("listed_as")).then_some(())
    })
}
