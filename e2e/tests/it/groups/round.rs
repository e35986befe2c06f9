//! One member: reads, commits, leaves; its admin client describes, resets, deletes, and alters
//! topics.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use takhin_e2e::session::Session;
use takhin_e2e::{Broker, wait};

use super::{Client, Strategy, admin, all_at, fill, partitions, until, with_each_client};
use crate::suite::{Context, create_topic};

const PARTITIONS: i32 = 3;

const UNKNOWN_MEMBER_ID: i16 = 25;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;

pub(super) fn rounds(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        with_each_client(|client| {
            let mut session = (client.start)(&broker.bootstrap())?;
            let mut strategies = client.strategies.iter();
            // What comes after the join is the same for all classic protocols.
            let classic = strategies.next();
            let consumer = strategies.find(|&&strategy| strategy == Strategy::Consumer);
            for strategy in classic.into_iter().chain(consumer) {
                round(broker, client, &mut session, strategy.protocol()).with_context(|| strategy.name())?;
            }
            admin::topic(broker, client, &mut session)
        })
    })
}

fn round(broker: &Broker, client: &Client, session: &mut Session, protocol: &str) -> Result<()> {
    let topic = format!("round-{}-{protocol}", client.name);
    let group = format!("rounds-{}-{protocol}", client.name);
    create_topic(broker, &topic, PARTITIONS, &[])?;
    fill(broker, &topic, PARTITIONS, 0..10)?;
    session.join("first", &group, &topic, protocol, None)?;
    until("all records", &mut [&mut *session], |s| {
        Ok(s[0].member("first")?.read.len() == 30)
    })?;
    let expected = all_at(&partitions(&topic, PARTITIONS), 10);
    session.commit(&["first"])?;
    let committed = session.member("first")?.commits.last();
    ensure!(committed == Some(&expected), "what was committed: {committed:?}");
    while_there_are_members(session, &topic, &group)?;
    session.leave("first")?;
    reset(session, &topic, &group, protocol)?;
    end(session, client, &topic, &group)
}

fn while_there_are_members(session: &mut Session, topic: &str, group: &str) -> Result<()> {
    let listed = session.answer("groups")?;
    let state = listed.get(group).context("a group that is not listed")?;
    ensure!(state.is_null() || state == "Stable", "listed as {state}");

    let described = session.answer(&format!("describe {group}"))?;
    ensure!(described["state"] == "Stable", "described as {described}");
    let members = described["members"].as_array().context("no members")?;
    ensure!(members.len() == 1, "members: {members:?}");
    let member = &members[0];
    ensure!(
        member["client"] == "client-first" && member["host"] == "/127.0.0.1",
        "the member: {member}"
    );
    let id = member["id"].as_str().context("no member id")?;
    // A consumer of KIP-848 makes its id by itself.
    let made_by_broker = described["protocol"] != "uniform";
    ensure!(
        !made_by_broker || id.starts_with("client-first-"),
        "the member id: {id}"
    );
    let mut owned: Vec<String> = serde_json::from_value(member["partitions"].clone())?;
    owned.sort();
    ensure!(
        owned.into_iter().eq(partitions(topic, PARTITIONS)),
        "the assignment: {member}"
    );

    let dropped = session.ask(&format!("drop {group}"))?;
    ensure!(
        dropped == Err(Some(NON_EMPTY_GROUP)),
        "deleted with members: {dropped:?}"
    );
    let reset = session.ask(&format!("reset {group} {topic}:0:4"))?;
    // kafkajs looks at the state of the group and does not ask.
    ensure!(
        matches!(reset, Err(Some(UNKNOWN_MEMBER_ID) | None)),
        "reset with members: {reset:?}"
    );
    let committed = session.answer(&format!("committed {group}"))?;
    let expected = json!(all_at(&partitions(topic, PARTITIONS), 10));
    ensure!(committed == expected, "refused, and yet changed: {committed}");
    Ok(())
}

/// Nobody is there any more: offsets go back, and the next member reads from there.
fn reset(session: &mut Session, topic: &str, group: &str, protocol: &str) -> Result<()> {
    wait_empty(session, group)?;
    session.answer(&format!("reset {group} {topic}:0:4"))?;
    let mut expected = all_at(&partitions(topic, PARTITIONS), 10);
    expected.insert(format!("{topic}-0"), 4);
    let committed = session.answer(&format!("committed {group}"))?;
    ensure!(committed == json!(expected), "after the reset: {committed}");

    session.join("second", group, topic, protocol, None)?;
    until("the records after the reset", &mut [session], |s| {
        Ok(s[0].member("second")?.read.len() >= 6)
    })?;
    session.commit(&["second"])?;
    let read = &session.member("second")?.read;
    let after_reset = (4..10).map(|offset| (format!("{topic}-0"), offset));
    ensure!(read.iter().cloned().eq(after_reset), "read: {read:?}");
    session.leave("second")?;
    wait_empty(session, group)
}

fn wait_empty(session: &mut Session, group: &str) -> Result<()> {
    wait::until("an empty group", takhin_e2e::session::LIMIT, || {
        Ok(session.answer(&format!("describe {group}"))?["state"] == "Empty")
    })
}

/// Deletes offsets where the client can, and the group.
fn end(session: &mut Session, client: &Client, topic: &str, group: &str) -> Result<()> {
    let mut expected = all_at(&partitions(topic, PARTITIONS), 10);
    if matches!(client.name, "java" | "kafka-python") {
        session.answer(&format!("forget {group} {topic}:1"))?;
        expected.remove(&format!("{topic}-1"));
    }
    let committed = session.answer(&format!("committed {group}"))?;
    ensure!(committed == json!(expected), "before the end: {committed}");
    session.answer(&format!("drop {group}"))?;
    let again = session.ask(&format!("drop {group}"))?;
    ensure!(again == Err(Some(GROUP_ID_NOT_FOUND)), "deleted twice: {again:?}");
    match session.ask(&format!("describe {group}"))? {
        // Clients that ask for an older version.
        Ok(described) => ensure!(described["state"] == "Dead", "described as {described}"),
        Err(code) => ensure!(
            code == Some(GROUP_ID_NOT_FOUND),
            "described with error code {code:?}"
        ),
    }
    let listed = session.answer("groups")?;
    ensure!(
        listed.get(group).is_none(),
        "listed after it was deleted: {listed}"
    );
    let committed = session.answer(&format!("committed {group}"))?;
    ensure!(
        committed.as_object().is_some_and(no_offsets),
        "after the end: {committed}"
    );
    Ok(())
}

/// -1 is no offset.
fn no_offsets(committed: &serde_json::Map<String, Value>) -> bool {
    committed.values().all(|offset| offset == -1)
}
