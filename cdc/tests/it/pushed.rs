//! The data set of masters before 3.5, which push it with the program `rsync`, and the changes after it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;
use takhin_pika::Position;
use takhin_pika::info::DumpInfo;
use takhin_pika_testing::fixture::{Fixture, MASTER_PORT};
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::replayed::told;
use takhin_pika_testing::state::State;
use takhin_pika_testing::topics::Read;
use tempfile::TempDir;

use crate::broker::{Broker, post, until};
use crate::cdc::Cdc;
use crate::events::read_until;
use crate::legacy::{as_we_say, recorded};

const VERSIONS: [&str; 2] = ["2.3.6", "3.0.16"];

/// A master with the dump of a fixture and the changes that were recorded, of which some are after it.
struct Pushing {
    master: Master,
    version: &'static str,
    dump: PathBuf,
    /// Where the dump ends.
    end: Position,
    databases: u64,
    _work: TempDir,
}

fn pushing(version: &'static str) -> Pushing {
    let fixture = Fixture::of(version);
    let work = tempfile::tempdir().unwrap();
    let dump = fixture.dump(work.path()).unwrap();
    let master = Master::start(Settings {
        version: version.into(),
        ..Settings::default()
    })
    .unwrap();
    let recorded = recorded(version, "01");
    master.legacy(|legacy| {
        legacy.begin_at(recorded.begin.unwrap());
        legacy.load(&recorded.stream).unwrap();
    });
    master.push(|push| push.dumps.insert("db0".into(), dump.clone()));
    let info = std::fs::read_to_string(dump.join("info")).unwrap();
    Pushing {
        master,
        version,
        dump,
        end: DumpInfo::parse(&info).unwrap().position,
        databases: 1,
        _work: work,
    }
}

/// A master of 3.1 to 3.4, of which nothing is recorded: dump and items are those of 3.0.16, in whose form such masters have
/// them; what they say is in Pika's source.
fn pushing_pb(version: &'static str, databases: u32) -> Pushing {
    let of_legacy = pushing("3.0.16");
    let (begin, entries) = (
        recorded("3.0.16", "01").begin.unwrap(),
        of_legacy.master.legacy(|legacy| legacy.entries()),
    );
    let stream = recorded("3.0.16", "01").stream;
    let master = Master::start(Settings {
        version: version.into(),
        databases,
        ..Settings::default()
    })
    .unwrap();
    master.legacy(|legacy| {
        legacy.begin_at(begin);
        legacy.load(&stream).unwrap();
    });
    for number in 0..databases {
        let db = format!("db{number}");
        master.begin_at(&db, begin);
        master.load(&db, entries.clone());
        master.push(|push| push.dumps.insert(db, of_legacy.dump.clone()));
    }
    Pushing {
        master,
        databases: databases.into(),
        ..of_legacy
    }
}

impl Pushing {
    fn cdc(&self, broker: &Broker) -> Cdc {
        let mut cdc = Cdc::new(&self.master, broker.kafka);
        cdc.listed();
        cdc.set("snapshot.mode=initial");
        cdc
    }

    /// Waits until everything is written, and compares it with what the server had in the end.
    #[track_caller]
    fn check(&self, broker: &Broker, cdc: &Cdc) {
        let version = self.version;
        let end = self.master.legacy(|legacy| legacy.end());
        let places = self.master.legacy(|legacy| legacy.places_after(self.end));
        let dbs: Vec<String> = (0..self.databases).map(|number| format!("db{number}")).collect();
        for db in &dbs {
            until("everything is written", || cdc.saved(db) == Some(end));
        }
        let snapshot = read_until(broker.kafka, &cdc.topic("snapshot"), "the data set", |read| {
            let ends = read.iter().filter(|event| event.text("op") == "snapshot_end");
            let found: BTreeSet<_> = ends.map(|event| (event.text("db"), event.partition)).collect();
            found.len() == 4 * dbs.len()
        });
        let binlog = read_until(broker.kafka, &cdc.topic("binlog"), "the changes", |read| {
            let number = |event: &Read, field: &str| event.json["binlog"][field].as_u64().unwrap();
            let place = |event: &Read| {
                (
                    event.text("db").to_owned(),
                    number(event, "filenum"),
                    number(event, "offset"),
                )
            };
            let found: BTreeSet<_> = read.iter().map(place).collect();
            let has =
                |db: &String, at: &Position| found.contains(&(db.clone(), u64::from(at.filenum), at.offset));
            dbs.iter().all(|db| places.iter().all(|at| has(db, at)))
        });
        let state = State::rebuild(&snapshot, &told(version, &binlog));
        let lines = Fixture::of(version)
            .lines("expected-2-incremental.jsonl")
            .unwrap();
        let of_db = |number: u64| {
            let line = move |mut line: serde_json::Value| {
                line["db"] = number.into();
                line
            };
            lines.iter().cloned().map(line).collect::<Vec<_>>()
        };
        let lines: Vec<_> = (0..self.databases).flat_map(of_db).collect();
        let checked = state.check(&lines, |_| false);
        assert_eq!(checked.equal + checked.expired, lines.len());
        assert!(state.applied > 100, "{version}: {}", state.applied);
    }

