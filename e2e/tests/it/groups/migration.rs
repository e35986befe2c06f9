//! Groups that go from a classic protocol to the consumer protocol and back while their members work (KIP-848): one
//! member at a time ends and comes back with the other protocol.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::session::{LIMIT, Session};
use takhin_e2e::{Broker, wait};

use super::{Client, all_at, fill, partitions, times_read, until, with_consumer_protocol};
use crate::java_tools::Tool;
use crate::suite::{Context, create_topic};

const PARTITIONS: i32 = 6;
const MEMBERS: usize = 3;
const CONSUMER: &str = "consumer";
/// Records that each partition gets at a time.
const SOME: i64 = 5;

pub(super) fn migrations(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        with_consumer_protocol(|client| {
            let mut tools = Session::java(&broker.bootstrap())?;
            // Eager members, and such that keep what does not move.
            for classic in ["range", "cooperative"] {
                there_and_back(broker, client, classic, &mut tools).context(classic)?;
            }
            Ok(())
        })
    })
}

/// A group whose members come and go.
struct Group<'a> {
    broker: &'a Broker,
    /// Of the topic and of the group.
    name: String,
    session: Session,
    /// Members that are there and their protocols, in the order in which they came.
    members: Vec<(String, &'a str)>,
    /// How many members there ever were.
    came: usize,
    /// Where each partition ends.
    end: i64,
    /// How often each record was read before the last commit, which covers all of them.
    committed: BTreeMap<(String, i64), usize>,
}

fn there_and_back(broker: &Broker, client: &Client, classic: &str, tools: &mut Session) -> Result<()> {
    let mut group = Group {
        broker,
        name: format!("migration-{}-{classic}", client.name),
        session: (client.start)(&broker.bootstrap())?,
        members: Vec::new(),
        came: 0,
        end: 0,
        committed: BTreeMap::new(),
    };
    create_topic(broker, &group.name, PARTITIONS, &[])?;
    for _ in 0..MEMBERS {
        group.join(classic)?;
    }
    group.settle(tools)?;
    for protocol in [CONSUMER, classic] {
        for change in 1..=MEMBERS {
            // Nobody waits for these before the change: whoever owns the partition then reads them.
            group.fill()?;
            let (leaver, _) = group.members.remove(0);
            group.session.leave(&leaver)?;
            group.join(protocol)?;
            group
                .settle(tools)
                .with_context(|| format!("{change} of {MEMBERS} members have changed to {protocol}"))?;
        }
    }
    Ok(())
}

impl<'a> Group<'a> {
    fn fill(&mut self) -> Result<()> {
        let begin = self.end;
        self.end += SOME;
        fill(self.broker, &self.name, PARTITIONS, begin..self.end)
    }

    fn join(&mut self, protocol: &'a str) -> Result<()> {
        self.came += 1;
        let member = format!("m{}", self.came);
        self.session
            .join(&member, &self.name, &self.name, protocol, None)?;
        self.members.push((member, protocol));
        Ok(())
    }

    /// Waits until the members share the partitions, has them read and commit, and looks at what is said of the group.
    fn settle(&mut self, tools: &mut Session) -> Result<()> {
        self.until_shared()?;
        self.fill()?;
        let all = i64::from(PARTITIONS) * self.end;
        until(
            format_args!("{all} records"),
            &mut [&mut self.session],
            |sessions| {
                let read = times_read(sessions[0].members().values());
                Ok(i64::try_from(read.len())? == all)
            },
        )?;
        let times = times_read(self.session.members().values());
        for (record, before) in &self.committed {
            ensure!(
                times.get(record) == Some(before),
                "{record:?} was read again although it had been committed"
            );
        }
        let members: Vec<&str> = self.members.iter().map(|(name, _)| name.as_str()).collect();
        self.session.commit(&members)?;
        self.committed = times;
        let committed = self.session.answer(&format!("committed {}", self.name))?;
        let expected = json!(all_at(&partitions(&self.name, PARTITIONS), self.end));
        ensure!(
            committed == expected,
            "committed: {committed} instead of {expected}"
        );
        self.judge_description(tools)
    }

    fn until_shared(&mut self) -> Result<()> {
        let members = &self.members;
        let all = partitions(&self.name, PARTITIONS);
        until("a fair share", &mut [&mut self.session], |sessions| {
            let mut owned = Vec::new();
            for (member, _) in members {
                let has = &sessions[0].member(member)?.owned;
                if has.len() != all.len() / MEMBERS {
                    return Ok(false);
                }
                owned.extend(has.iter().cloned());
            }
            owned.sort();
            Ok(owned.into_iter().eq(all.iter().cloned()))
        })?;
        // Who has what it is to have may not know yet of the group's last change, and could not commit.
        let describe = format!("describe {}", self.name);
        wait::until("a stable group", LIMIT, || {
            Ok(self.session.answer(&describe)?["state"] == "Stable")
        })
    }

    /// What Kafka's own tool says of the group.
    fn judge_description(&self, tools: &mut Session) -> Result<()> {
        const CLASS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        let name = &self.name;
        let mut ask = |words: &str| Tool::run(tools, self.broker, CLASS, words);
        let changed = self
            .members
            .iter()
            .filter(|(_, protocol)| *protocol == CONSUMER)
            .count();
        // As long as one member has the consumer protocol, the group has it.
        let kind = if changed > 0 { "Consumer" } else { "Classic" };
        ask("--list --type")?.has_row(&[name, kind])?;

        let offsets = ask(&format!("--describe --group {name}"))?;
        let end = self.end.to_string();
        for partition in 0..PARTITIONS {
            offsets.has_row(&[name, name, &partition.to_string(), &end, &end, "0"])?;
        }

        let members = ask(&format!("--describe --group {name} --members --verbose"))?;
        let rows = members.rows(name);
        ensure!(rows.len() == MEMBERS, "members: {rows:?}");
        // The column is there only when there are members of both kinds.
        if (1..MEMBERS).contains(&changed) {
            let upgraded = rows.iter().filter(|row| row.last() == Some(&"true")).count();
            ensure!(upgraded == changed, "{changed} have the new protocol: {rows:?}");
        }
        Ok(())
    }
}
