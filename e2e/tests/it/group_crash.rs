//! kill -9 under groups: no acknowledged commit may be lost, no group and no member, and none that was deleted may
//! come back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::committer::Committer;
use takhin_e2e::rng::Rng;
use takhin_e2e::wire::{Asker, Connection};
use takhin_e2e::{Broker, Kind, wait};

use crate::suite::{Context, Suites, create_topic};

const TOPIC: &str = "group-crash";
const PARTITIONS: i32 = 3;
/// The groups that have members, of the classic protocol and of KIP-848.
const WITH_MEMBERS: [&str; 2] = ["members", "consumers"];
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn add(suites: &mut Suites) {
    suites.add("group_crash::kill_9_loses_no_commit_and_no_group", kill_loop);
}

/// Kills per run: Apache Kafka takes seconds to start.
fn kills(kind: Kind) -> u64 {
    match kind {
        Kind::Kafka => 3,
        Kind::Takhin => 8,
    }
}

fn kill_loop(context: &Context) -> Result<()> {
    let mut rng = Rng::from_env("group_crash");
    let mut broker = Broker::new(context.kind)?;
    broker.start()?;
    create_topic(&broker, TOPIC, PARTITIONS, &[])?;
    let mut committer = Committer::start(&broker.bootstrap(), TOPIC, PARTITIONS)?;
    wait_members(&mut committer, 1)?;
    for round in 0..kills(context.kind) {
        let doomed = format!("doomed-{round}");
        make_and_delete(&broker, &doomed)?;
        // At a random moment of the load, so never between two requests only.
        let more = i64::try_from(rng.within(1..100))?;
        wait_members(&mut committer, more)?;
        broker.kill();
        broker.start()?;
        check(&broker, &committer).with_context(|| format!("after kill {round}"))?;
        ensure!(
            committed(&broker, &doomed, 0)? == -1,
            "{doomed} is there again after kill {round}"
        );
        // A commit of a member says that it is in the group.
        wait_members(&mut committer, 1).with_context(|| format!("after kill {round}"))?;
    }
    both_are_members(&broker)?;
    let log = committer.finish()?;
    for ((group, partition), acked) in &log.acked {
        let found = committed(&broker, group, *partition)?;
        let sent = log.sent[&(group.clone(), *partition)];
        ensure!(
            (*acked..=sent).contains(&found),
            "{group} {partition}: {found} in the end"
        );
    }
    let total: i64 = log.acked.values().sum();
    eprintln!("        {total} commits acknowledged");
    Ok(())
}

/// Waits for `more` acknowledged commits of the members of each group.
fn wait_members(committer: &mut Committer, more: i64) -> Result<()> {
    for group in WITH_MEMBERS {
        let goal = committer.commits()?.total(group) + more;
        committer.wait(&format!("commits of {group}"), LIMIT, |commits| {
            commits.total(group) >= goal
        })?;
    }
    Ok(())
}

/// Every commit is there as it was acknowledged, or as it was sent later.
fn check(broker: &Broker, committer: &Committer) -> Result<()> {
    // The committers go on meanwhile: what was acknowledged is looked at before, what was sent after.
    let before = committer.commits()?;
    let mut found = Vec::new();
    for (place, acked) in before.acked {
        let offset = committed(broker, &place.0, place.1)?;
        found.push((place, acked, offset));
    }
    let after = committer.commits()?;
    for (place, acked, offset) in found {
        let sent = after.sent[&place];
        ensure!(
            (acked..=sent).contains(&offset),
            "{place:?}: {acked} was acknowledged and {sent} was sent, {offset} is there"
        );
    }
    Ok(())
}

/// The committed offset, once the coordinator has loaded its groups.
fn committed(broker: &Broker, group: &str, partition: i32) -> Result<i64> {
    let mut connection = Connection::open(broker.address())?;
    wait::value("a coordinator", LIMIT, || {
        match connection.offset_fetch(group, TOPIC, partition)? {
            (0, offset) => Ok(Some(offset)),
            // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR
            (14..=16, _) => Ok(None),
            (error, _) => anyhow::bail!("OffsetFetch of {group}: error {error}"),
        }
    })
}

/// A group with an offset that is deleted, and whose end is acknowledged.
fn make_and_delete(broker: &Broker, group: &str) -> Result<()> {
    let mut connection = Connection::open(broker.address())?;
    let asker = Asker {
        group,
        generation: -1,
        member: "",
    };
    let error = connection.offset_commit(asker, TOPIC, 0, 7, "")?;
    ensure!(error == 0, "OffsetCommit of {group}: error {error}");
    let error = connection.delete_group(group)?;
    ensure!(error == 0, "DeleteGroups of {group}: error {error}");
    Ok(())
}

fn both_are_members(broker: &Broker) -> Result<()> {
    let mut connection = Connection::open(broker.address())?;
    wait::until("two members", LIMIT, || {
        let group = connection.describe_group(WITH_MEMBERS[0])?;
        let shared = group
            .members
            .iter()
            .all(|(_, _, assignment)| !assignment.is_empty());
        Ok(group.state == "Stable" && group.members.len() == 2 && shared)
    })
}
