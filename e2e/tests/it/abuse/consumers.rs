//! The same for groups of KIP-848 (I-11): heartbeats that no client would send.

use anyhow::{Result, ensure};
use takhin_e2e::session::LIMIT;
use takhin_e2e::wait;
use takhin_e2e::wire::{Asker, Beat, Connection};

use super::{fresh_topic, survive};
use crate::suite::Context;

const UNKNOWN_MEMBER_ID: i16 = 25;
const INVALID_REQUEST: i16 = 42;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const FENCED_MEMBER_EPOCH: i16 = 110;
const UNRELEASED_INSTANCE_ID: i16 = 111;
const UNSUPPORTED_ASSIGNOR: i16 = 112;
const INVALID_REGULAR_EXPRESSION: i16 = 128;

const TOPIC: &str = "consumer-strangers";
const GROUP: &str = "consumer-strangers";

/// A good first heartbeat.
const JOIN: Beat<'_> = Beat {
    group: GROUP,
    member: "member",
    epoch: 0,
    instance: Some("instance"),
    rebalance_timeout: 30_000,
    topic: Some(TOPIC),
    regex: None,
    assignor: None,
    owned: Some(None),
};

/// A good first heartbeat of somebody else.
const OTHER: Beat<'_> = Beat {
    member: "other",
    instance: None,
    ..JOIN
};

pub(super) fn strangers(context: &Context) -> Result<()> {
    survive(context, |broker| {
        let mut connection = fresh_topic(broker, TOPIC)?;
        wait::until("a coordinator", LIMIT, || {
            Ok(connection.find_coordinator(GROUP)? == 0)
        })?;
        let epoch = wait::value("the first member", LIMIT, || {
            match connection.consumer_heartbeat(&JOIN)? {
                (0, epoch) => Ok(Some(epoch)),
                // The coordinator loads.
                (14..=16, _) => Ok(None),
                (error, _) => anyhow::bail!("the first heartbeat: error {error}"),
            }
        })?;
        let beat = Beat {
            epoch,
            rebalance_timeout: -1,
            topic: None,
            owned: None,
            ..JOIN
        };
        let mut wrong = Vec::new();
        for (what, bad, expected) in newcomers().into_iter().chain(members(&beat)) {
            let (error, _) = connection.consumer_heartbeat(&bad)?;
            if error != expected {
                wrong.push(format!("{what}: error {error} instead of {expected}"));
            }
            // Had anything changed, the group and with it the member would have another epoch.
            let alive = connection.consumer_heartbeat(&beat)?;
            ensure!(
                alive == (0, epoch),
                "{what}: the member's own heartbeat then got {alive:?}"
            );
        }
        for (what, found, expected) in others(&mut connection)? {
            if found != expected {
                wrong.push(format!("{what}: error {found} instead of {expected}"));
            }
        }
        ensure!(wrong.is_empty(), "{wrong:#?}");
        let left = connection.consumer_heartbeat(&Beat { epoch: -1, ..beat })?;
        ensure!(left == (0, -1), "leaving: {left:?}");
        ensure!(connection.delete_group(GROUP)? == 0, "DeleteGroups");
        Ok(())
    })
}

/// A bad heartbeat: its name, and the error code that is Kafka's.
type Bad<'a> = (&'static str, Beat<'a>, i16);

/// Bad heartbeats of somebody who is not in the group yet.
fn newcomers() -> Vec<Bad<'static>> {
    vec![
        ("no group", Beat { group: "", ..OTHER }, INVALID_REQUEST),
        ("no member id", Beat { member: "", ..OTHER }, INVALID_REQUEST),
        ("no topics", Beat { topic: None, ..OTHER }, INVALID_REQUEST),
        (
            "no owned partitions",
            Beat { owned: None, ..OTHER },
            INVALID_REQUEST,
        ),
        (
            "partitions of a newcomer",
            Beat {
                owned: Some(Some(([7; 16], i32::MAX))),
                ..OTHER
            },
            INVALID_REQUEST,
        ),
        (
            "no rebalance timeout",
            Beat {
                rebalance_timeout: -1,
                ..OTHER
            },
            INVALID_REQUEST,
        ),
        (
            "an assignor that nobody has",
            Beat {
                assignor: Some("mine"),
                ..OTHER
            },
            UNSUPPORTED_ASSIGNOR,
        ),
        (
            "half an expression",
            Beat {
                topic: None,
                regex: Some("(a"),
                ..OTHER
            },
            INVALID_REGULAR_EXPRESSION,
        ),
        (
            "a static name that is in use",
            Beat {
                instance: JOIN.instance,
                ..OTHER
            },
            UNRELEASED_INSTANCE_ID,
        ),
    ]
}

/// Bad heartbeats of somebody who says to be in it; `beat` is a good one of the member.
fn members<'a>(beat: &Beat<'a>) -> Vec<Bad<'a>> {
    let epoch = |epoch| Beat {
        epoch,
        ..beat.clone()
    };
    let nobody = Beat {
        member: "nobody",
        instance: None,
        ..beat.clone()
    };
    vec![
        ("an epoch ahead", epoch(beat.epoch + 1), FENCED_MEMBER_EPOCH),
        ("epoch 2^31-1", epoch(i32::MAX), FENCED_MEMBER_EPOCH),
        ("epoch -3", epoch(-3), INVALID_REQUEST),
        ("nobody stays", nobody.clone(), UNKNOWN_MEMBER_ID),
        (
            "nobody leaves",
            Beat {
                epoch: -1,
                ..nobody.clone()
            },
            UNKNOWN_MEMBER_ID,
        ),
        (
            "a group that nobody has made",
            Beat {
                group: "no-such-group",
                ..nobody
            },
            GROUP_ID_NOT_FOUND,
        ),
    ]
}

/// Other requests to the group.
fn others(connection: &mut Connection) -> Result<[(&'static str, i16, i16); 3]> {
    let outside = Asker {
        group: GROUP,
        generation: -1,
        member: "",
    };
    let nobody = Asker {
        generation: 1,
        member: "nobody",
        ..outside
    };
    Ok([
        (
            "a commit from outside",
            connection.offset_commit(outside, TOPIC, 0, 7, "")?,
            UNKNOWN_MEMBER_ID,
        ),
        (
            "a commit of nobody",
            connection.offset_commit(nobody, TOPIC, 0, 7, "")?,
            UNKNOWN_MEMBER_ID,
        ),
        (
            "deleting a group with a member",
            connection.delete_group(GROUP)?,
            NON_EMPTY_GROUP,
        ),
    ])
}
