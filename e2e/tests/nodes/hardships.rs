//! What befalls a cluster in which nobody changes anything: it serves on, and comes back to what was wished.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kubernetes::{Ground, audit, refusal, text};
use takhin_e2e::wait;

use crate::house::{House, LIMIT};
use crate::stage::{OPERATOR, Suites, local, timeout};

pub(crate) fn add(suites: &mut Suites) {
    suites.add_if(local(), "hardships::the_api_server_is_away", outage);
    suites.add("hardships::what_is_deleted_comes_back", deleted);
    suites.add("hardships::a_drained_node_waits_for_the_budget", drained);
    suites.add_if(
        local(),
        "hardships::nothing_is_written_while_nothing_happens",
        idle,
    );
}

/// Longer than a Lease is good and than any request waits.
const OUTAGE: Duration = Duration::from_secs(30);

/// Longer than from one look of the operator at a cluster to the next.
const LOOKED: Duration = Duration::from_secs(35);

/// Without an API server the brokers serve on; the operators, which end without a Lease, come back with it.
fn outage(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    let before = house.pods()?;
    let mut writer = house.write("away")?;
    let kube = cluster.kube();
    cluster.made()?.plane().freeze()?;
    let begun = Instant::now();
    let served = wait::until("30 s with acknowledgements all the while", LIMIT, || {
        writer.wait_each(1, LIMIT)?;
        Ok(begun.elapsed() >= OUTAGE)
    });
    cluster.made()?.plane().thaw()?;
    served?;
    // What is wished afterwards is done: by an operator that leads again.
    let found = kube.get("ConfigMap", house.namespace, "prod-config")?;
    let uid = text(&found.context("no ConfigMap")?, "/metadata/uid").to_owned();
    kube.delete("ConfigMap", house.namespace, "prod-config")?;
    house.back("ConfigMap", "prod-config", &uid)?;
    house.check(writer)?;
    // Nodes that could not say that they live count as lost for a moment.
    house.quiet()?;
    house.unchanged(&before)
}

/// Children that somebody deletes are made again, and the brokers, which are told the new token, are not restarted.
fn deleted(cluster: &Ground) -> Result<()> {
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
                cluster.kubectl(&["delete", "sts", "-n", namespace, name, "--cascade=orphan"])?;
            }
            _ => cluster.kube().delete(kind, house.namespace, name)?,
        }
        house.back(kind, name, uid)?;
    }
    // The operator asks brokers by its new token, which they have once their node has brought it.
    house.quiet()?;
    house.unchanged(&before)?;
    house.check_smooth(writer)
}

/// Of a node that is drained the broker goes gracefully; while it is away no other may, and it is back when the node is.
fn drained(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    let writer = house.write("drained")?;
    let before = house.pods()?;
    let pods = cluster.kube().list("Pod", house.namespace)?;
    let placed = pods
        .iter()
        .map(|pod| (text(pod, "/metadata/name"), text(pod, "/spec/nodeName")));
    // The last of them is not on the node that the tests are on.
    let (leaves, node) = placed
        .clone()
        .max_by_key(|(_, node)| *node)
        .context("no broker")?;
    let elsewhere = placed.clone().find(|(_, other)| *other != node);
    let (stays, _) = elsewhere.context("all brokers are on one node")?;
    eprintln!("        draining {node} of {leaves}");
    let timeout = timeout(110)?;
    let drain = [
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        &timeout,
    ];
    cluster.kubectl(&drain)?;
    let refused = refusal(cluster.kube().evict(house.namespace, stays))?;
    ensure!(
        refused.code == 429 && refused.message.contains("disruption budget"),
        "{refused:?}"
    );
    house.wait("Pod", leaves, "to wait for its node", |pod| {
        (text(pod, "/status/phase") == "Pending").then_some(())
    })?;
    cluster.kubectl(&["uncordon", node])?;
    house.quiet()?;
    let after = house.pods()?;
    for (name, uid) in &before {
        let same = after.get(name) == Some(uid);
        ensure!(same == (name != leaves), "{name} was or was not replaced");
    }
    house.check_smooth(writer)
}

/// Time without an event in which nothing may be written.
const IDLE: Duration = Duration::from_secs(60);

/// The operators look, and write nothing but their Lease.
fn idle(cluster: &Ground) -> Result<()> {
    let house = House::shared(cluster)?;
    house.topic("idle")?;
    house.quiet()?;
    let writes = |log: &audit::Audit| -> Result<Vec<_>> {
        let mut asked = log.of_user(OPERATOR)?;
        asked.retain(|entry| entry.is_write() && !entry.is_lease());
        Ok(asked)
    };
    // A cluster is looked at every half a minute, and its status tells who leads how much: that comes to rest first.
    let (mut log, mut since) = (cluster.made()?.plane().audit().from_now()?, Instant::now());
    eprintln!("        waiting for the last write, and then for a minute to pass");
    wait::until("the last write", LIMIT, || {
        if !writes(&log)?.is_empty() {
            (log, since) = (cluster.made()?.plane().audit().from_now()?, Instant::now());
        }
        Ok(since.elapsed() > LOOKED)
    })?;
    let (log, begun) = (cluster.made()?.plane().audit().from_now()?, Instant::now());
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
