//! A master outside that connects to its slaves: it pushes its data set to the pod of a PikaSource, and sends changes there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{Ground, text};
use takhin_e2e::wait;
use takhin_pika::info::DumpInfo;
use takhin_pika_testing::fixture::Fixture;
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::state::State;
use takhin_pika_testing::topics::{Read, distinct};

use crate::events::{self, Changes, TOPIC};
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

/// Everything that the dump has and everything after it arrives, once and in order, over ports of whatever node the pod runs on.
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
                "listedAs": { "type": "NodePort", "port": free_port(cluster)? },
            },
            "sink": { "topic": TOPIC },
        },
    }))?;
    is(&house, "Streaming")?;
    data_set(&house, &fixture)?;
    let mut changes = Changes::default();
    let more = |changes: &mut Changes| {
        changes.more(2, |command| master.legacy(|legacy| legacy.execute(&[command])));
    };
    more(&mut changes);
    changes.arrive_once(&house)?;
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
    more(&mut changes);
    // The one that went had the time to note how far it was.
    changes.arrive_once(&house)?;
    ensure!(
        master.push(|push| push.pushed) == 1,
        "the data set was taken again"
    );
    data_set(&house, &fixture)?;
    for node in ["n1", node] {
        cluster.kubectl(&["uncordon", node])?;
    }
    house.leave()
}

/// A port whose two neighbours, 1000 and 3000 above it, no Service has: brokers are given some by chance.
fn free_port(cluster: &Ground) -> Result<u64> {
    let services: Value = serde_json::from_str(&cluster.kubectl(&["get", "services", "-A", "-o", "json"])?)?;
    let services = services["items"].as_array().context("no list of Services")?;
    let ports = services
        .iter()
        .filter_map(|service| service["spec"]["ports"].as_array())
        .flatten();
    let taken: BTreeSet<u64> = ports.filter_map(|port| port["nodePort"].as_u64()).collect();
    let is_free = |port: &u64| !taken.contains(&(port + 1000)) && !taken.contains(&(port + 3000));
    (29_000..29_700).find(is_free).context("all ports are taken")
}

/// Waits until the data set has ended everywhere: it is what the server had, each piece once, and those of a key in order.
fn data_set(house: &House<'_>, fixture: &Fixture) -> Result<()> {
    let is = |op: &'static str| move |event: &&Read| event.text("op") == op;
    eprintln!("        waiting for the data set");
    let events = wait::value("the end of the data set", LIMIT, || {
        let (_, events) = events::read(house)?;
        let (begun, ended) = (is("snapshot_begin"), is("snapshot_end"));
        let begun = events.iter().filter(begun).count();
        let has_ended = begun > 0 && events.iter().filter(ended).count() == begun;
        Ok(has_ended.then_some(events))
    })?;
    let begun = events.iter().filter(is("snapshot_begin")).count();
    // One for each partition of the topic that it makes.
    ensure!(begun == 4, "the data set was begun {begun} times");
    let pieces: Vec<Read> = events
        .iter()
        .filter(|event| event.text("event_type") == "snapshot")
        .cloned()
        .collect();
    ensure!(distinct(&pieces) == pieces.len(), "pieces came twice");
    let mut next = std::collections::BTreeMap::new();
    for piece in &pieces {
        let index = piece.json["part"]["index"]
            .as_u64()
            .context("a piece without a number")?;
        let wanted = next
            .entry((piece.key.clone(), piece.text("data_type").to_owned()))
            .or_insert(0);
        ensure!(
            index == *wanted,
            "piece {index} instead of {wanted}: {}",
            piece.json
        );
        *wanted += 1;
    }
    let lines = fixture.lines("expected-1-load.jsonl")?;
    let checked = State::rebuild(&events, &[]).check(&lines, |_| false);
    ensure!(
        checked.equal + checked.expired == lines.len(),
        "{checked:?} of {}",
        lines.len()
    );
    Ok(())
}
