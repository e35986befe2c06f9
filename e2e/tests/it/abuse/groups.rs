//! Requests to a group by somebody who is not in it, or about what does not exist (I-11). Each gets Kafka's own error
//! code, and the group stays as it was.

use anyhow::{Result, ensure};
use takhin_e2e::session::LIMIT;
use takhin_e2e::wait;
use takhin_e2e::wire::{Asker, Connection, Join, Writer};

use super::{fresh_topic, survive};
use crate::suite::Context;

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const OFFSET_METADATA_TOO_LARGE: i16 = 12;
const ILLEGAL_GENERATION: i16 = 22;
const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
const INVALID_GROUP_ID: i16 = 24;
const UNKNOWN_MEMBER_ID: i16 = 25;
const INVALID_SESSION_TIMEOUT: i16 = 26;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;
const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;

const TOPIC: &str = "strangers";
const GROUP: &str = "strangers";
/// A group that nobody has made.
const NONE: &str = "no-such-group";
/// A member that nobody is.
const NOBODY: &str = "nobody";

/// A request, the error code it got, and the one that is Kafka's.
type Verdict = (&'static str, i16, i16);

/// The only member of a stable group.
struct Member {
    join: Join,
    generation: i32,
}

impl Member {
    fn asker(&self) -> Asker<'_> {
        Asker {
            group: &self.join.group,
            generation: self.generation,
            member: &self.join.member,
        }
    }
}

/// A consumer's subscription to one topic (ConsumerProtocolSubscription v0).
fn subscription(topic: &str) -> Result<Vec<u8>> {
    let mut w = Writer::default();
    w.i16(0).i32(1).string(topic)?.i32(-1);
    Ok(w.0)
}

/// One partition (ConsumerProtocolAssignment v0).
fn assignment(topic: &str, partition: i32) -> Result<Vec<u8>> {
    let mut w = Writer::default();
    w.i16(0).i32(1).string(topic)?.i32(1).i32(partition).i32(-1);
    Ok(w.0)
}

fn new_member(group: &str) -> Result<Join> {
    Ok(Join {
        group: group.to_owned(),
        session_timeout: 30_000,
        member: String::new(),
        instance: None,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), subscription(TOPIC)?)],
    })
}

/// Joins a new group; the caller has yet to send the assignment.
fn join(connection: &mut Connection, group: &str) -> Result<Member> {
    wait::until("a coordinator", LIMIT, || {
        Ok(connection.find_coordinator(group)? == 0)
    })?;
    let mut join = new_member(group)?;
    // A coordinator may still be loading.
    let first = wait::value("a member id", LIMIT, || {
        let joined = connection.join_group(&join)?;
        Ok((!(14..=16).contains(&joined.error)).then_some(joined))
    })?;
    ensure!(first.error == MEMBER_ID_REQUIRED, "JoinGroup: {first:?}");
    join.member = first.member;
    let joined = connection.join_group(&join)?;
    ensure!(
        joined.error == 0 && joined.leader == join.member,
        "JoinGroup: {joined:?}"
    );
    Ok(Member {
        join,
        generation: joined.generation,
    })
}

pub(super) fn strangers(context: &Context) -> Result<()> {
    survive(context, |broker| {
        let mut connection = fresh_topic(broker, TOPIC)?;
        let member = join(&mut connection, GROUP)?;
        let mine = assignment(TOPIC, 0)?;
        let synced = connection.sync_group(member.asker(), &[(&member.join.member, &mine)])?;
        ensure!(synced == (0, mine), "SyncGroup: {synced:?}");
        let committed = connection.offset_commit(member.asker(), TOPIC, 0, 5, "")?;
        ensure!(committed == 0, "OffsetCommit: error {committed}");
        let before = connection.describe_group(GROUP)?;
        ensure!(before.state == "Stable", "{before:?}");

        let mut wrong = Vec::new();
        for requests in [joins, members, commits, admins] {
            for (what, found, expected) in requests(&mut connection, &member)? {
                if found != expected {
                    wrong.push(format!("{what}: error {found} instead of {expected}"));
                }
            }
            let after = connection.describe_group(GROUP)?;
            ensure!(after == before, "the group was {before:?} and is {after:?}");
            let offset = connection.offset_fetch(GROUP, TOPIC, 0)?;
            ensure!(offset == (0, 5), "the committed offset is {offset:?}");
            ensure!(connection.heartbeat(member.asker())? == 0, "the member is in it");
        }
        ensure!(wrong.is_empty(), "{wrong:#?}");
        for group in [NONE, ""] {
            let unknown = connection.describe_group(group)?;
            ensure!(unknown.members.is_empty(), "{unknown:?}");
        }
        ensure!(
            connection.offset_fetch(NONE, TOPIC, 0)? == (0, -1),
            "an offset of nobody"
        );
        Ok(())
    })
}

