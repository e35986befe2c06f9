//! The data set of recorded dumps, and the changes after it: together they are what the master had in the end.

use std::collections::BTreeSet;

use takhin_pika::Position;
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::replayed::Replayed;
use takhin_pika_testing::topics::{Read, distinct};

use crate::broker::{Broker, until};
use crate::cdc::Cdc;
use crate::events::read_until;
use crate::topics::{allow, create};

fn wait(master: &Master) {
    for db in ["db0", "db1"] {
        until("everything is acknowledged", || {
            master.acked(db) == Some(master.end(db))
        });
    }
}

/// All that is in the topics of the program, by now.
fn read_all(broker: &Broker, cdc: &Cdc) -> (Vec<Read>, Vec<Read>) {
    let count = |kind: &str| {
        let of = |db: &str| cdc.metric(&format!("takhin_cdc_events_total{{db=\"{db}\",kind=\"{kind}\"}}"));
        of("db0") + of("db1")
    };
    until("the events are counted", || {
        count("binlog") > 50.0 && count("control") >= 4.0
    });
    let ends = |read: &[Read], db: &str| {
        let is_end = |event: &&Read| event.text("op") == "snapshot_end" && event.text("db") == db;
        let partitions: BTreeSet<i32> = read.iter().filter(is_end).map(|event| event.partition).collect();
        partitions.len() == 4
    };
    let snapshot = read_until(broker.kafka, &cdc.topic("snapshot"), "the data set", |read| {
        ends(read, "db0") && ends(read, "db1")
    });
    let wanted = count("binlog");
    let binlog = read_until(broker.kafka, &cdc.topic("binlog"), "the changes", |read| {
        distinct(read) as f64 >= wanted
    });
    (snapshot, binlog)
}

pub(crate) fn check(broker: &Broker, cdc: &Cdc, version: &str) {
    let (snapshot, binlog) = read_all(broker, cdc);
    takhin_pika_testing::replayed::check(version, &snapshot, &binlog);
}

#[test]
fn a_data_set_and_what_changed_after_it() {
    let broker = Broker::shared();
    for version in ["3.5.5", "4.0.1"] {
        let Replayed { master, version, .. } = Replayed::start(version).unwrap();
        master.faults(|faults| faults.not_ready = 1);
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.set("snapshot.mode=initial");
        cdc.start_and_wait();
        wait(&master);
        check(broker, &cdc, version);
        // It asked as a real slave does: for a dump, then for the changes from where that ends.
        let requests = master.requests();
        let synced = requests.iter().filter_map(|request| request.db_sync.as_ref());
        let synced: Vec<_> = synced
            .map(|sync| (sync.slot.db_name.as_str(), sync.binlog_offset.filenum))
            .collect();
        assert_eq!(synced, [("db0", 0), ("db1", 0)]);
        let dump_ends: Vec<Position> = master
            .tried()
            .into_iter()
            .map(|(_, position, _)| position)
            .collect();
        assert_eq!(dump_ends.len(), 2, "{dump_ends:?}");
        assert!(
            !cdc.data().join("snapshot/db0").exists(),
            "the dump was left behind"
        );
        assert!(cdc.stop().success());
        // A position that is there is gone on from.
        cdc.start_and_wait();
        until("it follows", || master.tried().len() == 4);
        assert_eq!(
            master
                .requests()
                .iter()
                .filter(|request| request.db_sync.is_some())
                .count(),
            2
        );
    }
}

/// It says: not yet.
#[test]
fn a_dump_that_is_never_made() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("4.0.1").unwrap();
    master.faults(|faults| faults.not_ready = u32::MAX);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial").set("snapshot.push_wait=3s");
    cdc.start();
    until("it is said", || {
        cdc.says()
            .contains("the master has not made a dump of db0 within 3 s")
    });
    master.faults(|faults| faults.not_ready = 0);
    wait(&master);
    check(broker, &cdc, version);
}

/// It says nothing until it is made, as 3.5.0 to 3.5.2. Whoever gave up would ask for another one, which those begin anew.
#[test]
fn a_master_that_is_silent_while_it_makes_its_dump() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("3.5.5").unwrap();
    master.faults(|faults| faults.mute_lists = 8);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial").set("source.timeout=1s");
    cdc.start_and_wait();
    wait(&master);
    check(broker, &cdc, version);
    // Of two databases.
    assert_eq!(master.transfers(), 8 + 2);
    let is_asked = |request: &&takhin_pika::message::InnerRequest| request.db_sync.is_some();
    assert_eq!(master.requests().iter().filter(is_asked).count(), 2);
}