    fn calls(&self) -> usize {
        self.master.push(|push| push.calls.len())
    }

    fn pushed(&self) -> u32 {
        self.master.push(|push| push.pushed)
    }

    fn asked(&self) -> Vec<Bytes> {
        self.master.legacy(|legacy| legacy.asked.clone())
    }
}

#[test]
fn a_data_set_and_what_changed_after_it() {
    let broker = Broker::shared();
    for version in VERSIONS {
        let pushing = pushing(version);
        let mut cdc = Cdc::new(&pushing.master, broker.kafka);
        let port = cdc.listed();
        cdc.set("snapshot.mode=initial");
        cdc.start_and_wait();
        pushing.check(broker, &cdc);
        // As a real slave that is told to by force: for all that there is, then for what is after it.
        let said = Fixture::of(version).session("06").unwrap().into_iter();
        let said = said.filter(|connection| connection.server_port == MASTER_PORT);
        let is_it = |bytes: &Bytes| bytes.windows(7).any(|window| window == b"trysync");
        let said: Vec<Bytes> = said
            .map(|connection| connection.to_server)
            .filter(is_it)
            .collect();
        let expected = [
            as_we_say(&said[0], port, None),
            as_we_say(&said[1], port, Some(pushing.end)),
        ];
        assert_eq!(pushing.asked(), expected);
        // Each folder twice, and what says that all is there.
        let calls = pushing.master.push(|push| push.calls.clone());
        assert_eq!(calls.len(), 11, "{calls:?}");
        assert!(calls.iter().all(|(_, code)| *code == 0), "{calls:?}");
        assert!(
            !cdc.data().join("snapshot/rsync/db0").exists(),
            "the dump was left behind"
        );
        assert!(cdc.stop().success());
        // A position that is there is gone on from.
        cdc.start_and_wait();
        until("it follows", || pushing.asked().len() == 3);
        assert_eq!(pushing.pushed(), 1);
    }
}

/// Machines with such masters have an `rsync` of their time: 2.6 (protocol 29), 3.0 or 3.1 (30, 31), which also show a
/// password in another way.
#[test]
fn masters_with_an_older_rsync() {
    let broker = Broker::shared();
    for protocol in [29, 30, 31] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        for pushing in [pushing("2.3.6"), pushing("3.0.16"), pushing_pb("3.4.1", 1)] {
            pushing
                .master
                .faults(|faults| faults.push_protocol = Some(protocol));
            pushing
                .master
                .set(|settings| settings.password = Some("s3cret".into()));
            let mut cdc = pushing.cdc(broker);
            cdc.set(&format!("source.password_file={}", file.path().display()));
            cdc.start();
            pushing.check(broker, &cdc);
            assert_eq!(pushing.pushed(), 1);
            let calls = pushing.master.push(|push| push.calls.clone());
            assert!(calls.iter().all(|(_, code)| *code == 0), "{protocol}: {calls:?}");
        }
    }
}

#[test]
fn pushes_that_break_and_dumps_that_are_replaced() {
    let broker = Broker::shared();
    let pushing = pushing("3.0.16");
    // Two that break amid what is pushed, one in the first words, and one whose dump is gone.
    let whole = vec![Some(1 << 30); 3];
    let faults = [
        vec![Some(9000)],
        vec![Some(60)],
        whole,
        vec![Some(30_000)],
        vec![None],
    ];
    let faults: Vec<_> = faults.concat().into_iter().rev().collect();
    pushing.master.faults(|of| of.push_cut_after = faults);
    let mut cdc = pushing.cdc(broker);
    cdc.set("source.timeout=2s");
    cdc.start();
    pushing.check(broker, &cdc);
    assert_eq!(pushing.pushed(), 1);
    let log = cdc.log();
    assert!(log.contains("the master's rsync was broken off"), "{log}");
}

#[test]
fn killed_while_it_is_pushed() {
    let broker = Broker::shared();
    let pushing = pushing("2.3.6");
    let mut cdc = pushing.cdc(broker);
    cdc.set("snapshot.max_rate=64KiB");
    for calls in [1, 3, 6] {
        cdc.start();
        until("some is pushed", || pushing.calls() >= calls);
        cdc.kill();
    }
    cdc.set("snapshot.max_rate=unlimited").set("source.timeout=2s");
    cdc.start();
    pushing.check(broker, &cdc);
}

