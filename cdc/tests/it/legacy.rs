//! Masters before 3.1: recorded sessions sent again, and what goes wrong with a master that takes no acknowledgements.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use takhin_pika::Position;
use takhin_pika::legacy::{Arrived, Reader};
use takhin_pika_testing::fixture::{Fixture, MASTER_PORT, SLAVE_PORT};
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::numbers::Numbers;
use takhin_pika_testing::topics::{Read, distinct};
use takhin_pika_testing::words::is_same;

use crate::broker::{Broker, until};
use crate::cdc::Cdc;
use crate::events::{check, read_until};

const VERSIONS: [&str; 2] = ["2.3.6", "3.0.16"];

fn master(version: &str) -> Master {
    Master::start(Settings {
        version: version.into(),
        ..Settings::default()
    })
    .unwrap()
}

/// What the real slave said and the real master sent, last in a session.
pub(crate) struct Recorded {
    pub(crate) asked: Bytes,
    life: Bytes,
    pub(crate) stream: Bytes,
    number: i64,
    /// Where the first record of the stream begins, as it says.
    pub(crate) begin: Option<Position>,
}

pub(crate) fn recorded(version: &str, session: &str) -> Recorded {
    let connections = Fixture::of(version).session(session).unwrap();
    let last = |port: u16, has: &[u8]| {
        let is_it = |bytes: &Bytes| bytes.windows(has.len()).any(|window| window == has);
        let of_port = connections
            .iter()
            .filter(|connection| connection.server_port == port);
        of_port
            .map(|connection| connection.to_server.clone())
            .rfind(is_it)
            .unwrap()
    };
    let stream = last(SLAVE_PORT + 1000, b"auth");
    let mut reader = Reader::default();
    reader.buffer.extend_from_slice(&stream);
    let (mut number, mut begin) = (0, None);
    while let Some(arrived) = reader.next(1 << 30).unwrap() {
        match arrived {
            Arrived::Auth(of) => number = of,
            Arrived::Item { item, .. } => begin = begin.or(Some(item.start)),
        }
    }
    Recorded {
        asked: last(MASTER_PORT, b"trysync"),
        life: last(MASTER_PORT + 2000, b"spci"),
        stream,
        number,
        begin,
    }
}

/// The recorded `trysync` as a slave with another port says it; what it asked for if that is given.
pub(crate) fn as_we_say(asked: &Bytes, port: u16, position: Option<Position>) -> Vec<u8> {
    let mut buffer = bytes::BytesMut::from(&asked[..]);
    let mut out = Vec::new();
    while let Some((mut command, _)) = takhin_pika::resp::next_command(&mut buffer, 1 << 20).unwrap() {
        if &command[0][..] == b"trysync" {
            assert_eq!(command[2], SLAVE_PORT.to_string());
            command[2] = port.to_string().into();
            if let Some(position) = position {
                command[3] = position.filenum.to_string().into();
                command[4] = position.offset.to_string().into();
            }
        }
        takhin_pika::resp::put_command(&mut out, &command);
    }
    out
}

/// The decoded binlog of a session.
fn items(version: &str, session: &str) -> Vec<Value> {
    let name = format!("binlog-{session}.jsonl");
    let mut lines = Fixture::of(version).lines(&name).unwrap();
    lines.retain(|line| line["filenum"].is_u64());
    lines
}

