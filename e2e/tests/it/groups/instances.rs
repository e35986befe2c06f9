//! Static members of the consumer protocol (KIP-345 with KIP-848): a restart costs the others nothing, and nobody takes
//! an instance id from one that has it.

use anyhow::{Result, ensure};
use takhin_e2e::Broker;
use takhin_e2e::session::{Member, Session};

use super::{Client, fill, partitions, times_read, until, with_consumer_protocol};
use crate::suite::{Context, create_topic};

const PARTITIONS: i32 = 4;
const PROTOCOL: &str = "consumer";

const FENCED_INSTANCE_ID: i16 = 82;
const UNRELEASED_INSTANCE_ID: i16 = 111;

pub(super) fn instances(context: &Context) -> Result<()> {
    context.with_shared(|broker| with_consumer_protocol(|client| story(broker, client)))
}

/// A group with a member in each of two sessions, `home` and `away`, so that one can be stopped without the other.
struct Group<'a> {
    broker: &'a Broker,
    /// Of the topic and of the group.
    name: String,
    home: Session,
    away: Session,
}

fn story(broker: &Broker, client: &Client) -> Result<()> {
    let start = || (client.start)(&broker.bootstrap());
    let mut group = Group {
        broker,
        name: format!("instances-{}", client.name),
        home: start()?,
        away: start()?,
    };
    create_topic(broker, &group.name, PARTITIONS, &[])?;
    group.fill(0..10)?;
    join(&mut group.home, &group.name, "stays", "one")?;
    group.until_read(10, &["stays"], &[])?;
    group.home.commit(&["stays"])?;
    join(&mut group.away, &group.name, "goes", "two")?;
    group.until_shared("goes", 2)?;
    // What moved when the second one came; from here on nothing does.
    let moved = group.home.member("stays")?.revoked.len();
    group.twin_is_refused()?;
    group.restart()?;
    let revoked = &group.home.member("stays")?.revoked[moved..];
    ensure!(
        revoked.is_empty(),
        "{revoked:?} was taken from a member that stayed"
    );
    // librdkafka names its instance only when it joins: it is unknown by itself, joins again, and is refused.
    let fenced = match client.name {
        "confluent-kafka" => UNRELEASED_INSTANCE_ID,
        _ => FENCED_INSTANCE_ID,
    };
    group.late_one_is_put_out(fenced)
}

fn join(session: &mut Session, group: &str, name: &str, instance: &str) -> Result<()> {
    session.join(name, group, group, PROTOCOL, Some(instance))
}

impl Group<'_> {
    fn fill(&self, offsets: std::ops::Range<i64>) -> Result<()> {
        fill(self.broker, &self.name, PARTITIONS, offsets)
    }

    /// Waits until `stays` at home has the other half of what `other` has away: `count` partitions.
    fn until_shared(&mut self, other: &str, count: usize) -> Result<()> {
        let all = partitions(&self.name, PARTITIONS);
        let what = format!("{count} partitions of {other}");
        until(what, &mut [&mut self.home, &mut self.away], |sessions| {
            let (stays, other) = (
                &sessions[0].member("stays")?.owned,
                &sessions[1].member(other)?.owned,
            );
            let both = stays.union(other).cloned();
            Ok(other.len() == count && stays.is_disjoint(other) && both.eq(all.iter().cloned()))
        })
    }

    /// Waits until each record below `end` was read by one of these members.
    fn until_read(&mut self, end: i64, home: &[&str], away: &[&str]) -> Result<()> {
        let sessions = &mut [&mut self.home, &mut self.away];
        until(format_args!("all records below {end}"), sessions, |sessions| {
            let mut members: Vec<&Member> = Vec::new();
            for (session, names) in sessions.iter().zip([home, away]) {
                for name in names {
                    members.push(session.member(name)?);
                }
            }
            Ok(i64::try_from(times_read(members).len())? == i64::from(PARTITIONS) * end)
        })
    }

    /// Another one with the instance id of a member that is there.
    fn twin_is_refused(&mut self) -> Result<()> {
        join(&mut self.home, &self.name, "twin", "two")?;
        let code = self.home.failure("twin")?;
        ensure!(code == UNRELEASED_INSTANCE_ID, "refused with error code {code}");
        self.fill(10..15)?;
        self.until_read(15, &["stays"], &["goes"])?;
        self.away.commit(&["goes"])?;
        let twin = self.home.member("twin")?;
        ensure!(
            twin.owned.is_empty() && twin.read.is_empty(),
            "the twin: {twin:?}"
        );
        Ok(())
    }

    /// A member that ends in order and comes back within its session finds what it had.
    fn restart(&mut self) -> Result<()> {
        let stays = self.home.member("stays")?.owned.clone();
        let had = self.away.member("goes")?.owned.clone();
        self.away.leave("goes")?;
        self.fill(15..20)?;
        join(&mut self.away, &self.name, "back", "two")?;
        self.until_read(20, &["stays"], &["goes", "back"])?;
        let (now, back) = (&self.home.member("stays")?.owned, self.away.member("back")?);
        ensure!(
            back.owned == had && *now == stays,
            "after a restart: {now:?} and {:?} instead of {stays:?} and {had:?}",
            back.owned
        );
        let members = [self.home.member("stays")?, self.away.member("goes")?, back];
        let again: Vec<_> = times_read(members)
            .into_iter()
            .filter(|(_, times)| *times != 1)
            .collect();
        ensure!(again.is_empty(), "read again after a restart: {again:?}");
        Ok(())
    }

    /// A member that was silent for longer than its session, while another took its instance id.
    fn late_one_is_put_out(&mut self, expected: i16) -> Result<()> {
        self.away.freeze()?;
        let all = partitions(&self.name, PARTITIONS);
        until("the end of a session", &mut [&mut self.home], |sessions| {
            Ok(sessions[0].member("stays")?.owned == all)
        })?;
        join(&mut self.home, &self.name, "heir", "two")?;
        until("the heir's partitions", &mut [&mut self.home], |sessions| {
            let (stays, heir) = (sessions[0].member("stays")?, sessions[0].member("heir")?);
            Ok(heir.owned.len() == 2 && stays.owned.len() == 2)
        })?;
        self.away.thaw()?;
        let code = self.away.failure("back")?;
        ensure!(code == expected, "put out with error code {code}");
        self.fill(20..25)?;
        self.until_read(25, &["stays", "heir"], &["goes", "back"])
    }
}
