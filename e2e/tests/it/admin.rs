//! An operator restarts a broker of three by the admin API, while idempotent producers write.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Cluster, wait, wire};

use crate::crash::{LIMIT, PARTITIONS, all_answered};
use crate::suite::{Context, Suites};

const TOPIC: &str = "operated";
const TOKEN: &str = "a-token-that-nobody-guesses";

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("admin::a_broker_is_drained_restarted_and_undrained", restart);
}

/// Asks the broker at this place of the list; anything but 200 is an error.
fn ask(cluster: &Cluster, place: usize, method: &str, path: &str) -> Result<Value> {
    let (status, json) = cluster.brokers[place].ask_admin(method, path, Some(TOKEN))?;
    ensure!(status == 200, "{method} {path}: {status} {json}");
    Ok(json)
}

/// Kinds of the reasons in an answer.
fn kinds(json: &Value) -> Vec<&str> {
    let counts = json["counts"].as_object();
    counts
        .into_iter()
        .flatten()
        .map(|(kind, _)| kind.as_str())
        .collect()
}

fn until(cluster: &Cluster, place: usize, path: &str, so: impl Fn(&Value) -> bool) -> Result<()> {
    let mut last = Value::Null;
    let held = wait::until(format_args!("GET {path} to say so"), LIMIT, || {
        last = ask(cluster, place, "GET", path)?;
        Ok(so(&last))
    });
    held.with_context(|| last.to_string())
}

/// Whoever has no token, or asks for what is not there, is told so.
fn refusals(cluster: &Cluster) -> Result<()> {
    let broker = &cluster.brokers[0];
    for (method, path, token, status, field) in [
        ("POST", "/v1/brokers/1/drain", None, 401, "Authorization"),
        (
            "GET",
            "/v1/node",
            Some("another-token-of-somebody"),
            401,
            "Authorization",
        ),
        ("GET", "/v1/brokers/9/restart-safety", Some(TOKEN), 404, "id"),
        ("POST", "/v1/brokers/one/drain", Some(TOKEN), 400, "id"),
        ("DELETE", "/v1/node", Some(TOKEN), 405, "method"),
    ] {
        let (found, problem) = broker.ask_admin(method, path, token)?;
        ensure!(found == status, "{method} {path}: {found} {problem}");
        ensure!(problem["field"] == field, "{method} {path}: {problem}");
        ensure!(problem["remedy"].is_string(), "{method} {path}: {problem}");
    }
    let draining = ask(cluster, 0, "GET", "/v1/brokers/1/drain")?;
    ensure!(
        draining["draining"] == false,
        "drained without a token: {draining}"
    );
    Ok(())
}

fn restart(_: &Context) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let token = dir.path().join("token");
    fs::write(&token, TOKEN)?;
    let token = token.to_string_lossy().into_owned();
    let mut cluster = Cluster::start_with(3, usize::MAX, |_, broker| {
        broker.set("admin.token_file", &token);
    })?;
    let created = wire::Connection::open(cluster.brokers[0].address())?.create_replicated_topic(
        TOPIC,
        PARTITIONS,
        3,
        &[("min.insync.replicas", "2")],
    )?;
    ensure!(created == 0, "CreateTopics: error {created}");
    refusals(&cluster)?;
    let mut writer = Writer::start(&cluster.bootstrap(), TOPIC, PARTITIONS)?;
    writer.wait_acked(500, LIMIT)?;
    drain(&cluster)?;
    writer.wait_acked(500, LIMIT)?;
    cluster.brokers[1].stop()?;
    miss(&cluster)?;
    writer.wait_acked(500, LIMIT)?;
    cluster.start_again(1)?;
    until(&cluster, 0, "/v1/brokers/3/restart-safety", |json| {
        json["safe"] == true
    })?;
    writer.wait_acked(1_000, LIMIT)?;
    undrain(&cluster)?;
    writer.wait_acked(500, LIMIT)?;
    let log = writer.finish()?;
    all_answered(&writer::check(&cluster.bootstrap(), TOPIC, &log)?)
}

/// The second broker, asked for at another one.
fn drain(cluster: &Cluster) -> Result<()> {
    ask(cluster, 0, "POST", "/v1/brokers/2/drain")?;
    ask(cluster, 1, "POST", "/v1/brokers/2/drain")?;
    until(cluster, 2, "/v1/brokers/2/drain", |json| json["done"] == true)?;
    until(cluster, 0, "/v1/brokers/2/restart-safety", |json| {
        json["safe"] == true && json["leaders"] == 0
    })?;
    let node = ask(cluster, 1, "GET", "/v1/node")?;
    ensure!(node["draining"] == true && node["leaders"] == 0, "{node}");
    Ok(())
}

/// The second broker is gone: that is said, and no other one may be stopped.
fn miss(cluster: &Cluster) -> Result<()> {
    until(cluster, 0, "/v1/cluster/health", |json| {
        let reasons = json["reasons"].as_array().into_iter().flatten();
        let silent = reasons.filter(|reason| reason["kind"] == "broker_silent");
        json["healthy"] == false && silent.map(|reason| &reason["broker"]).eq([&Value::from(2)])
    })?;
    let safety = ask(cluster, 0, "GET", "/v1/brokers/3/restart-safety")?;
    ensure!(
        safety["safe"] == false && safety["waiting_helps"] == true,
        "{safety}"
    );
    let reasons = kinds(&safety);
    for kind in [
        "broker_silent",
        "partition_majority_at_risk",
        "controller_majority_at_risk",
    ] {
        ensure!(reasons.contains(&kind), "{kind} is missing: {safety}");
    }
    Ok(())
}

/// What was asked for has outlived the second broker's process; taken back, that broker leads again.
fn undrain(cluster: &Cluster) -> Result<()> {
    let brokers = ask(cluster, 1, "GET", "/v1/brokers")?;
    let second = &brokers["brokers"][1];
    ensure!(
        second["state"] == "draining" && second["leaders"] == 0,
        "{brokers}"
    );
    ask(cluster, 2, "POST", "/v1/brokers/2/undrain")?;
    until(cluster, 0, "/v1/brokers", |json| {
        let leads = |broker: &Value| broker["leaders"].as_u64() > Some(0);
        json["brokers"]
            .as_array()
            .is_some_and(|brokers| brokers.iter().all(leads))
    })?;
    // The disk of the machine that runs this is its owner's.
    until(cluster, 2, "/v1/cluster/health", |json| {
        kinds(json).iter().all(|kind| kind.starts_with("disk_"))
    })
}