/// The events of a recorded binlog, by place.
fn check_events(version: &str, session: &str, read: &[Read]) {
    let mut found: BTreeMap<(u64, u64, u64), &Read> = BTreeMap::new();
    let mut last: BTreeMap<i32, (u64, u64, u64)> = BTreeMap::new();
    for event in read {
        let number = |field: &str| event.json["binlog"][field].as_u64().unwrap();
        let place = (number("filenum"), number("offset"), number("sub"));
        let before = last.insert(event.partition, place);
        assert!(before.is_none_or(|before| before < place), "{version}: {event:?}");
        let is_everywhere = event.json["key"].is_null();
        assert!(found.insert(place, event).is_none() || is_everywhere, "{event:?}");
    }
    let mut places: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for line in items(version, session) {
        let at = (
            line["filenum"].as_u64().unwrap(),
            line["offset"].as_u64().unwrap(),
        );
        let argv = line["argv"].as_array().unwrap();
        let name = argv[0].as_str().unwrap().to_ascii_lowercase();
        // 3.0 keeps `mset` whole, and `del` of several keys: an event for each.
        let split: Vec<Vec<&Value>> = match name.as_str() {
            "mset" => argv[1..].chunks(2).map(|pair| pair.iter().collect()).collect(),
            "del" => argv[1..].iter().map(|key| vec![key]).collect(),
            _ => vec![argv[1..].iter().collect()],
        };
        for args in split {
            let sub = places.entry(at).or_default();
            let event = found.remove(&(at.0, at.1, *sub));
            let event = event.unwrap_or_else(|| panic!("{version} {session}: missing: {line}"));
            *sub += 1;
            let op = if name == "mset" { "set" } else { &name };
            assert_eq!(event.text("op"), op, "{line}");
            let words = event.args();
            assert_eq!(words.len(), args.len(), "{line}");
            assert!(
                words.iter().zip(&args).all(|(word, told)| is_same(word, told)),
                "{line} {event:?}"
            );
            assert_eq!(
                event.json["ts_ms"].as_u64(),
                line["exec_time"].as_u64().map(|seconds| seconds * 1000)
            );
            // 2.3 says it as text, 3.0 in the place where later ones have their term.
            let server = line["server_id"].as_str().map(|id| id.parse().unwrap());
            let server = server.or_else(|| line["term"].as_u64());
            let binlog = &event.json["binlog"];
            assert_eq!(
                (binlog["server_id"].as_u64(), binlog["term_id"].as_u64()),
                (server, Some(0))
            );
            assert_eq!(
                (event.text("db"), event.text("event_type")),
                ("db0", "binlog"),
                "{event:?}"
            );
        }
    }
    assert!(found.is_empty(), "{version} {session}: nobody sent {found:?}");
}

/// Replays a session, the slave beginning where `begin` says, and compares events and what is said.
fn replay(version: &str, session: &str, asks: Option<Position>) {
    let recorded = recorded(version, session);
    let begin = recorded.begin.unwrap();
    let master = master(version);
    master.legacy(|legacy| {
        legacy.begin_at(begin);
        legacy.load(&recorded.stream).unwrap();
        legacy.next_number(recorded.number);
    });
    let broker = Broker::shared();
    let mut cdc = Cdc::new(&master, broker.kafka);
    let port = cdc.listed();
    cdc.go_on_from("", &BTreeMap::from([("db0".to_owned(), begin)]));
    cdc.start_and_wait();
    let end = master.legacy(|legacy| legacy.end());
    until("everything is written", || cdc.saved("db0") == Some(end));
    let count = || cdc.metric("takhin_cdc_events_total{db=\"db0\",kind=\"binlog\"}");
    let items = items(version, session).len() as f64;
    until("the events are counted", || count() >= items);
    let count = count();
    let read = read_until(broker.kafka, &cdc.topic("binlog"), "the events", |read| {
        distinct(read) as f64 >= count
    });
    check_events(version, session, &read);
    until("it shows that it is there", || {
        master.legacy(|legacy| legacy.life.first().is_some_and(|life| life.len() >= 50))
    });
    let kept: Value = serde_json::from_slice(&cdc.positions()).unwrap();
    let kept = &kept["databases"]["db0"];
    assert_eq!(
        (kept["server_id"].as_u64(), kept["term_id"].as_u64()),
        (Some(1), Some(0))
    );
    let (asked, life) = master.legacy(|legacy| (legacy.asked.clone(), legacy.life.clone()));
    assert_eq!(
        asked,
        [as_we_say(&recorded.asked, port, asks)],
        "{version} {session}"
    );
    let len = life[0].len().min(recorded.life.len());
    assert!(len >= 36, "{version} {session}: {life:?}");
    assert_eq!(life[0][..len], recorded.life[..len], "{version} {session}");
    assert!(cdc.stop().success());
}

#[test]
fn recorded_sessions() {
    for version in VERSIONS {
        // In 04 the slave had asked before what was recorded.
        for session in ["01", "03", "06"] {
            replay(version, session, None);
        }
    }
}

#[test]
fn a_slave_that_comes_back() {
    replay("3.0.16", "02", None);
    // The slave of 2.3.6 had another end than its master, who sent the next record without a word.
    replay("2.3.6", "02", Some(Position::new(0, 16_165)));
}

