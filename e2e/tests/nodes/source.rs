//! The changes of a Pika master in a topic, by a PikaSource.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{Ground, condition, text};
use takhin_e2e::wait;
use takhin_pika_testing::master::{Master, Settings};

use crate::dashboards;
use crate::events::{Changes, TOPIC};
use crate::house::{House, LIMIT};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("source::changes_arrive_whatever_befalls_the_pod", changes);
}

/// Every change of the master is read by a stock client, in order: also those made while the pod is killed, and while the source
/// is paused. Only what was written shortly before the kill may be there again.
fn changes(cluster: &Ground) -> Result<()> {
    let house = House::build(cluster, "source")?;
    // The pod comes from its node's address.
    let IpAddr::V4(address) = cluster.own_address()? else {
        bail!("nodes reach this machine by IPv6 only");
    };
    let master = Master::start(Settings {
        address,
        password: Some("secret".into()),
        ..Settings::default()
    })?;
    house.apply(&json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "auth", "namespace": house.namespace },
        "stringData": { "password": "secret" },
    }))?;
    house.apply(&source(&house, address, &master, false))?;
    is(&house, "Streaming")?;
    let mut changes = Changes::default();
    let more = |changes: &mut Changes| {
        changes.more(5, |command| master.execute("db0", command));
    };
    more(&mut changes);
    changes.arrive_once(&house)?;
    let killed = kill(&house)?;
    more(&mut changes);
    changes.arrive(&house)?;
    // The process that was killed may have written them, and nobody its position.
    another_follows(&house, (&killed, &master))?;
    more(&mut changes);
    let again = changes.arrive(&house)?;
    eprintln!("        {again} records came again after the kill");
    ensure!(
        again <= 50,
        "{again} records came again of 50 that were there before the kill"
    );
    house.apply(&source(&house, address, &master, true))?;
    is(&house, "Paused")?;
    more(&mut changes);
    house.apply(&source(&house, address, &master, false))?;
    let now = changes.arrive(&house)?;
    ensure!(
        now == again,
        "{again} records came again after the kill, {now} after the pause"
    );
    let printed = cluster.kubectl(&["get", "takhin", "-n", house.namespace])?;
    eprintln!("{printed}");
    dashboards::check(cluster)?;
    house.leave()
}

/// Kills the source's pods, without a farewell: their names.
fn kill(house: &House<'_>) -> Result<Vec<String>> {
    let namespace = house.namespace;
    let pods = house.cluster.kube().list("Pod", namespace)?;
    let names = pods.iter().map(|pod| text(pod, "/metadata/name"));
    let names: Vec<&str> = names.filter(|name| name.starts_with("profiles-cdc")).collect();
    for name in &names {
        let at_once = ["--grace-period=0", "--force"];
        house
            .cluster
            .kubectl(&[&["delete", "pod", "-n", namespace, name][..], &at_once].concat())?;
    }
    Ok(names.into_iter().map(Into::into).collect())
}

/// Waits until just one pod is there that was not `killed`, and is ready, and the master sends to no process but that one: one that is to
/// be killed lives on for seconds, and writes.
fn another_follows(house: &House<'_>, (killed, master): (&[String], &Master)) -> Result<()> {
    wait::until("another pod to follow", LIMIT, || {
        let pods = house.cluster.kube().list("Pod", house.namespace)?;
        let follows = |pod: &Value| condition(pod, "Ready").is_some_and(|(status, ..)| status == "True");
        let is_another = |name: &str| killed.iter().all(|killed| killed != name);
        let named = pods.iter().map(|pod| (pod, text(pod, "/metadata/name")));
        let ours = named.filter(|(_, name)| name.starts_with("profiles-cdc"));
        let follow: Vec<bool> = ours.map(|(pod, name)| is_another(name) && follows(pod)).collect();
        Ok(follow == [true] && master.slaves().len() == 1)
    })
}

fn source(house: &House<'_>, address: Ipv4Addr, master: &Master, paused: bool) -> Value {
    json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "PikaSource",
        "metadata": { "name": "profiles", "namespace": house.namespace },
        "spec": {
            "clusterRef": { "name": "prod" },
            "source": {
                "host": address.to_string(),
                "port": master.port(),
                "passwordSecretRef": { "name": "auth", "key": "password" },
            },
            "sink": { "topic": TOPIC },
            "startFrom": { "mode": "no_data" },
            "paused": paused,
        },
    })
}

pub(crate) fn is(house: &House<'_>, reason: &str) -> Result<()> {
    house.wait("PikaSource", "profiles", &format!("to be {reason}"), |seen| {
        let (_, has, _) = condition(seen, "Ready")?;
        (has == reason).then_some(())
    })
}