/// What the master has sent meanwhile is kept, and the dump too: neither is asked for again.
#[test]
fn killed_before_the_data_set_is_written_while_the_master_deletes_its_binlog() {
    let broker = Broker::shared();
    for version in VERSIONS {
        let pushing = pushing(version);
        let mut cdc = pushing.cdc(broker);
        cdc.set("snapshot.max_rate=64KiB");
        cdc.start();
        until("it is paused", || {
            post(cdc.admin, "/v1/pause").is_some_and(|(status, _)| status == 200)
        });
        let end = pushing.master.legacy(|legacy| legacy.end());
        until("all is received", || {
            let at = |name: &str| cdc.metric(&format!("takhin_cdc_wal_end_{name}"));
            (at("filenum"), at("offset")) == (f64::from(end.filenum), end.offset as f64)
        });
        assert_eq!(cdc.saved("db0"), None);
        assert!(cdc.data().join("snapshot/rsync/db0/info").exists());
        cdc.kill();
        pushing.master.legacy(|legacy| legacy.purge(end.filenum));
        cdc.start();
        pushing.check(broker, &cdc);
        assert_eq!(pushing.pushed(), 1, "{version}");
    }
}

/// The changes alone would be written as if the data set had been.
#[test]
fn a_dump_that_is_gone_before_it_is_written_is_taken_again() {
    let broker = Broker::shared();
    let pushing = pushing("3.0.16");
    let mut cdc = pushing.cdc(broker);
    // Otherwise it may be there, and written, before it is paused.
    cdc.set("snapshot.max_rate=64KiB");
    cdc.start();
    until("it is paused", || {
        post(cdc.admin, "/v1/pause").is_some_and(|(status, _)| status == 200)
    });
    until("it is received", || {
        cdc.data().join("wal/data-set-awaited").exists() && cdc.log().contains("writing the data set")
    });
    assert_eq!(cdc.saved("db0"), None);
    cdc.kill();
    std::fs::remove_dir_all(cdc.data().join("snapshot")).unwrap();
    cdc.start();
    pushing.check(broker, &cdc);
    assert_eq!(pushing.pushed(), 2);
    until("nothing is awaited", || {
        !cdc.data().join("wal/data-set-awaited").exists()
    });
}

/// The master lists such a slave for 30 s, and refuses it meanwhile: it is asked until then.
#[test]
fn killed_before_the_first_sign_of_life() {
    let broker = Broker::shared();
    let pushing = pushing("3.0.16");
    pushing.master.legacy(|legacy| legacy.refuses_life = true);
    let mut cdc = pushing.cdc(broker);
    cdc.start();
    until("its changes are asked for", || pushing.asked().len() >= 2);
    cdc.kill();
    pushing.master.legacy(|legacy| legacy.refuses_life = false);
    cdc.start();
    until("it is refused", || {
        cdc.log().contains("the master already has a slave")
    });
    pushing.check(broker, &cdc);
    assert_eq!(pushing.pushed(), 1);
}

#[test]
fn a_binlog_that_is_deleted_before_it_is_asked_for() {
    let broker = Broker::shared();
    let pushing = pushing("3.0.16");
    let end = pushing.master.legacy(|legacy| legacy.end());
    pushing.master.legacy(|legacy| legacy.purge(end.filenum + 1));
    let mut cdc = pushing.cdc(broker);
    cdc.start();
    until("it is said", || cdc.log().contains("raise its expire-logs-nums"));
    // It has made a later one, as it were.
    pushing.master.legacy(|legacy| legacy.purge(0));
    pushing.check(broker, &cdc);
    assert!(pushing.pushed() >= 2);
}

