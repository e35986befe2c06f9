//! Recorded sessions of real masters, sent again: the events are what was executed, and what is acknowledged is what a real
//! slave acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use takhin_pika::Position;
use takhin_pika::binlog::Item;
use takhin_pika::message::{BinlogOffset, BinlogSyncRequest, InnerRequest};
use takhin_pika_testing::fixture::{Fixture, MASTER_PORT};
use takhin_pika_testing::master::{Master, Settings, recorded};
use takhin_pika_testing::recording::Connection;
use takhin_pika_testing::topics::{Read, distinct};
use takhin_pika_testing::words::is_same;

use crate::broker::{Broker, until};
use crate::cdc::Cdc;
use crate::events::read_until;

/// The last replication connection of a session over which the binlog came.
pub(crate) fn connection(version: &str, session: &str) -> Connection {
    let connections = Fixture::of(version).session(session).unwrap();
    let is_stream = |connection: &Connection| {
        connection.server_port == MASTER_PORT + 2000 && !recorded(connection).unwrap().is_empty()
    };
    connections.into_iter().rfind(is_stream).unwrap()
}

pub(crate) fn position(at: &BinlogOffset) -> Position {
    Position::new(at.filenum, at.offset)
}

/// Where each database's stream began first.
fn beginnings(requests: &[InnerRequest]) -> BTreeMap<String, Position> {
    let mut found = BTreeMap::new();
    for sync in requests.iter().filter_map(|request| request.binlog_sync.as_ref()) {
        if sync.first_send {
            found
                .entry(sync.db_name.clone())
                .or_insert_with(|| position(&sync.ack_range_start));
        }
    }
    found
}

/// What was said of the stream of each database, but for signs of life: whether it begins it, and the range.
pub(crate) type Said = BTreeMap<String, Vec<(bool, Position, Position)>>;

pub(crate) fn said(requests: &[InnerRequest]) -> Said {
    let mut found = Said::new();
    let is_sign =
        |sync: &&BinlogSyncRequest| !sync.first_send && position(&sync.ack_range_end) == Position::default();
    for sync in requests
        .iter()
        .filter_map(|request| request.binlog_sync.as_ref())
        .filter(|sync| !is_sign(sync))
    {
        let range = (
            sync.first_send,
            position(&sync.ack_range_start),
            position(&sync.ack_range_end),
        );
        found.entry(sync.db_name.clone()).or_default().push(range);
    }
    found
}

/// Replays a session. Returns the events, the requests recorded and those of the program.
fn replay(version: &str, session: &str) -> (Vec<Read>, Vec<InnerRequest>, Vec<InnerRequest>) {
    let connection = connection(version, session);
    let requests = connection.requests().unwrap();
    let mut entries = recorded(&connection).unwrap();
    // A capture that began after the connection has neither introduction nor beginning.
    let introduced = connection
        .responses()
        .unwrap()
        .into_iter()
        .find_map(|response| response.meta_sync);
    let replication_id = introduced
        .and_then(|meta| meta.replication_id)
        .unwrap_or_else(|| "r".repeat(50));
    let master = Master::start(Settings {
        version: if version == "4.0.1" {
            "4.0.0".into()
        } else {
            version.into()
        },
        databases: 2,
        replication_id: replication_id.clone(),
        ..Settings::default()
    })
    .unwrap();
    let mut beginnings = beginnings(&requests);
    for (db, entries) in &entries {
        let first = Item::decode(entries[0].bytes.clone()).unwrap();
        let begin = beginnings.entry(db.clone()).or_insert(first.start);
        *begin = first.start.min(*begin);
    }
    let mut ends = BTreeMap::new();
    for (db, begin) in &beginnings {
        master.begin_at(db, *begin);
        master.load(db, entries.remove(db).unwrap_or_default());
        ends.insert(db.clone(), master.end(db));
    }

    let broker = Broker::shared();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.go_on_from(&replication_id, &beginnings);
    cdc.start_and_wait();
    for (db, end) in &ends {
        until("everything is acknowledged", || {
            *end == beginnings[db] || master.acked(db) == Some(*end)
        });
    }
    // Written before it was acknowledged: what is there now is all.
    let count = |kind: &str| {
        let of = |db: &String| cdc.metric(&format!("takhin_cdc_events_total{{db=\"{db}\",kind=\"{kind}\"}}"));
        ends.keys().map(of).sum::<f64>()
    };
    let lines = lines(version, session);
    until("all events are counted", || count("binlog") >= lines.len() as f64);
    let is_whole = |read: &[Read]| distinct(read) >= lines.len();
    let read = read_until(broker.kafka, &cdc.topic("binlog"), "the events", is_whole);
    let ours = master.requests();
    assert!(cdc.stop().success());
    assert!(master.slaves().is_empty(), "the master was not told");
    (read, requests, ours)
}

/// What was executed: the decoded binlog, but for what was sent more than once.
fn lines(version: &str, session: &str) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let mut lines = Fixture::of(version)
        .lines(&format!("binlog-{session}.jsonl"))
        .unwrap();
    lines.retain(|line| seen.insert((line["db"].to_string(), line["logic_id"].as_u64())));
    lines
}

