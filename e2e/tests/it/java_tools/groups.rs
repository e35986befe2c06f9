//! `kafka-consumer-groups.sh`: every verb and every kind of reset, in one JVM beside a member.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use takhin_e2e::Broker;
use takhin_e2e::session::Session;
use takhin_e2e::wait;

use crate::groups::{fill, until};
use crate::java_tools::Tool;
use crate::suite::{Context, create_topic};

const TOPIC: &str = "tool-group";
const GROUP: &str = "tool-group";

fn tool(session: &mut Session, broker: &Broker, words: &str) -> Result<Tool> {
    const CLASS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    Tool::run(session, broker, CLASS, words)
}

pub(super) fn every_verb(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        create_topic(broker, TOPIC, 2, &[])?;
        fill(broker, TOPIC, 2, 0..10)?;
        let mut session = Session::java(&broker.bootstrap())?;
        session.join("member", GROUP, TOPIC, "range", None)?;
        until("all records", &mut [&mut session], |s| {
            Ok(s[0].member("member")?.read.len() == 20)
        })?;
        session.commit(&["member"])?;
        with_a_member(&mut session, broker)?;
        session.leave("member")?;
        wait::until("an empty group", takhin_e2e::session::LIMIT, || {
            Ok(session.answer(&format!("describe {GROUP}"))?["state"] == "Empty")
        })?;
        tool(&mut session, broker, "--describe --group tool-group")?.says("has no active members")?;
        resets(&mut session, broker)?;
        end(&mut session, broker)?;
        console_consumers(&mut session, broker)
    })
}

fn with_a_member(session: &mut Session, broker: &Broker) -> Result<()> {
    tool(session, broker, "--list")?.has_row(&[GROUP])?;
    tool(session, broker, "--list --state")?.has_row(&[GROUP, "Stable"])?;
    tool(session, broker, "--list --state Empty")?.has_no_row(GROUP)?;
    tool(session, broker, "--list --type")?.has_row(&[GROUP, "Classic"])?;
    let described = tool(session, broker, "--describe --group tool-group")?;
    for partition in ["0", "1"] {
        described.has_row(&[GROUP, TOPIC, partition, "10", "10", "0"])?;
    }
    described.says("/127.0.0.1")?.says("client-member")?;
    tool(
        session,
        broker,
        "--describe --group tool-group --members --verbose",
    )?
    .says("client-member")?
    .says("tool-group:0,1")?;
    tool(session, broker, "--describe --group tool-group --state")?
        .says("range")?
        .says("Stable")?;

    let reset = "--reset-offsets --group tool-group --topic tool-group --to-earliest --execute";
    tool(session, broker, reset)?.says("the current state is Stable")?;
    tool(session, broker, "--delete --group tool-group")?.says("The group is not empty")?;
    let delete = "--delete-offsets --group tool-group --topic tool-group";
    tool(session, broker, delete)?.says("GroupSubscribedToTopicException")?;
    let committed = session.answer("committed tool-group")?;
    ensure!(committed == at(10, 10), "refused, and yet changed: {committed}");
    Ok(())
}

fn at(first: i64, second: i64) -> Value {
    json!({ "tool-group-0": first, "tool-group-1": second })
}

/// Each kind of reset, in an order in which each changes something.
fn resets(session: &mut Session, broker: &Broker) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let plan = dir.path().join("plan.csv");
    std::fs::write(&plan, "tool-group,0,1\ntool-group,1,2\n")?;
    let from_file = format!("--from-file {}", plan.display());
    // All records are of 2026-11-01T00:00:00Z.
    let all = "--topic tool-group";
    for (which, kind, expected) in [
        (all, "--to-earliest", at(0, 0)),
        (all, "--to-latest", at(10, 10)),
        (all, "--to-offset 4", at(4, 4)),
        (all, "--shift-by 3", at(7, 7)),
        (all, "--shift-by -2", at(5, 5)),
        (all, "--to-current", at(5, 5)),
        (all, "--to-datetime 2026-11-01T00:00:00.000Z", at(0, 0)),
        (all, "--to-datetime 2026-11-01T00:00:00.001Z", at(10, 10)),
        (all, "--by-duration P20000D", at(0, 0)),
        // Beyond the end there is only the end.
        (all, "--to-offset 99", at(10, 10)),
        (all, "--shift-by -99", at(0, 0)),
        ("--topic tool-group:1", "--to-latest", at(0, 10)),
        ("--all-topics", "--to-offset 6", at(6, 6)),
        (all, &from_file, at(1, 2)),
    ] {
        let words = format!("--reset-offsets --group tool-group {which} {kind}");
        let before = session.answer("committed tool-group")?;
        tool(session, broker, &format!("{words} --dry-run"))?;
        let dry = session.answer("committed tool-group")?;
        ensure!(dry == before, "{words}: a dry run went from {before} to {dry}");
        tool(session, broker, &format!("{words} --execute"))?;
        let after = session.answer("committed tool-group")?;
        ensure!(after == expected, "{words}: {after} instead of {expected}");
    }
    let export = "--reset-offsets --group tool-group --topic tool-group --to-current --dry-run --export";
    tool(session, broker, export)?
        .says("tool-group,0,1")?
        .says("tool-group,1,2")?;
    Ok(())
}

fn end(session: &mut Session, broker: &Broker) -> Result<()> {
    let one = "--delete-offsets --group tool-group --topic tool-group:1";
    tool(session, broker, one)?.has_row(&[TOPIC, "1", "Successful"])?;
    let committed = session.answer("committed tool-group")?;
    ensure!(
        committed == json!({ "tool-group-0": 1 }),
        "one offset was deleted: {committed}"
    );
    tool(session, broker, "--delete --group tool-group")?.says("was successful")?;
    tool(session, broker, "--delete --group tool-group")?.says("The group id does not exist")?;
    tool(session, broker, "--describe --group tool-group")?.says("GroupIdNotFoundException")?;
    tool(session, broker, "--list")?
        .has_no_row(GROUP)
        .context("after --delete")
}

/// The console consumer as a member of a group: what it has read it does not read again.
fn console_consumers(session: &mut Session, broker: &Broker) -> Result<()> {
    for (end, protocol) in [(10, "classic"), (11, "consumer")] {
        let mut consume = |from: i64, to: i64| {
            let words = format!(
                "--topic {TOPIC} --group console-{protocol} --from-beginning --timeout-ms 30000 \
                 --command-property group.protocol={protocol} --max-messages {}",
                2 * (to - from)
            );
            let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
            let told = Tool::run(session, broker, class, &words)?;
            let mut read: Vec<i64> = told.text.lines().filter_map(|line| line.parse().ok()).collect();
            read.sort_unstable();
            // Each value is the offset of its record, and there are two partitions.
            let expected: Vec<_> = (from..to).flat_map(|offset| [offset, offset]).collect();
            ensure!(read == expected, "{protocol}: {}", told.text);
            let committed = session.answer(&format!("committed console-{protocol}"))?;
            ensure!(committed == at(to, to), "{protocol}: committed {committed}");
            Ok(())
        };
        consume(0, end)?;
        fill(broker, TOPIC, 2, end..end + 1)?;
        consume(end, end + 1)?;
    }
    Ok(())
}