/// The whole of what was recorded one after the other, as if nobody had gone away.
#[test]
fn a_data_set_and_all_that_was_executed_after_it() {
    let broker = Broker::shared();
    for version in ["3.5.5", "4.0.1"] {
        let replayed = Replayed::longer(version).unwrap();
        let mut cdc = Cdc::new(&replayed.master, broker.kafka);
        cdc.set("snapshot.mode=initial");
        cdc.start_and_wait();
        wait(&replayed.master);
        let (snapshot, binlog) = read_all(broker, &cdc);
        takhin_pika_testing::replayed::check_against(version, replayed.expected, &snapshot, &binlog);
    }
}

#[test]
fn transfers_that_break_and_dumps_that_change() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("4.0.1").unwrap();
    master.faults(|faults| {
        faults.cut_files_after = vec![30, 1, 0, 12];
        faults.another_dump_after = Some(60);
    });
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial")
        .set("snapshot.parallelism=3")
        .set("snapshot.max_rate=1MiB");
    cdc.start();
    wait(&master);
    check(broker, &cdc, version);
    assert!(master.transfers() >= 5, "{}", master.transfers());
    let log = cdc.log();
    assert!(
        log.contains("another dump meanwhile") || log.contains("checksum"),
        "{log}"
    );
}

/// The files come over another connection, and those that are there are as good over the next one.
#[test]
fn a_transfer_goes_on_when_the_connection_for_changes_breaks() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("3.5.5").unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial").set("snapshot.max_rate=64KiB");
    cdc.start();
    let received = || cdc.metric("takhin_cdc_snapshot_received_bytes_total{db=\"db0\"}");
    for connections in 1..=2 {
        let before = received();
        until("some of it is received", || received() > before + 5000.0);
        master.disconnect();
        until("it has connected again", || master.connections() > connections);
    }
    wait(&master);
    check(broker, &cdc, version);
    // No more than the piece that was on its way comes twice.
    let most = master.dump_size("db0") + 2 * 1500;
    assert!(received() <= most as f64, "{} of {most}", received());
}

#[test]
fn killed_while_it_takes_the_data_set() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("3.5.5").unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial").set("snapshot.max_rate=64KiB");
    for transfers in 1..4 {
        cdc.start();
        until("files are received", || master.transfers() >= transfers);
        cdc.kill();
        until("the master has seen it", || master.slaves().is_empty());
    }
    cdc.set("snapshot.max_rate=unlimited");
    cdc.start_and_wait();
    wait(&master);
    check(broker, &cdc, version);
}

/// What the brokers refuse may be allowed by somebody: until then the master keeps its binlog for whoever is connected, and the dump
/// that is there is written again without being received again.
#[test]
fn a_batch_of_a_data_set_that_brokers_refuse_is_written_once_they_take_it() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("3.5.5").unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial").set("sink.compression=none");
    let topic = cdc.topic("snapshot");
    create(broker, &topic, "2000");
    cdc.start();
    let said = || cdc.log().matches("raise max.message.bytes of the topic").count();
    until("it is said", || {
        cdc.says().contains(&format!("cannot write to {topic}: ")) && said() == 1
    });
    let received = || cdc.metric("takhin_cdc_snapshot_received_bytes_total{db=\"db0\"}");
    let whole = received();
    let requests = master.requests().len();
    until("it shows that it is there", || master.requests().len() > requests);
    assert_eq!((said(), master.connections()), (1, 1));
    let refused = cdc.metric(&format!("takhin_cdc_produce_errors_total{{topic=\"{topic}\"}}"));
    assert!(refused >= 1.0, "{refused}");
    allow(broker, &topic, "2000000");
    wait(&master);
    until("it is ready", || cdc.is_ready());
    assert!((received() - whole).abs() < 1.0, "{} after {whole}", received());
    check(broker, &cdc, version);
}

