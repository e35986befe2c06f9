//! Two members of a group, one killed: the other takes over all partitions, from the last commit on.
//!
//! Two sessions hold a member each of one group per strategy, so that one kill -9 and one wait for the timeout of a
//! session do for all.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use takhin_e2e::Broker;
use takhin_e2e::session::Session;

use super::{Client, Strategy, all_at, fill, kcat, partitions, times_read, until, with_each_client};
use crate::suite::{Context, create_topic};

const PARTITIONS: i32 = 4;

pub(super) fn handovers(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        std::thread::scope(|scope| {
            let kcat = scope.spawn(|| kcat::handover(broker));
            with_each_client(|client| handover(broker, client))?;
            kcat.join()
                .map_err(|_| anyhow::anyhow!("kcat: a panic"))?
                .context("kcat")
        })
    })
}

/// The groups of one client: a topic, and a group per strategy, whose members have its name.
struct Groups<'a> {
    broker: &'a Broker,
    client: &'a Client,
    topic: String,
    all: BTreeSet<String>,
}

impl Groups<'_> {
    fn group(&self, strategy: Strategy) -> String {
        format!("handover-{}-{}", self.client.name, strategy.name())
    }

    fn fill(&self, offsets: std::ops::Range<i64>) -> Result<()> {
        fill(self.broker, &self.topic, PARTITIONS, offsets)
    }

    fn join(&self, session: &mut Session, strategy: Strategy, instance: &str) -> Result<()> {
        let instance = (strategy == Strategy::Static).then_some(instance);
        let group = self.group(strategy);
        session.join(
            strategy.name(),
            &group,
            &self.topic,
            strategy.protocol(),
            instance,
        )
    }

    fn commit(&self, session: &mut Session) -> Result<()> {
        let names: Vec<_> = self.client.strategies.iter().map(|s| s.name()).collect();
        session.commit(&names)
    }

    /// Waits until each member of `session` has read this many records.
    fn read(&self, session: &mut Session, count: usize) -> Result<()> {
        until(format_args!("{count} records"), &mut [session], |sessions| {
            for strategy in self.client.strategies {
                if sessions[0].member(strategy.name())?.read.len() < count {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

fn handover(broker: &Broker, client: &Client) -> Result<()> {
    let topic = format!("handover-{}", client.name);
    let groups = Groups {
        broker,
        client,
        all: partitions(&topic, PARTITIONS),
        topic,
    };
    create_topic(broker, &groups.topic, PARTITIONS, &[])?;
    groups.fill(0..10)?;
    let start = || (client.start)(&broker.bootstrap());
    let (mut first, mut second) = (start()?, start()?);
    for &strategy in client.strategies {
        groups.join(&mut first, strategy, "one")?;
    }
    groups.read(&mut first, 40)?;
    groups.commit(&mut first)?;
    for &strategy in client.strategies {
        groups.join(&mut second, strategy, "two")?;
    }
    share(&groups, &mut first, &mut second)?;
    groups.fill(10..15)?;
    groups.read(&mut first, 50)?;
    groups.read(&mut second, 10)?;
    groups.commit(&mut first)?;
    groups.commit(&mut second)?;

    // What the second one reads from here on is not committed.
    groups.fill(15..20)?;
    groups.read(&mut first, 60)?;
    groups.read(&mut second, 20)?;
    groups.commit(&mut first)?;
    second.kill();
    second.take_rest()?;
    take_over(&groups, &mut first, &second)?;
    for &strategy in client.strategies {
        judge_reads(&groups, strategy, &first, &second)?;
        judge_description(&groups, strategy, &mut first, &second)?;
    }
    Ok(())
}

/// Waits until both have half of the partitions.
fn share(groups: &Groups<'_>, first: &mut Session, second: &mut Session) -> Result<()> {
    let half = groups.all.len() / 2;
    until("a fair share", &mut [&mut *first, &mut *second], |sessions| {
        for strategy in groups.client.strategies {
            let name = strategy.name();
            let (one, two) = (&sessions[0].member(name)?.owned, &sessions[1].member(name)?.owned);
            if one.len() != half || two.len() != half || !one.is_disjoint(two) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    for &strategy in groups.client.strategies {
        let revoked: BTreeSet<_> = first.member(strategy.name())?.revoked.iter().cloned().collect();
        let expected = if strategy.keeps() {
            &second.member(strategy.name())?.owned
        } else {
            &groups.all
        };
        ensure!(
            &revoked == expected,
            "{}: {revoked:?} was taken from the first member instead of {expected:?}",
            strategy.name()
        );
    }
    Ok(())
}

/// Who takes over in the first session: the member there, or one that comes back under the name of a killed static one.
fn heir(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Static => "come-back",
        other => other.name(),
    }
}

/// Waits until the heirs have what the killed one had, and have read what it had not committed.
fn take_over(groups: &Groups<'_>, first: &mut Session, second: &Session) -> Result<()> {
    let mut before = BTreeMap::new();
    for &strategy in groups.client.strategies {
        let member = first.member(strategy.name())?;
        before.insert(
            strategy.name(),
            (member.revoked.len(), member.owned.clone(), member.read.len()),
        );
        if strategy == Strategy::Static {
            let (group, protocol) = (groups.group(strategy), strategy.protocol());
            first.join(heir(strategy), &group, &groups.topic, protocol, Some("two"))?;
        }
    }
    let lost = 2 * 5;
    until("the others to take over", &mut [&mut *first], |sessions| {
        for &strategy in groups.client.strategies {
            let name = strategy.name();
            let heir = sessions[0].member(heir(strategy))?;
            let (owned, read) = match strategy {
                Strategy::Static => (&second.member(name)?.owned, lost),
                _ => (&groups.all, before[name].2 + lost),
            };
            if &heir.owned != owned || heir.read.len() < read {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    for &strategy in groups.client.strategies {
        let name = strategy.name();
        let (revoked, owned, _) = &before[name];
        let member = first.member(name)?;
        if strategy.keeps() || strategy == Strategy::Static {
            ensure!(
                member.revoked.len() == *revoked,
                "{name}: {:?} was taken from a member that stayed",
                &member.revoked[*revoked..]
            );
        }
        if strategy == Strategy::Static {
            ensure!(
                &member.owned == owned,
                "{name}: a rebalance for a member that came back"
            );
        }
    }
    Ok(())
}

/// Everything was read once, and twice only what the killed member had read after its last commit.
fn judge_reads(groups: &Groups<'_>, strategy: Strategy, first: &Session, second: &Session) -> Result<()> {
    let name = strategy.name();
    let lost = &second.member(name)?.owned;
    let mut members = vec![first.member(name)?, second.member(name)?];
    if heir(strategy) != name {
        members.push(first.member(heir(strategy))?);
    }
    let times = times_read(members);
    for partition in &groups.all {
        for offset in 0..20 {
            let again = lost.contains(partition) && offset >= 15;
            let expected = if again { 2 } else { 1 };
            let found = times.get(&(partition.clone(), offset)).copied().unwrap_or(0);
            ensure!(
                found == expected,
                "{name}: {partition} {offset} was read {found} times instead of {expected}"
            );
        }
    }
    Ok(())
}

/// What an admin client says of the group in the end.
fn judge_description(
    groups: &Groups<'_>,
    strategy: Strategy,
    asked: &mut Session,
    lost: &Session,
) -> Result<()> {
    let (group, name) = (groups.group(strategy), strategy.name());
    let described = asked.answer(&format!("describe {group}"))?;
    let members = described["members"].as_array().map_or(0, Vec::len);
    let expected = if strategy == Strategy::Static { 2 } else { 1 };
    ensure!(
        described["state"] == "Stable" && members == expected,
        "{name}: described as {described}"
    );
    let committed = asked.answer(&format!("committed {group}"))?;
    let mut expected = all_at(&groups.all, 20);
    expected.extend(all_at(&lost.member(name)?.owned, 15));
    ensure!(committed == json!(expected), "{name}: committed {committed}");
    Ok(())
}
