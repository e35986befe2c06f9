//! An API server that hangs for a while.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::kubernetes::{ControlPlane, text};
use takhin_e2e::{wait, wire};

use crate::room::{Room, SOON};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "outage: what was wished and what was broken meanwhile is mended after an outage of 30 s",
        frozen,
    );
}

/// Longer than a Lease is good and than any request waits.
const OUTAGE: Duration = Duration::from_secs(30);

fn frozen(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "outage")?;
    let mut operator = room.operator("first", &[])?;
    operator.ready()?;
    wait::until("it to lead", SOON, || Ok(operator.leads()))?;
    room.small_cluster("prod")?;
    let broker = room.broker("prod").with_context(|| operator.tail())?;
    room.topic("orders", "prod", json!({ "partitions": 2 }))?;
    room.condition("Topic", "orders", "Ready", ("True", "Synced"))?;
    let pod = room.soon("Pod", "prod-0")?;

    plane.freeze()?;
    let begun = Instant::now();
    let ended = wait::value("the operator to give up its lead", OUTAGE, || operator.ended());
    // Whatever it does, the API server hangs for the whole time.
    wait::until("the outage to pass", OUTAGE, || Ok(begun.elapsed() >= OUTAGE))?;
    plane.thaw()?;
    let ended = ended.with_context(|| operator.tail())?;
    // In a pod it is started again; so here.
    ensure!(ended.contains("exit status: 1"), "{ended}: {}", operator.tail());
    let mut operator = room.operator("again", &[])?;
    operator.ready()?;
    room.topic("later", "prod", json!({ "partitions": 3 }))?;
    room.kube().delete("ConfigMap", &room.name, "prod-config")?;
    room.condition("Topic", "later", "Ready", ("True", "Synced"))
        .with_context(|| operator.tail())?;
    room.soon("ConfigMap", "prod-config")?;
    ensure!(wire::Connection::open(broker.address())?.partitions("later")? == 3);
    room.condition("TakhinCluster", "prod", "Ready", ("True", "Serving"))?;
    let after = room.soon("Pod", "prod-0")?;
    ensure!(
        text(&pod, "/metadata/uid") == text(&after, "/metadata/uid"),
        "a broker was restarted for nothing"
    );
    lone(&room)
}

/// One that asks nobody goes on by itself.
fn lone(room: &Room<'_>) -> Result<()> {
    let mut operator = room.lone_operator()?;
    room.plane().freeze()?;
    let begun = Instant::now();
    let limit = OUTAGE / 3;
    let passed = wait::until("the outage to pass", limit * 2, || Ok(begun.elapsed() >= limit));
    room.plane().thaw()?;
    passed?;
    room.kube().delete("Service", &room.name, "prod-bootstrap")?;
    room.soon("Service", "prod-bootstrap")
        .with_context(|| operator.tail())?;
    ensure!(operator.ended()?.is_none(), "{}", operator.tail());
    Ok(())
}