/// What the recorded master of 2.3.6 did silently is said.
#[test]
fn a_position_within_a_record_is_noticed() {
    let broker = Broker::shared();
    let recorded = recorded("2.3.6", "02");
    let master = master("2.3.6");
    master.legacy(|legacy| {
        legacy.begin_at(Position::new(0, 16_165));
        legacy.load(&recorded.stream).unwrap();
    });
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.listed();
    let begin = Position::new(0, 16_095);
    cdc.go_on_from("", &BTreeMap::from([("db0".to_owned(), begin)]));
    cdc.start();
    until("it is said", || {
        cdc.says().contains("0:16165 of db0 came where 0:16095 is to")
    });
    assert_eq!(cdc.saved("db0"), Some(begin));
}

#[test]
fn passwords_are_said_as_real_slaves_say_them() {
    let broker = Broker::shared();
    for version in VERSIONS {
        let recorded = recorded(version, "05");
        let begin = match version {
            "2.3.6" => Position::new(21, 503),
            _ => Position::new(20, 12_993),
        };
        let master = master(version);
        master.set(|settings| settings.password = Some("s3cret".into()));
        master.legacy(|legacy| legacy.begin_at(begin));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let mut cdc = Cdc::new(&master, broker.kafka);
        let port = cdc.listed();
        cdc.set(&format!("source.password_file={}", file.path().display()));
        cdc.go_on_from("", &BTreeMap::from([("db0".to_owned(), begin)]));
        cdc.start_and_wait();
        let asked = || master.legacy(|legacy| legacy.asked.clone());
        until("it asks", || !asked().is_empty());
        assert_eq!(asked(), [as_we_say(&recorded.asked, port, None)]);
    }
}

/// Waits until everything was written.
fn wait(cdc: &Cdc, master: &Master) {
    let end = master.legacy(|legacy| legacy.end());
    until("everything is written", || cdc.saved("db0") == Some(end));
}

#[test]
fn connections_that_end_at_any_byte_and_lose_records() {
    let broker = Broker::shared();
    for (seed, version) in (20..).zip(VERSIONS) {
        let master = master(version);
        let mut writer = Numbers::new(seed);
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.listed();
        cdc.start_and_wait();
        for round in 0..12 {
            let at = usize::try_from(writer.random.range(0..20_000)).unwrap();
            let before = master.legacy(|legacy| legacy.connections);
            master.faults(|faults| {
                faults.cut_after = Some(at);
                faults.lost_with_it = round % 3;
            });
            writer.write_legacy(&master, 200);
            until("the connection was cut, or all was sent", || {
                let end = master.legacy(|legacy| legacy.end());
                master.legacy(|legacy| legacy.connections) > before || cdc.saved("db0") == Some(end)
            });
            if round % 4 == 3 {
                master.restart();
            }
        }
        master.faults(|faults| faults.cut_after = None);
        writer.write_legacy(&master, 10);
        wait(&cdc, &master);
        check(broker, &cdc, &writer);
        let connections = master.legacy(|legacy| legacy.connections);
        assert!(connections > 6, "{connections}");
        assert!(cdc.metric("takhin_cdc_gaps_total{db=\"db0\"}") >= 1.0);
        assert!(cdc.stop().success());
    }
}

#[test]
fn a_clean_stop_leaves_nothing_to_be_sent_again() {
    let broker = Broker::shared();
    for (seed, version) in (30..).zip(VERSIONS) {
        let master = master(version);
        let mut writer = Numbers::new(seed);
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.listed();
        for _ in 0..4 {
            cdc.start_and_wait();
            writer.write_legacy(&master, 150);
            wait(&cdc, &master);
            assert!(cdc.stop().success());
        }
        assert_eq!(check(broker, &cdc, &writer), 0, "{version}");
    }
}