pub(crate) fn check_events(version: &str, session: &str, read: &[Read]) {
    let mut found = BTreeMap::new();
    let mut last: BTreeMap<(String, i32), u64> = BTreeMap::new();
    for event in read {
        let number = event.json["binlog"]["logic_id"].as_u64().unwrap();
        let db = event.text("db").to_owned();
        // In each partition in the order of the binlog.
        let before = last.insert((db.clone(), event.partition), number);
        assert!(
            before.is_none_or(|before| before < number),
            "{version} {session}: {event:?}"
        );
        let before = found.insert((db, number), event);
        // What concerns all keys is in every partition, once.
        let is_everywhere = event.json["key"].is_null() && event.text("op") == "flushdb";
        assert!(
            before.is_none() || is_everywhere,
            "{version} {session}: twice: {event:?}"
        );
    }
    let lines = lines(version, session);
    assert_eq!(found.len(), lines.len(), "{version} {session}");
    for line in &lines {
        let key = (
            line["db"].as_str().unwrap().to_owned(),
            line["logic_id"].as_u64().unwrap(),
        );
        let event = found
            .remove(&key)
            .unwrap_or_else(|| panic!("{version} {session}: missing: {line}"));
        let argv = line["argv"].as_array().unwrap();
        let args = event.args();
        assert_eq!(event.text("op"), argv[0].as_str().unwrap().to_ascii_lowercase());
        assert_eq!(args.len() + 1, argv.len(), "{line}");
        assert!(
            args.iter().zip(&argv[1..]).all(|(arg, told)| is_same(arg, told)),
            "{line} {event:?}"
        );
        let Some(key) = event.key_bytes() else {
            assert_eq!(
                (argv[0].as_str(), &event.key[..]),
                (Some("flushdb"), event.text("db").as_bytes())
            );
            continue;
        };
        assert!(is_same(&key, &argv[1]), "{line}");
        let binlog = &event.json["binlog"];
        assert_eq!(
            (&binlog["filenum"], &binlog["offset"]),
            (&line["filenum"], &line["offset"])
        );
        assert_eq!(binlog["end_filenum"], line["end_offset"][0]);
        assert_eq!(binlog["end_offset"], line["end_offset"][1]);
        assert_eq!(
            (&binlog["term_id"], binlog["server_id"].as_u64()),
            (&line["term"], Some(0))
        );
        assert_eq!(
            event.json["ts_ms"].as_u64().unwrap(),
            line["exec_time"].as_u64().unwrap() * 1000
        );
        assert_eq!(event.key, [event.text("db").as_bytes(), b":", &key].concat());
    }
}

#[test]
fn a_stream_after_a_full_sync() {
    for version in ["3.5.5", "4.0.1"] {
        let (read, theirs, ours) = replay(version, "01");
        check_events(version, "01", &read);
        assert_eq!(said(&ours), said(&theirs), "{version}");
    }
}

#[test]
fn a_slave_that_comes_back() {
    for version in ["3.5.5", "4.0.1"] {
        let (read, theirs, ours) = replay(version, "02");
        check_events(version, "02", &read);
        assert_eq!(said(&ours), said(&theirs), "{version}");
        // Whole requests: what it asks for is what a real slave asked for.
        let tried = |requests: &[InnerRequest]| {
            let mut tried: Vec<_> = requests
                .iter()
                .filter_map(|request| request.try_sync.clone())
                .collect();
            tried.sort_by_key(|tried| tried.slot.db_name.clone());
            tried
                .into_iter()
                .map(|tried| (tried.slot, tried.binlog_offset))
                .collect::<Vec<_>>()
        };
        assert_eq!(tried(&ours), tried(&theirs), "{version}");
        // Acknowledged by the master's own words: the number of the first item too. That of the last one real slaves take
        // from their own binlog.
        let firsts = |requests: &[InnerRequest]| {
            let syncs = requests.iter().filter_map(|request| request.binlog_sync.clone());
            let acks = syncs.filter(|sync| sync.ack_range_end.offset > 0);
            acks.map(|sync| (sync.db_name, sync.ack_range_start, sync.first_send))
                .collect::<std::collections::HashSet<_>>()
        };
        assert_eq!(firsts(&ours), firsts(&theirs), "{version}");
    }
}

/// Written as milliseconds by 4.0.1, which its own slaves cannot apply.
#[test]
fn an_expiry_in_milliseconds() {
    for version in ["3.5.5", "4.0.1"] {
        let (read, theirs, ours) = replay(version, "04");
        check_events(version, "04", &read);
        if version == "3.5.5" {
            // The slave of 4.0.1 cannot apply it, and asks for it again and again. The capture has no beginning.
            let mut ours = said(&ours);
            ours.values_mut()
                .for_each(|of| of.retain(|(is_first, ..)| !is_first));
            ours.retain(|_, of| !of.is_empty());
            assert_eq!(ours, said(&theirs), "{version}");
        }
        let expiring = read.iter().find(|event| event.text("op") == "pksetexat").unwrap();
        let at = expiring.json["expire_at_ms"].as_i64().unwrap();
        let executed = expiring.json["ts_ms"].as_i64().unwrap();
        assert!(
            (executed..executed + 100_000_000_000).contains(&at),
            "{version}: {expiring:?}"
        );
    }
}
