//! A master outside that connects to its slaves: it pushes its data set to the pod of a PikaSource, and sends changes there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{Ground, text};
use takhin_e2e::{kcat, wait};
use takhin_pika::info::DumpInfo;
use takhin_pika_testing::fixture::{Bytestring, Fixture, bytestring};
use takhin_pika_testing::master::{Master, Settings};

use crate::house::{House, LIMIT};
use crate::source::is;
use crate::stage::{Suites, local};

/// Of the recorded masters that push.
const VERSION: &str = "3.0.16";

pub(crate) fn add(suites: &mut Suites) {
    suites.add_if(
        local(),
        "pushed::a_master_outside_reaches_the_pod_by_its_node",
        reached,
    );
}

/// Everything that the dump has and everything after it arrives, over ports of whatever node the pod runs on.
fn reached(cluster: &Ground) -> Result<()> {
    let house = House::build(cluster, "pushed")?;
    let IpAddr::V4(address) = cluster.own_address()? else {
        bail!("nodes reach this machine by IPv6 only");
    };
    // What comes from a pod on the master's own machine has the pod's address.
    cluster.kubectl(&["cordon", "n1"])?;
    let fixture = Fixture::of(VERSION);
    let work = tempfile::tempdir()?;
    let dump = fixture.dump(work.path())?;
    let info = std::fs::read_to_string(dump.join("info"))?;
    let end = DumpInfo::parse(&info).context("the info of the dump")?.position;
    let master = Master::start(Settings {
        address,
        version: VERSION.into(),
        ..Settings::default()
    })?;
    master.legacy(|legacy| legacy.begin_at(end));
    master.push(|push| push.dumps.insert("db0".into(), dump));
    house.apply(&json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "PikaSource",
        "metadata": { "name": "profiles", "namespace": house.namespace },
        "spec": {
            "clusterRef": { "name": "prod" },
            "source": {
                "host": address.to_string(),
                "port": master.port(),
                "listedAs": { "type": "NodePort", "port": 29_333 },
            },
            "sink": { "topic": "profiles.changes" },
        },
    }))?;
    is(&house, "Streaming")?;
    arrives(&house, "snapshot", &keys(&fixture)?)?;
    set(&master, 1, 20);
    arrives(&house, "binlog", &users(20))?;
    // The next pod may be on another node, under another address.
    let pods = cluster.kube().list("Pod", house.namespace)?;
    let pod = pods
        .iter()
        .find(|pod| text(pod, "/metadata/name").starts_with("profiles-cdc"))
        .context("no pod of the source")?;
    let node = text(pod, "/spec/nodeName");
    cluster.kubectl(&["cordon", node])?;
    let name = text(pod, "/metadata/name");
    cluster.kubectl(&["delete", "pod", "-n", house.namespace, name])?;
    set(&master, 21, 40);
    arrives(&house, "binlog", &users(40))?;
    ensure!(
        master.push(|push| push.pushed) == 1,
        "the data set was taken again"
    );
    for node in ["n1", node] {
        cluster.kubectl(&["uncordon", node])?;
    }
    house.leave()
}

/// What the server had that does not expire, as records are called.
fn keys(fixture: &Fixture) -> Result<BTreeSet<Vec<u8>>> {
    let mut all = BTreeSet::new();
    for line in fixture.lines("expected-1-load.jsonl")? {
        if line["ttl"] == -1
            && let Bytestring::Bytes(key) = bytestring(&line["key"])?
        {
            all.insert([b"db0:", &key[..]].concat());
        }
    }
    ensure!(all.len() > 15, "the fixture has {} keys", all.len());
    Ok(all)
}

fn users(count: u32) -> BTreeSet<Vec<u8>> {
    (1..=count)
        .map(|number| format!("db0:user:{number}").into_bytes())
        .collect()
}

fn set(master: &Master, first: u32, last: u32) {
    for number in first..=last {
        let key = format!("user:{number}");
        master.legacy(|legacy| legacy.execute(&[&[b"SET", key.as_bytes(), b"value"]]));
    }
}

/// Waits until the topic has events of this type with these keys.
fn arrives(house: &House<'_>, kind: &str, wanted: &BTreeSet<Vec<u8>>) -> Result<()> {
    eprintln!("        waiting for {} keys of the {kind}", wanted.len());
    wait::until(format_args!("the keys of the {kind}"), LIMIT, || {
        // The topic is made with the first of them.
        let records =
            kcat::consume(&house.inside(), "profiles.changes", None, "beginning").unwrap_or_default();
        let mut found = BTreeSet::new();
        for record in records {
            let event: Value = serde_json::from_slice(&record.value.unwrap_or_default())?;
            if event["event_type"] == kind {
                found.extend(record.key);
            }
        }
        Ok(found.is_superset(wanted))
    })
}