/// The file with positions is an older copy, and the topic has none.
#[test]
fn an_older_position_does_not_clear_what_is_kept() {
    let mut broker = Broker::start();
    let master = master("3.0.16");
    let mut writer = Numbers::new(45);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.listed();
    cdc.set("wal.max_size=1MiB");
    cdc.start_and_wait();
    writer.write_legacy(&master, 20);
    wait(&cdc, &master);
    let older = cdc.positions();
    let first = cdc.data().join("wal/00000000000000000001.wal");
    assert!(first.exists());
    until("what was written is deleted", || {
        writer.write_legacy(&master, 500);
        wait(&cdc, &master);
        !first.exists()
    });
    broker.kill();
    writer.write_legacy(&master, 500);
    let end = master.legacy(|legacy| legacy.end());
    until("all is kept", || {
        let kept = |of: &str| cdc.metric(&format!("takhin_cdc_wal_end_{of}"));
        (kept("filenum"), kept("offset")) == (f64::from(end.filenum), end.offset as f64)
    });
    cdc.kill();
    master.legacy(|legacy| legacy.purge(end.filenum));
    cdc.put_back(&older);
    cdc.set("sink.topic_offsets=others");
    broker.run();
    cdc.start();
    wait(&cdc, &master);
    check(&broker, &cdc, &writer);
    assert!(cdc.log().contains("what is kept begins behind the position"));
}

#[test]
fn what_is_lost_is_asked_for_once() {
    let broker = Broker::shared();
    let master = master("3.0.16");
    let mut writer = Numbers::new(40);
    writer.write_legacy(&master, 400);
    master.legacy(|legacy| legacy.purge(2));
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.listed();
    cdc.go_on_from("", &BTreeMap::from([("db0".to_owned(), Position::new(1, 0))]));
    cdc.start();
    until("it is said", || {
        cdc.says()
            .contains("position 1:0 of db0 is lost: the master has deleted the binlog there")
    });
    // Each question would have the master make a dump.
    until("it is tried again", || {
        cdc.says().contains("it is not asked again")
    });
    assert_eq!(master.legacy(|legacy| legacy.asked.len()), 1);
    cdc.kill();
    cdc.go_on_from("", &BTreeMap::from([("db0".to_owned(), Position::new(900, 0))]));
    cdc.start();
    until("it is said", || {
        cdc.says()
            .contains("position 900:0 of db0 is lost: the master's binlog ends before it")
    });
    assert_eq!(cdc.saved("db0"), Some(Position::new(900, 0)));
}

#[test]
fn what_cannot_work_is_said() {
    let broker = Broker::shared();
    let first = master("3.0.16");
    let mut cdc = Cdc::new(&first, broker.kafka);
    cdc.listed();
    cdc.set("filters.databases=db1");
    cdc.start();
    until("the database", || {
        cdc.says()
            .contains("filters.databases has db1, which the master lacks: it has db0")
    });

    let mut cdc = Cdc::new(&first, broker.kafka);
    cdc.listed();
    cdc.set("snapshot.mode=always");
    cdc.start();
    until("the mode", || {
        cdc.says().contains("snapshot.mode is always, and")
            && cdc
                .says()
                .contains("of masters before 3.1 there are initial, when_needed and no_data")
    });

    let other = master("2.3.6");
    other.legacy(|legacy| legacy.refuses_life = true);
    let mut cdc = Cdc::new(&other, broker.kafka);
    cdc.listed();
    cdc.start();
    until("the address", || {
        cdc.says().contains(
            "takes signs of life only from the address that a slave is listed with, which is 127.0.0.1",
        )
    });

    let mute = master("2.3.6");
    mute.legacy(|legacy| legacy.is_mute = true);
    let mut cdc = Cdc::new(&mute, broker.kafka);
    cdc.listed();
    cdc.start();
    until("the other address", || {
        cdc.says().contains("the master has not connected to 127.0.0.1:")
    });
}

/// Whether all that the master has was received and is kept.
fn has_all(cdc: &Cdc, master: &Master) -> bool {
    let end = master.legacy(|legacy| legacy.end());
    let at = |name: &str| cdc.metric(&format!("takhin_cdc_wal_end_{name}"));
    (at("filenum"), at("offset")) == (f64::from(end.filenum), end.offset as f64)
}

/// The master has deleted all of it when brokers come back, and the process was killed meanwhile, more than once.
#[test]
fn brokers_that_are_away_while_the_master_deletes_its_binlog() {
    for (seed, version) in (50..).zip(VERSIONS) {
        let mut broker = Broker::start();
        let master = master(version);
        let mut writer = Numbers::new(seed);
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.listed();
        cdc.set("sink.queue_size=1MiB");
        cdc.start_and_wait();
        writer.write_legacy(&master, 100);
        wait(&cdc, &master);
        broker.kill();
        for _ in 0..3 {
            writer.write_legacy(&master, 3000);
            until("all is received", || has_all(&cdc, &master));
            let end = master.legacy(|legacy| legacy.end());
            master.legacy(|legacy| legacy.purge(end.filenum));
            cdc.kill();
            cdc.start();
        }
        until("the brokers are missed", || cdc.says().contains("sink: "));
        broker.run();
        wait(&cdc, &master);
        let again = check(&broker, &cdc, &writer);
        assert!(again < 500, "{again}");
        until("it is ready again", || cdc.is_ready());
        until("what was written is deleted", || {
            cdc.metric("takhin_cdc_wal_bytes") < 70e6
        });
        assert!(cdc.stop().success());
    }
}

