//! What befalls a cluster in which nobody changes anything: it serves on, and comes back to what was wished.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kubernetes::nodes::Cluster;
use takhin_e2e::kubernetes::{audit, refusal, text};
use takhin_e2e::wait;

use crate::house::{House, LIMIT};
use crate::stage::{OPERATOR, Suites};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("hardships::the_api_server_is_away", outage);
    suites.add("hardships::what_is_deleted_comes_back", deleted);
    suites.add("hardships::a_drained_node_waits_for_the_budget", drained);
    suites.add("hardships::nothing_is_written_while_nothing_happens", idle);
}

/// Longer than a Lease is good and than any request waits.
const OUTAGE: Duration = Duration::from_secs(30);

/// Without an API server the brokers serve on; the operators, which end without a Lease, come back with it.
fn outage(cluster: &Cluster) -> Result<()> {
    let house = House::shared(cluster)?;
    let before = house.pods()?;
    let mut writer = house.write("away")?;
    let kube = cluster.kube();
    cluster.plane().freeze()?;
    let begun = Instant::now();
    let served = wait::until("30 s with acknowledgements all the while", LIMIT, || {
        writer.wait_each(1, LIMIT)?;
        Ok(begun.elapsed() >= OUTAGE)
    });
    cluster.plane().thaw()?;
    served?;
    // What is wished afterwards is done: by an operator that leads again.
    let found = kube.get("ConfigMap", house.namespace, "prod-config")?;
    let uid = text(&found.context("no ConfigMap")?, "/metadata/uid").to_owned();
    kube.delete("ConfigMap", house.namespace, "prod-config")?;
    house.back("ConfigMap", "prod-config", &uid)?;
    house.quiet()?;
    house.unchanged(&before)?;
    house.check(writer)
}

/// Children that somebody deletes are made again, and the brokers, which are told the new token, are not restarted.
fn deleted(cluster: &Cluster) -> Result<()> {
    let house = House::shared(cluster)?;
    let before = house.pods()?;
    let writer = house.write("deleted")?;
    for (kind, name) in [
        ("Secret", "prod-admin-token"),
        ("PodDisruptionBudget", "prod"),
        ("Service", "prod-external-bootstrap"),
        ("StatefulSet", "prod"),
    ] {
        let found = cluster.kube().get(kind, house.namespace, name)?;
        let found = found.with_context(|| format!("no {kind} {name}"))?;
        let uid = text(&found, "/metadata/uid");
        match kind {
            // With its pods it would be an outage that somebody asked for.
            "StatefulSet" => {
                let namespace = house.namespace;
                cluster
                    .plane()
                    .kubectl(&["delete", "sts", "-n", namespace, name, "--cascade=orphan"])?;
            }
            _ => cluster.kube().delete(kind, house.namespace, name)?,
        }
        house.back(kind, name, uid)?;
    }
    // The operator asks brokers by its new token, which they have once their node has brought it.
    house.quiet()?;
    house.unchanged(&before)?;
    house.check(writer)
}

/// Of a node that is drained the broker goes gracefully; while it is away no other may, and it is back when the node is.
fn drained(cluster: &Cluster) -> Result<()> {
    let house = House::shared(cluster)?;
    let writer = house.write("drained")?;
    let before = house.pods()?;
    let at = |node: &str| -> Result<String> {
        let pods = cluster.kube().list("Pod", house.namespace)?;
        let there = pods.iter().find(|pod| text(pod, "/spec/nodeName") == node);
        let there = there.with_context(|| format!("no broker on {node}"))?;
        Ok(text(there, "/metadata/name").to_owned())
    };
    let (leaves, stays) = (at("n2")?, at("n3")?);
    eprintln!("        draining n2 of {leaves}");
    let drain = ["drain", "n2", "--delete-emptydir-data", "--timeout=110s"];
    cluster.plane().kubectl(&drain)?;
    let refused = refusal(cluster.kube().evict(house.namespace, &stays))?;
    ensure!(
        refused.code == 429 && refused.message.contains("disruption budget"),
        "{refused:?}"
    );
    house.wait("Pod", &leaves, "to wait for its node", |pod| {
        (text(pod, "/status/phase") == "Pending").then_some(())
    })?;
    cluster.plane().kubectl(&["uncordon", "n2"])?;
    house.quiet()?;
    let after = house.pods()?;
    for (name, uid) in &before {
        let same = after.get(name) == Some(uid);
        ensure!(same == (*name != leaves), "{name} was or was not replaced");
    }
    house.check(writer)
}

/// Time without an event in which nothing may be written.
const IDLE: Duration = Duration::from_secs(60);

/// The operators look, and write nothing but their Lease.
fn idle(cluster: &Cluster) -> Result<()> {
    let house = House::shared(cluster)?;
    house.topic("idle")?;
    house.quiet()?;
    let writes = |log: &audit::Audit| -> Result<Vec<_>> {
        let mut asked = log.of_user(OPERATOR)?;
        asked.retain(|entry| entry.is_write() && !entry.is_lease());
        Ok(asked)
    };
    // What was written last makes one more pass.
    let (mut log, mut since) = (cluster.plane().audit().from_now()?, Instant::now());
    eprintln!("        waiting for the last write, and then for a minute to pass");
    wait::until("the last write", LIMIT, || {
        if !writes(&log)?.is_empty() {
            (log, since) = (cluster.plane().audit().from_now()?, Instant::now());
        }
        Ok(since.elapsed() > Duration::from_secs(5))
    })?;
    let (log, begun) = (cluster.plane().audit().from_now()?, Instant::now());
    wait::until("a minute to pass", IDLE * 2, || Ok(begun.elapsed() >= IDLE))?;
    let written = writes(&log)?;
    ensure!(
        written.is_empty(),
        "written while nothing happens:\n{}",
        audit::summary(&written)
    );
    let asked = log.of_user(OPERATOR)?;
    ensure!(
        asked.iter().any(|entry| !entry.is_lease()),
        "no operator looked at anything"
    );
    Ok(())
}
