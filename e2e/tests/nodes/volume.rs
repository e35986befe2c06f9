//! What a master before 3.1 has sent once is on the volume of the PikaSource, and outlives its pod.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::kubernetes::{Ground, text};
use takhin_e2e::wait;
use takhin_pika_testing::master::{Master, Settings};

use crate::events::{Changes, TOPIC};
use crate::house::{House, LIMIT};
use crate::source::is;
use crate::stage::{Suites, local};

/// The first node's address among its pods (`e2e/src/kubernetes/nodes`).
const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);

pub(crate) fn add(suites: &mut Suites) {
    suites.add_if(
        local(),
        "volume::what_a_master_never_sends_again_outlives_the_pod",
        outlives,
    );
}

/// While no broker is there a master sends changes, deletes their binlog, and the pod is killed: they arrive all the same.
fn outlives(cluster: &Ground) -> Result<()> {
    let house = House::build(cluster, "volume")?;
    // Such masters connect to the address that a pod comes from, so that nothing may translate it: the pod is on the first
    // node, where its bridge is.
    schedulable(cluster, false)?;
    let address = BRIDGE;
    let master = Master::start(Settings {
        address,
        version: "3.0.16".into(),
        file_size: 1024,
        ..Settings::default()
    })?;
    house.apply(&json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "PikaSource",
        "metadata": { "name": "profiles", "namespace": house.namespace },
        "spec": {
            "clusterRef": { "name": "prod" },
            "source": { "host": address.to_string(), "port": master.port() },
            "sink": { "topic": TOPIC },
            "startFrom": { "mode": "no_data" },
            "storage": { "size": "1Gi", "className": cluster.class() },
        },
    }))?;
    is(&house, "Streaming")?;
    let mut changes = Changes::default();
    let more = |changes: &mut Changes, times| {
        changes.more(times, |command| {
            master.legacy(|legacy| legacy.execute(&[command]))
        });
    };
    more(&mut changes, 2);
    changes.arrive_once(&house)?;

    brokers(&house, 0)?;
    more(&mut changes, 4);
    let end = master.legacy(|legacy| legacy.end());
    ensure!(end.filenum > 2, "the changes are in one file: {end:?}");
    let pod = pod(&house)?.context("no pod of the source")?;
    eprintln!("        waiting for the log to end at {end:?}");
    wait::until(format_args!("the log to end at {end:?}"), LIMIT, || {
        let path = format!("/api/v1/namespaces/volume/pods/{pod}:9654/proxy/metrics");
        let page = cluster.kubectl(&["get", "--raw", &path]).unwrap_or_default();
        let has = |series: String| page.lines().any(|line| line == series);
        Ok(has(format!("takhin_cdc_wal_end_filenum {}", end.filenum))
            && has(format!("takhin_cdc_wal_end_offset {}", end.offset)))
    })?;
    master.legacy(|legacy| legacy.purge(end.filenum));
    let namespace = house.namespace;
    let now = ["--grace-period=0", "--force"];
    cluster.kubectl(&["delete", "pod", "-n", namespace, &pod, now[0], now[1]])?;
    wait::until("another pod", LIMIT, || {
        Ok(self::pod(&house)?.is_some_and(|other| other != pod))
    })?;
    brokers(&house, 3)?;
    // What was acknowledged before the kill was noted on the volume.
    changes.arrive_once(&house)?;
    schedulable(cluster, true)?;
    house.leave()
}

/// Whether new pods may go to the nodes beside the first.
fn schedulable(cluster: &Ground, may: bool) -> Result<()> {
    for node in ["n2", "n3"] {
        cluster.kubectl(&[if may { "uncordon" } else { "cordon" }, node])?;
    }
    Ok(())
}

/// The pod of the source that is to stay.
fn pod(house: &House<'_>) -> Result<Option<String>> {
    let pods = house.cluster.kube().list("Pod", house.namespace)?;
    let stays = pods.iter().find(|pod| {
        text(pod, "/metadata/name").starts_with("profiles-cdc")
            && text(pod, "/metadata/deletionTimestamp").is_empty()
    });
    Ok(stays.map(|pod| text(pod, "/metadata/name").to_owned()))
}

/// Takes all brokers away, behind the operator's back, or gives them back to it.
fn brokers(house: &House<'_>, count: usize) -> Result<()> {
    let paused = (count == 0).then_some("true");
    let annotations = json!({ "takhin.io/pause-reconciliation": paused });
    if count == 0 {
        house.change(&json!({ "metadata": { "annotations": annotations } }))?;
        house.reason("ReconciliationPaused", "Annotation")?;
    } else {
        // They have to come back to where their volumes are.
        schedulable(house.cluster, true)?;
    }
    let replicas = format!("--replicas={count}");
    let namespace = house.namespace;
    house
        .cluster
        .kubectl(&["scale", "statefulset", "prod", "-n", namespace, &replicas])?;
    eprintln!("        waiting for {count} brokers");
    wait::until(format_args!("{count} brokers"), LIMIT, || {
        let pods = house.cluster.kube().list("Pod", namespace)?;
        let brokers = pods
            .iter()
            .filter(|pod| text(pod, "/metadata/name").starts_with("prod-"));
        Ok(brokers.count() == count)
    })?;
    if count > 0 {
        house.change(&json!({ "metadata": { "annotations": annotations } }))?;
        house.quiet()?;
    }
    Ok(())
}
