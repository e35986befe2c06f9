//! Consumer groups with stock clients: reading, committing, taking over, and what their admin clients say of it.

mod admin;
mod handover;
mod instances;
mod kcat;
mod migration;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::Range;

use anyhow::{Context as _, Result, bail, ensure};
use takhin_e2e::session::{LIMIT, Member, Session};
use takhin_e2e::{Broker, records, wait, wire};

use crate::suite::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add("groups::each_client_does_its_full_round", round::rounds);
    suites.add(
        "groups::others_take_over_from_a_killed_member",
        handover::handovers,
    );
    suites.add(
        "groups::instances_of_the_consumer_protocol_come_back",
        instances::instances,
    );
    suites.add(
        "groups::groups_change_their_protocol_member_by_member",
        migration::migrations,
    );
}

/// A stock client as a session, and how its consumers can share the partitions.
struct Client {
    name: &'static str,
    start: fn(&str) -> Result<Session>,
    strategies: &'static [Strategy],
}

/// How the members of a group share partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// Everybody gives up everything at each rebalance.
    Range,
    RoundRobin,
    /// Members keep what does not move (KIP-429).
    Cooperative,
    /// The broker decides who gets what, and members keep what does not move (KIP-848).
    Consumer,
    /// Members with names that outlive their processes (KIP-345).
    Static,
}

impl Strategy {
    fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::Cooperative => "cooperative",
            Self::Consumer => "consumer",
            Self::Static => "static",
        }
    }

    /// What a session calls its protocol.
    fn protocol(self) -> &'static str {
        match self {
            Self::Static => "range",
            other => other.name(),
        }
    }

    /// Whether members keep partitions over a rebalance.
    fn keeps(self) -> bool {
        matches!(self, Self::Cooperative | Self::Consumer)
    }
}

const CLIENTS: [Client; 4] = [
    Client {
        name: "confluent-kafka",
        start: Session::confluent,
        strategies: &[
            Strategy::Range,
            Strategy::Cooperative,
            Strategy::Consumer,
            Strategy::Static,
        ],
    },
    Client {
        name: "kafka-python",
        start: Session::kafka_python,
        strategies: &[Strategy::Range, Strategy::Cooperative, Strategy::Static],
    },
    Client {
        name: "kafkajs",
        start: Session::kafkajs,
        strategies: &[Strategy::RoundRobin],
    },
    Client {
        name: "java",
        start: Session::java,
        strategies: &[
            Strategy::Range,
            Strategy::Cooperative,
            Strategy::Consumer,
            Strategy::Static,
        ],
    },
];

/// Does `work` with every client at once: most of the time they wait for timeouts of sessions.
fn with_each_client(work: impl Fn(&Client) -> Result<()> + Sync) -> Result<()> {
    with_clients(|_| true, work)
}

/// Like [`with_each_client`], with those that have the consumer protocol (KIP-848).
fn with_consumer_protocol(work: impl Fn(&Client) -> Result<()> + Sync) -> Result<()> {
    with_clients(|client| client.strategies.contains(&Strategy::Consumer), work)
}

fn with_clients(which: fn(&Client) -> bool, work: impl Fn(&Client) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads = CLIENTS
            .iter()
            .filter(|client| which(client))
            .map(|client| (client.name, scope.spawn(|| work(client))));
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .map(|(name, thread)| (name, thread.join()))
            .collect()
    });
    let mut wrong = Vec::new();
    for (name, result) in results {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => wrong.push(format!("{name}: {error:#}")),
            Err(_) => bail!("{name}: a panic"),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The names of the partitions of a topic, as sessions show them.
fn partitions(topic: &str, count: i32) -> BTreeSet<String> {
    (0..count)
        .map(|partition| format!("{topic}-{partition}"))
        .collect()
}

/// The same offset for each partition.
fn all_at(partitions: &BTreeSet<String>, offset: i64) -> BTreeMap<String, i64> {
    partitions
        .iter()
        .map(|partition| (partition.clone(), offset))
        .collect()
}

/// Adds one record for each offset in `offsets` to each partition.
pub(crate) fn fill(broker: &Broker, topic: &str, partitions: i32, offsets: Range<i64>) -> Result<()> {
    const NOW: i64 = 1_793_491_200_000;
    let mut connection = wire::Connection::open(broker.address())?;
    let values: Vec<_> = offsets.clone().map(|offset| offset.to_string()).collect();
    let values: Vec<_> = values.iter().map(String::as_bytes).collect();
    let batch = records::batch(&values, NOW)?;
    for partition in 0..partitions {
        let base = wait::value(format_args!("a leader of {topic}-{partition}"), LIMIT, || {
            match connection.produce(topic, partition, &batch)? {
                (0, base) => Ok(Some(base)),
                // UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER
                (3 | 5 | 6, _) => Ok(None),
                (error, _) => bail!("produce to {topic}-{partition}: error {error}"),
            }
        })?;
        ensure!(base == offsets.start, "{topic}-{partition}: records at {base}");
    }
    Ok(())
}

/// Waits until `holds` of the sessions; says what the members had when it never does.
pub(crate) fn until(
    what: impl Display,
    sessions: &mut [&mut Session],
    mut holds: impl FnMut(&[&mut Session]) -> Result<bool>,
) -> Result<()> {
    let waited = wait::until(what, LIMIT, || {
        for session in &mut *sessions {
            session.pump()?;
        }
        holds(sessions)
    });
    waited.with_context(|| {
        let shown = sessions
            .iter()
            .map(|s| format!("{:?}\n{}", s.members(), s.complaints()));
        shown.collect::<Vec<_>>().join("\n")
    })
}

/// How often each record was read by these members.
fn times_read<'a>(members: impl IntoIterator<Item = &'a Member>) -> BTreeMap<(String, i64), usize> {
    let mut times = BTreeMap::new();
    for record in members.into_iter().flat_map(|member| &member.read) {
        *times.entry(record.clone()).or_default() += 1;
    }
    times
}