fn joins(connection: &mut Connection, member: &Member) -> Result<Vec<Verdict>> {
    let good = new_member(GROUP)?;
    let of = |change: fn(&mut Join)| {
        let mut join = good.clone();
        change(&mut join);
        join
    };
    let requests = [
        ("no group", of(|j| j.group.clear()), INVALID_GROUP_ID),
        (
            "a session of 1 ms",
            of(|j| j.session_timeout = 1),
            INVALID_SESSION_TIMEOUT,
        ),
        (
            "a session of 25 days",
            of(|j| j.session_timeout = i32::MAX),
            INVALID_SESSION_TIMEOUT,
        ),
        (
            "a made-up member",
            of(|j| j.member = NOBODY.to_owned()),
            UNKNOWN_MEMBER_ID,
        ),
        (
            "a made-up member of no group",
            of(|j| {
                j.group = NONE.to_owned();
                j.member = NOBODY.to_owned();
            }),
            UNKNOWN_MEMBER_ID,
        ),
        (
            "no protocol",
            of(|j| j.protocols.clear()),
            INCONSISTENT_GROUP_PROTOCOL,
        ),
        (
            "no protocol in common",
            of(|j| j.protocols[0].0 = "other".to_owned()),
            INCONSISTENT_GROUP_PROTOCOL,
        ),
        (
            "another protocol type",
            of(|j| j.protocol_type = "connect".to_owned()),
            INCONSISTENT_GROUP_PROTOCOL,
        ),
        (
            "no protocol type",
            of(|j| j.protocol_type.clear()),
            INCONSISTENT_GROUP_PROTOCOL,
        ),
        (
            "a static name that nobody has",
            Join {
                instance: Some("nobody".to_owned()),
                ..member.join.clone()
            },
            UNKNOWN_MEMBER_ID,
        ),
    ];
    let verdicts = requests
        .into_iter()
        .map(|(what, join, expected)| Ok((what, connection.join_group(&join)?.error, expected)));
    verdicts.collect()
}

/// Those that are not a member in this generation: what to change in a good request, and the error.
fn askers(member: &Member) -> [(&'static str, Asker<'_>, i16); 4] {
    let good = member.asker();
    let generation = |generation| Asker { generation, ..good };
    [
        (
            "the next generation",
            generation(good.generation + 1),
            ILLEGAL_GENERATION,
        ),
        (
            "the last generation",
            generation(good.generation - 1),
            ILLEGAL_GENERATION,
        ),
        ("generation 2^31-1", generation(i32::MAX), ILLEGAL_GENERATION),
        (
            "nobody",
            Asker {
                member: NOBODY,
                ..good
            },
            UNKNOWN_MEMBER_ID,
        ),
    ]
}

fn members(connection: &mut Connection, member: &Member) -> Result<Vec<Verdict>> {
    let good = member.asker();
    let none = Asker { group: NONE, ..good };
    let empty = Asker { group: "", ..good };
    let mut all = Vec::new();
    for (what, asker, expected) in askers(member) {
        all.push((what, connection.heartbeat(asker)?, expected));
        let stolen = [(member.join.member.as_str(), &b"stolen"[..])];
        all.push((what, connection.sync_group(asker, &stolen)?.0, expected));
    }
    all.extend([
        (
            "heartbeat to no group",
            connection.heartbeat(none)?,
            UNKNOWN_MEMBER_ID,
        ),
        (
            "heartbeat without a group",
            connection.heartbeat(empty)?,
            INVALID_GROUP_ID,
        ),
        (
            "sync with no group",
            connection.sync_group(none, &[])?.0,
            UNKNOWN_MEMBER_ID,
        ),
        (
            "sync without a group",
            connection.sync_group(empty, &[])?.0,
            INVALID_GROUP_ID,
        ),
        (
            "nobody leaves",
            connection.leave_group(GROUP, NOBODY)?,
            UNKNOWN_MEMBER_ID,
        ),
        (
            "leaving no group",
            connection.leave_group(NONE, NOBODY)?,
            UNKNOWN_MEMBER_ID,
        ),
        (
            "leaving without a group",
            connection.leave_group("", NOBODY)?,
            INVALID_GROUP_ID,
        ),
    ]);
    Ok(all)
}

