//! A producer and a consumer of every stock client live through what happens to a cluster: a leader that dies, a
//! rolling restart, replicas that move. No client is told of an error, and all that was acknowledged is read.

mod by_kcat;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kcat::{self, placements};
use takhin_e2e::session::Session;
use takhin_e2e::wire::Connection;
use takhin_e2e::{Cluster, wait};

use crate::suite::{Context, Suites};
use by_kcat::Kcat;

const TOPIC: &str = "survived";
const PARTITIONS: i32 = 3;
/// For the least patient and the most patient client on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("survival::every_stock_client_lives_through_it", lives);
}

/// A client, and whether its producer may write a record twice.
type Client = (&'static str, Session, bool);

fn lives(_: &Context) -> Result<()> {
    let mut cluster = Cluster::start(4)?;
    let mut connection = Connection::open(cluster.brokers[0].address())?;
    let error = connection.create_replicated_topic(TOPIC, PARTITIONS, 3, &[])?;
    ensure!(error == 0, "CreateTopics: error {error}");
    let mut clients = start(&cluster.bootstrap())?;
    let mut kcat = Kcat::start(&cluster.bootstrap())?;
    let mut goes_on = || kcat.goes_on().and_then(|()| goes_on(&mut clients));
    goes_on().context("at the start")?;

    let leader = placements(&cluster.bootstrap(), TOPIC)?[0].leader;
    let victim = usize::try_from(leader - 1)?;
    cluster.brokers[victim].kill();
    goes_on().context("without a broker that was killed")?;
    cluster.start_again(victim)?;
    for broker in 0..cluster.brokers.len() {
        cluster.brokers[broker].stop()?;
        goes_on().with_context(|| format!("without broker {}", broker + 1))?;
        cluster.start_again(broker)?;
    }
    moves(&cluster)?;
    goes_on().context("after the replicas were moved")?;

    kcat.judge()?;
    for (name, session, _) in &mut clients {
        session.leave(&format!("{name}-writer"))?;
    }
    judge(&cluster.bootstrap(), &mut clients)
}

fn start(bootstrap: &str) -> Result<Vec<Client>> {
    let mut clients = vec![
        ("confluent", Session::confluent(bootstrap)?, false),
        ("kafka-python", Session::kafka_python(bootstrap)?, false),
        ("kafkajs", Session::kafkajs(bootstrap)?, true),
        ("java", Session::java(bootstrap)?, false),
    ];
    for (name, session, _) in &mut clients {
        session.write(&format!("{name}-writer"), TOPIC)?;
        session.join(
            &format!("{name}-reader"),
            &format!("{name}-group"),
            TOPIC,
            "range",
            None,
        )?;
    }
    Ok(clients)
}

/// Waits until each producer has more records acknowledged, and each consumer has read all that the producers of all
/// clients had acknowledged by then.
fn goes_on(clients: &mut [Client]) -> Result<()> {
    let mut goals = Vec::new();
    for (name, session, _) in clients.iter_mut() {
        session.pump()?;
        goals.push(session.member(&format!("{name}-writer"))?.wrote.len() + 50);
    }
    for ((name, session, _), goal) in clients.iter_mut().zip(goals) {
        wait::until(format_args!("records of {name}"), LIMIT, || {
            session.pump()?;
            Ok(session.member(&format!("{name}-writer"))?.wrote.len() >= goal)
        })?;
    }
    all_is_read(clients)
}

/// Waits until each consumer has read what is acknowledged now.
fn all_is_read(clients: &mut [Client]) -> Result<()> {
    let mut places = BTreeSet::new();
    for (name, session, _) in clients.iter() {
        let wrote = &session.member(&format!("{name}-writer"))?.wrote;
        places.extend(wrote.iter().map(|(_, place)| place.clone()));
    }
    for (name, session, _) in clients {
        wait::until(
            format_args!("{name} to read all that is acknowledged"),
            LIMIT,
            || {
                session.pump()?;
                let read = &session.member(&format!("{name}-reader"))?.read;
                if read.len() < places.len() {
                    return Ok(false);
                }
                let read: BTreeSet<_> = read.iter().collect();
                Ok(places.iter().all(|place| read.contains(place)))
            },
        )?;
    }
    Ok(())
}

/// Every partition gets the broker that it was not on, instead of its leader.
fn moves(cluster: &Cluster) -> Result<()> {
    let mut wanted = Vec::new();
    let mut connection = Connection::open(cluster.brokers[0].address())?;
    for (partition, placement) in (0..).zip(placements(&cluster.bootstrap(), TOPIC)?) {
        let missing = (1..=4).find(|id| !placement.replicas.contains(id));
        let missing = missing.context("a broker without the partition")?;
        let kept = placement.replicas.iter().filter(|id| **id != placement.leader);
        let replicas: Vec<i32> = kept.copied().chain([missing]).collect();
        let error = connection.reassign(TOPIC, partition, &replicas)?;
        ensure!(error == 0, "AlterPartitionReassignments: error {error}");
        wanted.push(replicas);
    }
    wait::until("the replicas to be moved", LIMIT, || {
        let found = placements(&cluster.bootstrap(), TOPIC)?;
        let mut both = found.iter().zip(&wanted);
        Ok(both.all(|(found, wanted)| found.replicas == *wanted && found.in_sync == wanted.len()))
    })
}

/// Another client reads all back: what was acknowledged is where it was acknowledged, once, in order.
fn judge(bootstrap: &str, clients: &mut [Client]) -> Result<()> {
    all_is_read(clients)?;
    let mut found: BTreeMap<(String, i64), String> = BTreeMap::new();
    for record in kcat::consume(bootstrap, TOPIC, None, "beginning")? {
        let value = String::from_utf8(record.value.unwrap_or_default())?;
        found.insert((format!("{TOPIC}-{}", record.partition), record.offset), value);
    }
    for (name, session, twice) in clients {
        let writer = format!("{name}-writer");
        let wrote = &session.member(&writer)?.wrote;
        for (number, place) in wrote {
            let value = found
                .get(place)
                .with_context(|| format!("{writer} {number} at {place:?} is lost"))?;
            ensure!(
                *value == format!("{writer} {number}"),
                "{place:?} holds {value}, not {writer} {number}"
            );
        }
        if *twice {
            continue;
        }
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for ((partition, offset), value) in &found {
            let Some(number) = value.strip_prefix(&writer) else {
                continue;
            };
            let number = number.trim().parse()?;
            let before = last.insert(partition, number);
            ensure!(
                before.is_none_or(|before| before < number),
                "{partition}, offset {offset}: {value} comes after number {before:?}"
            );
        }
        let total: BTreeSet<_> = found
            .values()
            .filter(|value| value.starts_with(&writer))
            .collect();
        let count = found.values().filter(|value| value.starts_with(&writer)).count();
        ensure!(
            total.len() == count,
            "{writer}: {count} records, {} different ones",
            total.len()
        );
        eprintln!("        {writer}: {} records acknowledged", wrote.len());
    }
    Ok(())
}
