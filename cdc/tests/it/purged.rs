//! The recorded session of a slave whose position the master has deleted: it takes the data set, then the changes. The dump is
//! the one that was transferred then.

use std::collections::BTreeMap;

use takhin_pika::Position;
use takhin_pika::message::InnerRequest;
use takhin_pika_testing::fixture::{Fixture, MASTER_PORT};
use takhin_pika_testing::master::{DumpFiles, Master, Settings, recorded};
use takhin_pika_testing::replayed::check_against;

use crate::broker::{Broker, until};
use crate::cdc::Cdc;
use crate::events::read_until;
use crate::replay::{check_events, connection, position, said};

/// What was asked for, by database, in order: positions, and where the changes are to go on after a dump.
type Asked = BTreeMap<String, Vec<(&'static str, Position)>>;

fn asked(requests: &[InnerRequest]) -> Asked {
    let mut found = Asked::new();
    for request in requests {
        if let Some(tried) = &request.try_sync {
            let of = found.entry(tried.slot.db_name.clone()).or_default();
            of.push(("try_sync", position(&tried.binlog_offset)));
        }
        if let Some(synced) = &request.db_sync {
            let of = found.entry(synced.slot.db_name.clone()).or_default();
            // Real slaves show the position that is gone, by whose file masters choose a dump; 0 takes whichever they have.
            of.push(("db_sync", Position::default()));
        }
    }
    found
}

/// A master as it was when the slave came back.
fn master(version: &str) -> (Master, Asked, String) {
    let stream = connection(version, "03");
    let (requests, mut entries) = (stream.requests().unwrap(), recorded(&stream).unwrap());
    let mut introduced = stream.responses().unwrap().into_iter();
    let meta = introduced.find_map(|response| response.meta_sync).unwrap();
    let replication_id = meta.replication_id.unwrap();
    let master = Master::start(Settings {
        version: if version == "4.0.1" { "4.0.0" } else { version }.into(),
        databases: 2,
        replication_id: replication_id.clone(),
        ..Settings::default()
    })
    .unwrap();
    let mut transfers = Fixture::of(version).session("03").unwrap();
    transfers.retain(|connection| connection.server_port == MASTER_PORT + 10_001);
    let mut dumps = DumpFiles::recorded(&transfers).unwrap();
    let asked = asked(&requests);
    for (db, of) in &asked {
        let begin = match dumps.remove(db) {
            Some(dump) => {
                let begin = dump.position().unwrap();
                master.dump_files(db, dump);
                begin
            }
            None => of[0].1,
        };
        master.begin_at(db, begin);
        master.purge(db, begin.filenum);
        master.load(db, entries.remove(db).unwrap_or_default());
    }
    (master, asked, replication_id)
}

#[test]
fn a_slave_whose_position_is_deleted() {
    let broker = Broker::shared();
    for version in ["3.5.5", "4.0.1"] {
        let (master, theirs, replication_id) = master(version);
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.set("snapshot.mode=initial");
        let begin = theirs.iter().map(|(db, of)| (db.clone(), of[0].1)).collect();
        cdc.go_on_from(&replication_id, &begin);
        cdc.start_and_wait();
        for db in theirs.keys() {
            until("everything is written", || cdc.saved(db) == Some(master.end(db)));
        }
        // It asks for what real slaves asked for; which database comes first is its own affair.
        assert_eq!(asked(&master.requests()), theirs, "{version}");
        let requests = connection(version, "03").requests().unwrap();
        until("all is acknowledged", || {
            said(&master.requests()) == said(&requests)
        });

        let taken = theirs.values().filter(|of| of.len() > 1).count();
        let snapshot = read_until(broker.kafka, &cdc.topic("snapshot"), "the data set", |read| {
            let ends = read.iter().filter(|event| event.text("op") == "snapshot_end");
            ends.count() == 4 * taken
        });
        let begin = snapshot.iter().find(|event| event.text("op") == "snapshot_begin");
        assert_eq!(begin.unwrap().json["snapshot"]["reason"], "position_lost");
        let binlog = read_until(broker.kafka, &cdc.topic("binlog"), "the change", |read| {
            !read.is_empty()
        });
        check_events(version, "03", &binlog);
        check_against(version, "expected-4-purged.jsonl", &snapshot, &binlog);
    }
}

/// As real slaves show it, but for the port.
#[test]
fn passwords_are_said_as_real_slaves_say_them() {
    let broker = Broker::shared();
    for version in ["3.5.5", "4.0.1"] {
        let of_session = Fixture::of(version).session("05").unwrap().into_iter();
        let connections = of_session.filter(|connection| connection.server_port == MASTER_PORT + 2000);
        let shown = |requests: Vec<InnerRequest>| {
            let shown = requests.into_iter().filter_map(|request| request.meta_sync);
            shown.map(|meta| (meta.node.ip, meta.auth)).collect::<Vec<_>>()
        };
        let theirs: Vec<_> = connections
            .flat_map(|connection| shown(connection.requests().unwrap()))
            .collect();
        let right = theirs.last().unwrap();
        assert_eq!(right.1.as_deref(), Some("s3cret"), "{version}: {theirs:?}");
        assert!(
            theirs
                .iter()
                .any(|(_, auth)| auth.as_deref() == Some("wrongpass"))
        );
        let master = Master::start(Settings {
            version: if version == "4.0.1" { "4.0.0" } else { version }.into(),
            password: Some("s3cret".into()),
            ..Settings::default()
        })
        .unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.set(&format!("source.password_file={}", file.path().display()));
        cdc.start_and_wait();
        assert_eq!(shown(master.requests()), std::slice::from_ref(right), "{version}");
    }
}
