//! The changes of a Pika master in a topic, by a PikaSource.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{Ground, condition, text};
use takhin_e2e::{kcat, wait};
use takhin_pika_testing::master::{Master, Settings};

use crate::dashboards;
use crate::house::{House, LIMIT};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("source::changes_arrive_whatever_befalls_the_pod", changes);
}

/// Every change of the master is read by a stock client: also those made while the pod is killed, and while the source is
/// paused.
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
    set(&master, 1..=50);
    read(&house, 50)?;
    let pods = cluster.kube().list("Pod", house.namespace)?;
    let names = pods.iter().map(|pod| text(pod, "/metadata/name"));
    for name in names.filter(|name| name.starts_with("profiles-cdc")) {
        let namespace = house.namespace;
        cluster.kubectl(&[
            "delete",
            "pod",
            "-n",
            namespace,
            name,
            "--grace-period=0",
            "--force",
        ])?;
    }
    set(&master, 51..=100);
    read(&house, 100)?;
    house.apply(&source(&house, address, &master, true))?;
    is(&house, "Paused")?;
    set(&master, 101..=150);
    house.apply(&source(&house, address, &master, false))?;
    read(&house, 150)?;
    let printed = cluster.kubectl(&["get", "takhin", "-n", house.namespace])?;
    eprintln!("{printed}");
    dashboards::check(cluster)?;
    house.leave()
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
            "sink": { "topic": "profiles.changes" },
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

fn set(master: &Master, numbers: RangeInclusive<u32>) {
    for number in numbers {
        let key = format!("user:{number}");
        master.execute("db0", &[b"SET", key.as_bytes(), b"value"]);
    }
}

/// Waits until the changes of the first `count` keys are all in the topic, and nothing else.
pub(crate) fn read(house: &House<'_>, count: u32) -> Result<()> {
    eprintln!("        waiting for the changes of {count} keys");
    let wanted: BTreeSet<String> = (1..=count).map(|number| format!("db0:user:{number}")).collect();
    wait::until(format_args!("the changes of {count} keys"), LIMIT, || {
        // The topic is made with the first of them.
        let records =
            kcat::consume(&house.inside(), "profiles.changes", None, "beginning").unwrap_or_default();
        let keys = records.into_iter().filter_map(|record| record.key);
        let found: BTreeSet<String> = keys
            .map(|key| String::from_utf8_lossy(&key).into_owned())
            .collect();
        Ok(found == wanted)
    })
}