#[test]
fn killed_at_any_point() {
    let broker = Broker::shared();
    for (seed, version) in (60..).zip(VERSIONS) {
        let master = master(version);
        let mut writer = Numbers::new(seed);
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.listed();
        cdc.set("sink.batch_size=4KiB").set("wal.max_size=1MiB");
        cdc.start_and_wait();
        // Whoever loses the directory before that begins with the changes from then on.
        let key = format!("source-{}:db0", cdc.cluster);
        read_until(broker.kafka, "__pika_port_kafka_offsets", "a position", |read| {
            read.iter().any(|read| read.key == key)
        });
        for _ in 0..6 {
            writer.write_legacy(&master, 400);
            let (moments, mut looks) = (writer.random.range(0..40), 0);
            until("a moment", || {
                looks += 1;
                looks > moments || cdc.saved("db0") == Some(master.legacy(|legacy| legacy.end()))
            });
            cdc.kill();
            match writer.random.range(0..3) {
                // As with a pod's directory: the topic has positions, and the master is asked again.
                0 if cdc.data().exists() => cdc.lose_file(),
                1 => master.restart(),
                _ => {}
            }
            cdc.start();
        }
        wait(&cdc, &master);
        let again = check(broker, &cdc, &writer);
        let all = writer.written();
        // Each time what was written after the last position that was saved; without one it would be four times all.
        assert!((again as u64) < 2 * all, "{again} of {all}");
    }
}

#[test]
fn a_full_log_has_the_master_wait() {
    let mut broker = Broker::start();
    let master = master("3.0.16");
    let mut writer = Numbers::new(70);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.listed();
    cdc.set("sink.queue_size=1MiB").set("wal.max_size=1MiB");
    cdc.start_and_wait();
    writer.write_legacy(&master, 10);
    wait(&cdc, &master);
    broker.kill();
    writer.write_legacy(&master, 20_000);
    until("the log is full", || {
        cdc.log().contains("wal.max_size is reached")
    });
    let kept = cdc.metric("takhin_cdc_wal_bytes");
    assert!(kept < 1.6e6, "{kept}");
    assert!(!has_all(&cdc, &master));
    broker.run();
    wait(&cdc, &master);
    check(&broker, &cdc, &writer);
    // All but the last segment, which may be as long as what is read at a time.
    until("what was written is deleted", || {
        cdc.metric("takhin_cdc_wal_bytes") < 600_000.0
    });
}

/// What no saved position has passed is there, whatever was written.
#[test]
fn nothing_is_deleted_before_the_position_is_saved() {
    let broker = Broker::shared();
    let master = master("3.0.16");
    let mut writer = Numbers::new(80);
    let wal = tempfile::tempdir().unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.listed();
    cdc.set("wal.max_size=1MiB")
        .set(&format!("wal.dir={}", wal.path().join("wal").display()));
    cdc.start_and_wait();
    writer.write_legacy(&master, 10);
    wait(&cdc, &master);
    let oldest = || {
        let files = std::fs::read_dir(wal.path().join("wal")).unwrap();
        files.map(|file| file.unwrap().file_name()).min().unwrap()
    };
    let first = oldest();
    cdc.lose_file();
    writer.write_legacy(&master, 3000);
    until("it cannot be saved", || {
        cdc.says().contains("checkpoint.dir: cannot write")
    });
    until("all is received", || has_all(&cdc, &master));
    assert_eq!(oldest(), first);
    // The positions of before are in the topic.
    let end = master.legacy(|legacy| legacy.end());
    master.legacy(|legacy| legacy.purge(end.filenum));
    std::fs::create_dir_all(cdc.data()).unwrap();
    wait(&cdc, &master);
    check(broker, &cdc, &writer);
    until("what was written is deleted", || oldest() != first);
}
