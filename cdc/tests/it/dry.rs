//! What would be sent is shown, and nothing else happens.

use std::collections::BTreeMap;

use serde_json::Value;
use takhin_pika::Position;
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::replayed::Replayed;
use takhin_pika_testing::topics::Read;

use crate::broker::{Broker, until};
use crate::cdc::Cdc;
use crate::events::{read_until, with_client};

/// The lines that a dry run prints.
#[track_caller]
fn lines(cdc: &Cdc, words: &[&str]) -> (Vec<Value>, String) {
    let output = cdc.run(&[&["--dry-run"], words].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), said)
}

/// Every line that was shown is among the records.
#[track_caller]
fn check_is_sent(shown: &[Value], sent: &[Read]) {
    for line in shown {
        let same = |read: &&Read| read.json["event_id"] == line["value"]["event_id"];
        let read = sent.iter().find(same).unwrap();
        assert_eq!(
            (&read.json, &read.key[..]),
            (&line["value"], line["key"].as_str().unwrap().as_bytes())
        );
    }
}

#[test]
fn shows_what_would_be_sent_and_sends_nothing() {
    let broker = Broker::shared();
    let master = Master::start(Settings::default()).unwrap();
    let begin = Position::default();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("filters.exclude_keys=[\"secret*\"]");
    cdc.go_on_from(
        &Settings::default().replication_id,
        &BTreeMap::from([("db0".to_owned(), begin)]),
    );
    let saved = cdc.positions();
    for number in 0..20 {
        let (key, secret) = (format!("key{number}"), format!("secret{number}"));
        master.execute("db0", &[b"SET", key.as_bytes(), b"value"]);
        master.execute("db0", &[b"SET", secret.as_bytes(), b"value"]);
    }
    let (shown, said) = lines(&cdc, &["--limit", "12"]);
    let summary = "dry run: 12 events would be sent, 11 are left out by filters; nothing was sent, acknowledged or kept";
    assert!(said.lines().any(|line| line == summary), "{said}");
    assert_eq!(shown.len(), 12);
    for (number, line) in shown.iter().enumerate() {
        assert_eq!(line["topic"], cdc.topic("binlog"));
        assert_eq!(line["key"], format!("db0:key{number}"));
        assert_eq!(line["value"]["op"], "set");
    }
    assert!(
        master.acked("db0").is_none_or(|acked| acked == begin),
        "it was acknowledged"
    );
    assert_eq!(cdc.positions(), saved);
    assert!(!cdc.data().join("dry-run").exists());
    let topic = cdc.topic("binlog");
    let found = with_client(broker.kafka, async |client| {
        client.describe_topics(Some(&[&topic])).await
    });
    assert!(found.unwrap().is_empty(), "a topic was made");

    // What is shown is what is sent then, byte for byte but for the order of fields; also beside the process at work.
    cdc.start_and_wait();
    until("all is written", || {
        master.acked("db0") == Some(master.end("db0"))
    });
    let sent = read_until(broker.kafka, &topic, "what was shown", |read| read.len() >= 20);
    check_is_sent(&shown, &sent);
    // Beside the process at work it begins where that one is.
    let (beside, _) = std::thread::scope(|scope| {
        let running = scope.spawn(|| lines(&cdc, &["--limit", "3"]));
        let mut number = 20;
        until("the dry run has ended", || {
            master.execute("db0", &[b"SET", format!("key{number}").as_bytes(), b"value"]);
            number += 1;
            running.is_finished()
        });
        running.join().unwrap()
    });
    assert_eq!(beside.len(), 3);
    until("all is written", || {
        master.acked("db0") == Some(master.end("db0"))
    });
    assert_eq!(
        master.connections(),
        3,
        "the process at work had to connect again"
    );
}

#[test]
fn shows_the_data_set_where_there_is_no_position() {
    let broker = Broker::shared();
    let replayed = Replayed::start("4.0.1").unwrap();
    let mut cdc = Cdc::new(&replayed.master, broker.kafka);
    cdc.set("snapshot.mode=initial");
    let (shown, _) = lines(&cdc, &["--limit", "30"]);
    assert_eq!(shown.len(), 30);
    assert_eq!(shown[0]["value"]["op"], "snapshot_begin");
    assert!(shown.iter().all(|line| line["topic"] == cdc.topic("snapshot")));
    assert!(!cdc.data().join("dry-run").exists());
    assert!(!cdc.data().join("checkpoint.json").exists());
}

#[test]
fn masters_that_take_no_acknowledgements_are_refused() {
    let broker = Broker::shared();
    let master = Master::start(Settings {
        version: "3.0.16".into(),
        ..Settings::default()
    })
    .unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.listed();
    let output = cdc.run(&["--dry-run"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("has version 3.0.16: --dry-run is not for masters before 3.1"),
        "{said}"
    );
    assert!(
        master.legacy(|legacy| legacy.asked.is_empty()),
        "it was asked for its changes"
    );
}
