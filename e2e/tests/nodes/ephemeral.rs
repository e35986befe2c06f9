//! A broker without a volume.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::kcat;
use takhin_e2e::kubernetes::{Ground, condition, text};

use crate::house::House;
use crate::stage::Suites;
use crate::story::produce;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("ephemeral::a_lone_broker_begins_anew_with_its_pod", begins_anew);
}

/// What it had is gone, and it serves: the topic is made again.
fn begins_anew(cluster: &Ground) -> Result<()> {
    let spec = json!({ "replicas": 1, "storage": { "type": "Ephemeral" } });
    let house = House::build_as(cluster, "ephemeral", &spec)?;
    house.apply(&json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "Topic",
        "metadata": { "name": "orders", "namespace": house.namespace },
        "spec": { "clusterRef": { "name": "prod" }, "partitions": 3 },
    }))?;
    let synced = |but: &str| {
        house.wait("Topic", "orders", "to be synced", |seen| {
            let (status, ..) = condition(seen, "Ready")?;
            let id = text(seen, "/status/topicId");
            (status == "True" && id != but).then(|| id.to_owned())
        })
    };
    let first = synced("")?;
    produce(&house.inside(), "orders", 10)?;
    ensure!(kcat::consume(&house.inside(), "orders", None, "beginning")?.len() == 10);
    let before = house.pods()?;
    let uid = before.get("prod-0").context("no pod prod-0")?;
    cluster.kubectl(&["delete", "pod", "-n", house.namespace, "prod-0"])?;
    house.back("Pod", "prod-0", uid)?;
    synced(&first)?;
    house.quiet()?;
    produce(&house.inside(), "orders", 5)?;
    let records = kcat::consume(&house.inside(), "orders", None, "beginning")?.len();
    ensure!(records == 5, "{records} records of 5");
    house.leave()
}
