//! What else the admin clients do to a topic: more partitions, settings, fewer records, the end.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use takhin_e2e::session::{LIMIT, Session};
use takhin_e2e::{Broker, wait, wire};

use super::{Client, fill};
use crate::suite::create_topic;

const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_PARTITIONS: i16 = 37;
const INVALID_CONFIG: i16 = 40;

pub(super) fn topic(broker: &Broker, client: &Client, session: &mut Session) -> Result<()> {
    let topic = format!("altered-by-{}", client.name);
    create_topic(broker, &topic, 2, &[("segment.ms", "700000")])?;
    fill(broker, &topic, 2, 0..10)?;
    grow(broker, session, &topic)?;
    configs(session, &topic, client.name)?;
    trim(broker, session, &topic)?;
    session.answer(&format!("remove {topic}"))?;
    let mut connection = wire::Connection::open(broker.address())?;
    wait::until("the end of the topic", LIMIT, || {
        let (error, _, _) = connection.fetch(&topic, 0, 4, 1)?;
        Ok(error == UNKNOWN_TOPIC_OR_PARTITION)
    })
}

fn grow(broker: &Broker, session: &mut Session, topic: &str) -> Result<()> {
    session.answer(&format!("grow {topic} 3"))?;
    let fewer = session.ask(&format!("grow {topic} 2"))?;
    ensure!(
        fewer == Err(Some(INVALID_PARTITIONS)),
        "fewer partitions: {fewer:?}"
    );
    // Takes records only where there is a third one.
    let mut connection = wire::Connection::open(broker.address())?;
    let end = wait::value("the new partition", LIMIT, || {
        Ok(connection.list_offset(topic, 2, -1).ok())
    })?;
    ensure!(end == 0, "the new partition ends at {end}");
    Ok(())
}

fn configs(session: &mut Session, topic: &str, client: &str) -> Result<()> {
    let before = session.answer(&format!("configs {topic}"))?;
    ensure!(
        before["segment.ms"] == "700000" && before["retention.ms"] == "604800000",
        "at first: {before}"
    );
    let mut expected = before.clone();
    expected["retention.ms"] = json!("86400000");
    alter(session, topic, "set retention.ms=86400000", &expected)?;
    for wrong in ["retention.ms=soon", "no.such.setting=1"] {
        let refused = session.ask(&format!("alter {topic} set {wrong}"))?;
        ensure!(refused == Err(Some(INVALID_CONFIG)), "{wrong}: {refused:?}");
    }
    // kafkajs has no incremental form.
    if client != "kafkajs" {
        expected["cleanup.policy"] = json!("delete,compact");
        alter(session, topic, "append cleanup.policy=compact", &expected)?;
        expected["cleanup.policy"] = json!("delete");
        alter(session, topic, "subtract cleanup.policy=compact", &expected)?;
    }
    alter(session, topic, "delete retention.ms", &before)
}

/// Alters a setting and waits until the broker says so; Apache Kafka's brokers learn it a moment later.
fn alter(session: &mut Session, topic: &str, change: &str, expected: &Value) -> Result<()> {
    session.answer(&format!("alter {topic} {change}"))?;
    let mut seen = Value::Null;
    let waited = wait::until(change, LIMIT, || {
        seen = session.answer(&format!("configs {topic}"))?;
        Ok(&seen == expected)
    });
    waited.with_context(|| format!("{seen} instead of {expected}"))
}

fn trim(broker: &Broker, session: &mut Session, topic: &str) -> Result<()> {
    let low = session.answer(&format!("trim {topic}:0:4"))?;
    ensure!(low == json!({ format!("{topic}-0"): 4 }), "low watermark: {low}");
    let beyond = session.ask(&format!("trim {topic}:0:11"))?;
    ensure!(
        beyond == Err(Some(OFFSET_OUT_OF_RANGE)),
        "beyond the end: {beyond:?}"
    );
    let mut connection = wire::Connection::open(broker.address())?;
    let bounds = (
        connection.list_offset(topic, 0, -2)?,
        connection.list_offset(topic, 0, -1)?,
    );
    ensure!(bounds == (4, 10), "{topic}-0 holds {bounds:?}");
    let (error, _, _) = connection.fetch(topic, 0, 3, 1 << 20)?;
    ensure!(error == OFFSET_OUT_OF_RANGE, "a deleted record: error {error}");
    Ok(())
}