/// Its settings are read once: whoever tried again would take the data set for ever.
#[test]
fn a_record_that_is_too_large_ends_a_data_set_once() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("3.5.5").unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial").set("sink.max_record_size=64KiB");
    cdc.start();
    until("it is said", || {
        cdc.says().contains("more than sink.max_record_size (65536)")
    });
    let requests = master.requests().len();
    until("it shows that it is there", || master.requests().len() > requests);
    assert_eq!((asked(&master), master.connections()), (1, 1));
    assert!(cdc.says().contains("more than sink.max_record_size (65536)"));
    master.restart();
    until("the end of the connection is said", || {
        cdc.log().contains("the data set is not asked for again before")
    });
    assert_eq!((asked(&master), master.connections()), (1, 1));
    assert!(cdc.stop().success());
    cdc.set("sink.max_record_size=1MiB");
    cdc.start_and_wait();
    wait(&master);
    check(broker, &cdc, version);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let broker = Broker::shared();
    let Replayed { master, .. } = Replayed::start("4.0.1").unwrap();
    master.faults(|faults| faults.listed_too = Some("../../escaped".into()));
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial").start();
    until("it is said", || {
        cdc.says().contains("files that are none of a dump")
    });
    assert!(master.tried().is_empty());
}

#[test]
fn a_lost_position_takes_the_data_set_again() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("4.0.1").unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial");
    let lost = ["db0", "db1"].map(|db| (db.to_owned(), Position::new(900, 0)));
    cdc.go_on_from(&Settings::default().replication_id, &lost.into());
    cdc.start_and_wait();
    wait(&master);
    check(broker, &cdc, version);
    let resyncs = cdc.metric("takhin_cdc_full_resyncs_total{reason=\"position_lost\"}");
    assert!((resyncs - 2.0).abs() < f64::EPSILON, "{resyncs}");
    let snapshot = read_until(broker.kafka, &cdc.topic("snapshot"), "the beginning", |read| {
        !read.is_empty()
    });
    let begins = |event: &Read| event.text("op") == "snapshot_begin";
    let begin = snapshot.iter().find(|event| begins(event)).unwrap();
    assert_eq!(begin.json["snapshot"]["reason"], "position_lost");
    // What the master has at a position now may be another change than the one that consumers know.
    let binlog = read_until(broker.kafka, &cdc.topic("binlog"), "changes", |read| {
        !read.is_empty()
    });
    let is_other = |event: &Read| event.text("event_id").starts_with("7e035615.1:");
    assert!(binlog.iter().all(is_other), "{:?}", binlog[0]);
}

/// It says to have positions, and closes the connection when it is asked for them.
fn closes_at(bad: &[&str], connections: u32) {
    let broker = Broker::shared();
    let Replayed { master, .. } = Replayed::start("4.0.1").unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial");
    let from = ["db0", "db1"].map(|db| (db.to_owned(), master.end(db)));
    cdc.go_on_from(&Settings::default().replication_id, &from.into());
    let at = bad.iter().map(|db| ((*db).to_owned(), master.end(db)));
    let at: Vec<(String, Position)> = at.collect();
    master.faults(|faults| faults.closes_at = at);
    cdc.start();
    until("everything is written", || {
        let taken = cdc.log().matches("the data set is written").count();
        taken == bad.len() && is_saved(&cdc, &master)
    });
    let synced = master
        .requests()
        .into_iter()
        .filter_map(|request| request.db_sync);
    let synced: Vec<String> = synced.map(|sync| sync.slot.db_name).collect();
    assert_eq!(synced, bad);
    for db in bad {
        assert!(cdc.log().contains(&format!(
            "of {db} is lost: the master closes the connection whenever it is asked for the changes from there on"
        )));
    }
    assert!(master.connections() <= connections, "{}", master.connections());
}

#[test]
fn a_position_that_the_master_closes_the_connection_at_is_lost() {
    closes_at(&["db1"], 9);
}

#[test]
fn of_two_databases_both_positions_that_the_master_closes_the_connection_at_are_lost() {
    closes_at(&["db0", "db1"], 15);
}