fn commits(connection: &mut Connection, member: &Member) -> Result<Vec<Verdict>> {
    let good = member.asker();
    let mut all = Vec::new();
    for (what, asker, expected) in askers(member) {
        all.push((what, connection.offset_commit(asker, TOPIC, 0, 7, "")?, expected));
    }
    let outside = Asker {
        generation: -1,
        member: "",
        ..good
    };
    let none = Asker { group: NONE, ..good };
    let long = "m".repeat(4097);
    all.extend([
        (
            "a commit from outside",
            connection.offset_commit(outside, TOPIC, 0, 7, "")?,
            UNKNOWN_MEMBER_ID,
        ),
        (
            "a commit to no group",
            connection.offset_commit(none, TOPIC, 0, 7, "")?,
            ILLEGAL_GENERATION,
        ),
        (
            "an unknown topic",
            connection.offset_commit(good, "no-such-topic", 0, 7, "")?,
            UNKNOWN_TOPIC_OR_PARTITION,
        ),
        (
            "a topic that is a path",
            connection.offset_commit(good, "../escape", 0, 7, "")?,
            UNKNOWN_TOPIC_OR_PARTITION,
        ),
        (
            "partition 1 of 1",
            connection.offset_commit(good, TOPIC, 1, 7, "")?,
            UNKNOWN_TOPIC_OR_PARTITION,
        ),
        (
            "partition -1",
            connection.offset_commit(good, TOPIC, -1, 7, "")?,
            UNKNOWN_TOPIC_OR_PARTITION,
        ),
        (
            "partition 2^31-1",
            connection.offset_commit(good, TOPIC, i32::MAX, 7, "")?,
            UNKNOWN_TOPIC_OR_PARTITION,
        ),
        (
            "metadata of 4097 bytes",
            connection.offset_commit(good, TOPIC, 0, 7, &long)?,
            OFFSET_METADATA_TOO_LARGE,
        ),
    ]);
    Ok(all)
}

fn admins(connection: &mut Connection, _: &Member) -> Result<Vec<Verdict>> {
    Ok(vec![
        (
            "deleting a group with a member",
            connection.delete_group(GROUP)?,
            NON_EMPTY_GROUP,
        ),
        (
            "deleting no group",
            connection.delete_group(NONE)?,
            GROUP_ID_NOT_FOUND,
        ),
        (
            "deleting without a group",
            connection.delete_group("")?,
            GROUP_ID_NOT_FOUND,
        ),
        (
            "deleting offsets that are in use",
            connection.offset_delete(GROUP, TOPIC, 0)?,
            GROUP_SUBSCRIBED_TO_TOPIC,
        ),
        (
            "deleting offsets of no group",
            connection.offset_delete(NONE, TOPIC, 0)?,
            GROUP_ID_NOT_FOUND,
        ),
        (
            "deleting offsets of no topic",
            connection.offset_delete(GROUP, "no-such-topic", 0)?,
            UNKNOWN_TOPIC_OR_PARTITION,
        ),
        (
            "deleting offsets of partition -1",
            connection.offset_delete(GROUP, "no-such-topic", -1)?,
            UNKNOWN_TOPIC_OR_PARTITION,
        ),
    ])
}

/// The leader of a classic group assigns what it likes: the broker passes it on and believes nothing of it.
pub(super) fn odd_assignments(context: &Context) -> Result<()> {
    survive(context, |broker| {
        let mut connection = fresh_topic(broker, "odd-assignments")?;
        let unknown = assignment("no-such-topic", i32::MAX)?;
        for (name, odd) in [
            ("unknown", unknown),
            ("garbage", vec![0xff; 1000]),
            ("empty", vec![]),
        ] {
            let group = format!("odd-{name}");
            let member = join(&mut connection, &group)?;
            let stranger: (&str, &[u8]) = (NOBODY, b"for nobody");
            let assignments = [stranger, (&member.join.member, &odd)];
            let synced = connection.sync_group(member.asker(), &assignments)?;
            ensure!(synced == (0, odd.clone()), "{name}: SyncGroup: {synced:?}");
            let described = connection.describe_group(&group)?;
            ensure!(
                described.members.len() == 1 && described.members[0].2 == odd,
                "{name}: {described:?}"
            );
            let committed = connection.offset_commit(member.asker(), "odd-assignments", 0, 3, "")?;
            ensure!(committed == 0, "{name}: OffsetCommit: error {committed}");
            ensure!(connection.leave_group(&group, &member.join.member)? == 0);
            ensure!(connection.describe_group(&group)?.state == "Empty");
            ensure!(connection.delete_group(&group)? == 0, "{name}: DeleteGroups");
        }
        Ok(())
    })
}