#[test]
fn a_lost_position_takes_the_data_set_again() {
    let broker = Broker::shared();
    for version in VERSIONS {
        let pushing = pushing(version);
        let lost = Position::new(900, 0);
        let mut cdc = pushing.cdc(broker);
        cdc.set("source.timeout=2s");
        cdc.go_on_from("", &BTreeMap::from([("db0".to_owned(), lost)]));
        cdc.start();
        pushing.check(broker, &cdc);
        let resyncs = cdc.metric("takhin_cdc_full_resyncs_total{reason=\"position_lost\"}");
        assert!(resyncs >= 1.0, "{version}: {resyncs}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let broker = Broker::shared();
    let pushing = pushing("3.0.16");
    pushing
        .master
        .faults(|faults| faults.push_too = Some("../../escaped".into()));
    let mut cdc = pushing.cdc(broker);
    cdc.start();
    until("it is said", || {
        cdc.says()
            .contains("the master has pushed escaped, which is none of a dump")
    });
    assert!(!cdc.data().join("snapshot/escaped").exists() && !cdc.data().join("escaped").exists());
    // And what a dump must have.
    std::fs::remove_file(pushing.dump.join("zsets/CURRENT")).unwrap();
    pushing.master.faults(|faults| faults.push_too = None);
    until("it is said", || {
        cdc.says().contains("the master has pushed no zsets/CURRENT")
    });
    assert_eq!(cdc.saved("db0"), None);
}

#[test]
fn a_master_that_has_another_name_for_itself() {
    let broker = Broker::shared();
    let pushing = pushing("2.3.6");
    pushing
        .master
        .faults(|faults| faults.module_host = Some("172.17.0.1".into()));
    let mut cdc = pushing.cdc(broker);
    cdc.start();
    pushing.check(broker, &cdc);
    assert_eq!(pushing.pushed(), 1);
}

#[test]
fn what_cannot_work_is_said() {
    let broker = Broker::shared();
    let pushing = pushing("3.0.16");
    let mut cdc = pushing.cdc(broker);
    cdc.set("snapshot.rsync=/nowhere/rsync").set("source.timeout=2s");
    cdc.start();
    until("the program", || {
        cdc.says().contains("snapshot.rsync: cannot run /nowhere/rsync")
    });
    cdc.kill();
    pushing.master.faults(|faults| faults.push_stops = true);
    cdc.set("snapshot.rsync=rsync").set("snapshot.push_wait=1s");
    cdc.start();
    until("the silence", || {
        cdc.says()
            .contains("the master has pushed nothing of its dump to 127.0.0.1:")
    });
}

#[test]
fn masters_that_push_and_take_acknowledgements() {
    let broker = Broker::shared();
    for (version, databases) in [("3.2.9", 1), ("3.4.1", 2)] {
        let pushing = pushing_pb(version, databases);
        let mut cdc = pushing.cdc(broker);
        cdc.start_and_wait();
        pushing.check(broker, &cdc);
        let requests = pushing.master.requests();
        let asked = requests
            .iter()
            .filter(|request| request.db_sync.is_some())
            .count();
        assert_eq!(asked, usize::try_from(databases).unwrap());
        let tried: Vec<Position> = pushing.master.tried().into_iter().map(|(_, at, _)| at).collect();
        assert_eq!(tried, vec![pushing.end; tried.len()]);
        let end = pushing.master.end("db0");
        until("it is acknowledged", || pushing.master.acked("db0") == Some(end));
        assert!(
            !cdc.data().join("snapshot/rsync/db0").exists(),
            "the dump was left behind"
        );
        assert!(cdc.stop().success());
        cdc.start_and_wait();
        until("it follows", || pushing.master.tried().len() == 2 * tried.len());
        assert_eq!(pushing.pushed(), databases);
    }
}

/// Nothing protects it while the data set is taken.
#[test]
fn a_binlog_that_is_deleted_while_the_data_set_is_pushed() {
    let broker = Broker::shared();
    let pushing = pushing_pb("3.4.1", 1);
    let end = pushing.master.end("db0");
    pushing.master.purge("db0", end.filenum + 1);
    let mut cdc = pushing.cdc(broker);
    cdc.start();
    until("it is said", || {
        cdc.says()
            .contains("the data set of db0 is there, and not the changes from")
            && cdc.says().contains("raise the master's expire-logs-nums")
    });
    until("it is taken again", || pushing.pushed() >= 2);
    pushing.master.purge("db0", 0);
    pushing.check(broker, &cdc);
    // Others would have been followed meanwhile.
    assert_eq!(pushing.master.connections(), 1);
}

#[test]
fn masters_that_push_show_who_they_are() {
    let broker = Broker::shared();
    let pushing = pushing_pb("3.4.1", 1);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    pushing.master.set(|settings| {
        settings.password = Some("s3cret".into());
        settings.push_password = Some("another".into());
    });
    let mut cdc = pushing.cdc(broker);
    cdc.set(&format!("source.password_file={}", file.path().display()));
    cdc.start();
    until("it is said", || {
        cdc.says()
            .contains("the master's rsync gives another password than source.password_file")
    });
    assert!(!cdc.data().join("snapshot/rsync/db0/strings/CURRENT").exists());
    pushing.master.set(|settings| settings.push_password = None);
    pushing.check(broker, &cdc);
}

#[test]
fn pushes_that_break_on_masters_that_take_acknowledgements() {
    let broker = Broker::shared();
    let pushing = pushing_pb("3.2.9", 1);
    let faults = [vec![None], vec![Some(30_000)]];
    pushing.master.faults(|of| of.push_cut_after = faults.concat());
    let mut cdc = pushing.cdc(broker);
    cdc.set("source.timeout=2s");
    cdc.start();
    pushing.check(broker, &cdc);
    assert_eq!(pushing.pushed(), 1);
}