/// The dump that the master has is the fault: the next one is a new one, and not taken at once. Others are followed until then.
#[test]
fn a_dump_whose_changes_cannot_be_had_is_not_taken_again() {
    let broker = Broker::shared();
    let Replayed { master, .. } = Replayed::start("4.0.1").unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial");
    let at = ("db1".to_owned(), master.begin("db1"));
    master.faults(|faults| faults.closes_at = vec![at]);
    cdc.start();
    until("it is lost", || {
        cdc.log().contains("of db1 is lost: the master closes")
    });
    let connections = master.connections();
    master.faults(|faults| faults.closes_at.clear());
    master.execute("db0", &[b"set", b"k", b"1"]);
    until("the other one is followed", || {
        master.acked("db0") == Some(master.end("db0"))
    });
    assert_eq!(asked(&master), 2, "it was taken again at once");
    until("everything is written", || is_saved(&cdc, &master));
    assert_eq!(master.connections(), connections);
    let synced = master.requests().into_iter();
    let synced = synced.filter_map(|request| request.db_sync);
    let synced = synced.map(|sync| (sync.slot.db_name, sync.binlog_offset.filenum));
    let synced: Vec<_> = synced.collect();
    let fresh = i32::MAX.unsigned_abs();
    let wanted = [("db0", 0), ("db1", 0), ("db1", fresh)].map(|(db, filenum)| (db.to_owned(), filenum));
    assert_eq!(synced, wanted);
}

/// Data sets that the master was asked for.
fn asked(master: &Master) -> usize {
    let requests = master.requests();
    requests
        .iter()
        .filter(|request| request.db_sync.is_some())
        .count()
}

fn is_saved(cdc: &Cdc, master: &Master) -> bool {
    ["db0", "db1"]
        .iter()
        .all(|db| cdc.saved(db) == Some(master.end(db)))
}

/// Once for each start, not for each connection; also where what came before is in a log.
#[test]
fn at_each_start() {
    let broker = Broker::shared();
    for has_log in [false, true] {
        let Replayed { master, version, .. } = Replayed::start("4.0.1").unwrap();
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.set("snapshot.mode=always")
            .set(&format!("wal.enabled={has_log}"));
        for start in 1..=2 {
            cdc.start_and_wait();
            until("the data sets are written", || {
                cdc.log().matches("the data set is written").count() == 2 * start && is_saved(&cdc, &master)
            });
            assert_eq!(asked(&master), 2 * start);
            let tries = master.tried().len();
            master.restart();
            until("it follows again", || master.tried().len() >= tries + 2);
            assert_eq!(asked(&master), 2 * start);
            if start == 1 {
                assert!(cdc.stop().success());
            }
        }
        let (snapshot, mut binlog) = read_all(broker, &cdc);
        // Those before the last data set are under other ids.
        binlog.retain(|event| event.text("event_id").starts_with("7e035615.1:"));
        takhin_pika_testing::replayed::check(version, &snapshot, &binlog);
        let again = cdc.metric("takhin_cdc_full_resyncs_total{reason=\"always\"}");
        assert!((again - 2.0).abs() < f64::EPSILON, "{again}");
    }
}

/// The master keeps nothing for whoever wants no changes, and they can be had later.
#[test]
fn the_data_set_and_nothing_more() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("3.5.5").unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("snapshot.mode=initial_only");
    for _ in 0..2 {
        cdc.start_and_wait();
        until("it is done", || {
            cdc.log().contains("nothing more is to be done") && master.slaves().is_empty()
        });
        assert_eq!((asked(&master), master.tried().len()), (2, 0));
        assert!(cdc.is_ready());
        assert!(cdc.stop().success());
    }
    cdc.lose_file();
    // The position is in the topic too.
    cdc.set("snapshot.mode=when_needed");
    cdc.start_and_wait();
    until("everything is written", || is_saved(&cdc, &master));
    assert_eq!(asked(&master), 2);
    let snapshot = read_until(broker.kafka, &cdc.topic("snapshot"), "the data set", |read| {
        let ends = read.iter().filter(|event| event.text("op") == "snapshot_end");
        ends.count() == 8
    });
    let events = |db: &str| cdc.metric(&format!("takhin_cdc_events_total{{db=\"{db}\",kind=\"binlog\"}}"));
    until("the events are counted", || {
        events("db0") > 0.0 && events("db1") > 0.0
    });
    let wanted = events("db0") + events("db1");
    let binlog = read_until(broker.kafka, &cdc.topic("binlog"), "the changes", |read| {
        distinct(read) as f64 >= wanted
    });
    takhin_pika_testing::replayed::check(version, &snapshot, &binlog);
    assert!(cdc.stop().success());
    let lost = ["db0", "db1"].map(|db| (db.to_owned(), Position::new(900, 0)));
    cdc.go_on_from(&Settings::default().replication_id, &lost.into());
    cdc.start();
    until("they are taken again", || asked(&master) == 4);
}
