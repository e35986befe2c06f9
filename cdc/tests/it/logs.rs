//! Logs on the own disk of what masters from 3.1 on have sent: what was acknowledged is there, whatever becomes of brokers, of
//! the process, and of the master's binlog.

use takhin_pika::Position;
use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::numbers::Numbers;
use takhin_pika_testing::replayed::Replayed;

use crate::broker::{Broker, until};
use crate::cdc::Cdc;
use crate::events::check;

const DBS: [&str; 2] = ["db0", "db1"];

fn master(version: &str) -> Master {
    Master::start(Settings {
        version: version.into(),
        databases: 2,
        ..Settings::default()
    })
    .unwrap()
}

fn cdc(master: &Master, broker: &Broker) -> Cdc {
    let mut cdc = Cdc::new(master, broker.kafka);
    cdc.set("wal.enabled=true");
    cdc
}

/// Whether everything was acknowledged to the master.
fn is_acknowledged(master: &Master) -> bool {
    DBS.iter()
        .all(|db| master.end(db).offset == 0 || master.acked(db) == Some(master.end(db)))
}

/// Waits until everything was written.
fn wait(cdc: &Cdc, master: &Master) {
    until("everything is written", || {
        DBS.iter()
            .all(|db| master.end(db).offset == 0 || cdc.saved(db) == Some(master.end(db)))
    });
}

/// Has the master delete all files but the ones that it writes to.
fn purge(master: &Master) {
    for db in DBS {
        master.purge(db, master.end(db).filenum);
    }
}

/// Up to where a database is kept.
fn kept(cdc: &Cdc, db: &str) -> (f64, f64) {
    let at = |name: &str| cdc.metric(&format!("takhin_cdc_kept_{name}{{db=\"{db}\"}}"));
    (at("filenum"), at("offset"))
}

fn kept_bytes(cdc: &Cdc) -> f64 {
    cdc.metric("takhin_cdc_wal_bytes")
}

/// The master has deleted all of it when brokers come back, and the process was killed meanwhile, more than once.
#[test]
fn brokers_that_are_away_while_the_master_deletes_its_binlog() {
    for (seed, version) in (150..).zip(["3.5.5", "3.4.1"]) {
        let mut broker = Broker::start();
        let master = master(version);
        let mut writer = Numbers::new(seed);
        let mut cdc = cdc(&master, &broker);
        cdc.set("sink.queue_size=1MiB");
        cdc.start_and_wait();
        writer.write(&master, 100);
        wait(&cdc, &master);
        broker.kill();
        for _ in 0..3 {
            writer.write(&master, 3000);
            until("all is acknowledged", || is_acknowledged(&master));
            purge(&master);
            cdc.kill();
            cdc.start();
        }
        until("the brokers are missed", || cdc.says().contains("sink: "));
        assert!(cdc.saved("db0") < Some(master.end("db0")));
        broker.run();
        wait(&cdc, &master);
        let again = check(&broker, &cdc, &writer);
        assert!(again < 500, "{again}");
        until("it is ready again", || cdc.is_ready());
        // It went on behind what it has, and not at the position, where the master has nothing any more.
        for (db, asked, acked) in master.tried() {
            assert!(acked.is_none_or(|acked| asked >= acked), "{db} {asked} {acked:?}");
        }
        assert!(cdc.stop().success());
        until("it has taken leave", || master.slaves().is_empty());
    }
}

/// Segments in the log of the first database, by name.
fn segments(cdc: &Cdc) -> Vec<String> {
    let files = std::fs::read_dir(cdc.data().join("wal/db0")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".wal")).collect();
    names.sort();
    names
}

/// The file with positions was lost, or is an older copy, and the topic has none: what is kept and not written is not given
/// up for a position that was passed long ago.
#[test]
fn an_older_position_does_not_clear_what_is_kept() {
    let mut broker = Broker::start();
    let master = master("3.5.5");
    let mut writer = Numbers::new(230);
    let mut cdc = cdc(&master, &broker);
    cdc.set("wal.max_size=1MiB");
    cdc.start_and_wait();
    writer.write(&master, 20);
    wait(&cdc, &master);
    let older = cdc.positions();
    let before = segments(&cdc);
    until("what was written is deleted", || {
        writer.write(&master, 500);
        wait(&cdc, &master);
        segments(&cdc)[0] > before[0]
    });
    broker.kill();
    writer.write(&master, 500);
    until("all is acknowledged", || is_acknowledged(&master));
    cdc.kill();
    purge(&master);
    cdc.put_back(&older);
    cdc.set("sink.topic_offsets=others");
    broker.run();
    cdc.start();
    wait(&cdc, &master);
    check(&broker, &cdc, &writer);
    assert!(cdc.log().contains("what is kept begins behind the position"));
    let resyncs = cdc.metric("takhin_cdc_full_resyncs_total{reason=\"position_lost\"}");
    assert!(resyncs < 0.5, "{resyncs}");
}

/// Seeds of chance: what happens, and when. What was acknowledged the master deletes.
#[test]
fn killed_at_any_point() {
    let broker = Broker::shared();
    for seed in 160..163 {
        let master = master("3.5.5");
        let mut writer = Numbers::new(seed);
        let mut cdc = cdc(&master, broker);
        cdc.set("sink.batch_size=4KiB").set("wal.max_size=1MiB");
        cdc.start_and_wait();
        for _ in 0..6 {
            writer.write(&master, 400);
            let (moments, mut looks) = (writer.random.range(0..40), 0);
            until("a moment", || {
                looks += 1;
                looks > moments || is_acknowledged(&master)
            });
            cdc.kill();
            for db in DBS {
                let acked = master.acked(db).map_or(0, |acked| acked.filenum);
                master.purge(db, acked);
            }
            if writer.random.range(0..3) == 0 {
                master.restart();
            }
            cdc.start();
        }
        wait(&cdc, &master);
        let again = check(broker, &cdc, &writer) as u64;
        assert!(again < writer.written(), "{again} of {}", writer.written());
        assert!((cdc.metric("takhin_cdc_full_resyncs_total{reason=\"position_lost\"}") - 0.0).abs() < 0.5);
    }
}

#[test]
fn connections_that_end_at_any_byte() {
    let broker = Broker::shared();
    let master = master("4.0.1");
    let mut writer = Numbers::new(170);
    let mut cdc = cdc(&master, broker);
    cdc.start_and_wait();
    let mut cuts = 0;
    for round in 0..12 {
        let at = usize::try_from(writer.random.range(0..20_000)).unwrap();
        master.faults(|faults| faults.cut_after = Some(at));
        writer.write(&master, 300);
        let mut is_cut = false;
        until("the connection was cut, or all was sent", || {
            master.faults(|faults| is_cut = faults.cut_after.is_none());
            is_cut || is_acknowledged(&master)
        });
        cuts += usize::from(is_cut);
        if round % 4 == 3 {
            master.restart();
        }
    }
    master.faults(|faults| faults.cut_after = None);
    writer.write(&master, 10);
    wait(&cdc, &master);
    assert_eq!(check(broker, &cdc, &writer), 0);
    assert!(cuts > 6, "{cuts}");
    assert!(cdc.stop().success());
}

/// The master is told of nothing that is not on the disk, and keeps the rest itself.
#[test]
fn a_full_log_has_the_master_wait() {
    let mut broker = Broker::start();
    let master = master("3.5.5");
    let mut writer = Numbers::new(180);
    let mut cdc = cdc(&master, &broker);
    cdc.set("sink.queue_size=1MiB").set("wal.max_size=1MiB");
    cdc.start_and_wait();
    writer.write(&master, 10);
    wait(&cdc, &master);
    broker.kill();
    let connections = master.connections();
    writer.write(&master, 40_000);
    until("the log is full", || {
        cdc.log().contains("wal.max_size is reached")
    });
    let bytes = kept_bytes(&cdc);
    assert!(bytes < 2.0e6, "{bytes}");
    for db in DBS {
        let acked = master.acked(db).unwrap();
        assert!(acked < master.end(db), "{db}: all is acknowledged");
        let kept = kept(&cdc, db);
        let told = (f64::from(acked.filenum), acked.offset as f64);
        assert!(told <= kept, "{db}: {told:?} is acknowledged and {kept:?} kept");
    }
    let resident = cdc.metric("process_resident_memory_bytes");
    assert!(resident < 100.0 * 1024.0 * 1024.0, "{resident}");
    broker.run();
    wait(&cdc, &master);
    assert_eq!(master.connections(), connections);
    check(&broker, &cdc, &writer);
    until("what was written is deleted", || kept_bytes(&cdc) < 1.0e6);
}

#[test]
fn a_clean_stop_leaves_nothing_to_be_sent_again() {
    let broker = Broker::shared();
    let master = master("3.5.5");
    let mut writer = Numbers::new(190);
    let mut cdc = cdc(&master, broker);
    for _ in 0..4 {
        cdc.start_and_wait();
        writer.write(&master, 150);
        wait(&cdc, &master);
        let series = format!("takhin_cdc_source{{source=\"source-{}\"}}", cdc.cluster);
        assert!((cdc.metric(&series) - 1.0).abs() < f64::EPSILON);
        let age = cdc.metric("takhin_cdc_checkpoint_age_seconds");
        assert!((0.0..60.0).contains(&age), "{age}");
        assert!(cdc.stop().success());
        until("it has taken leave", || master.slaves().is_empty());
    }
    assert_eq!(check(broker, &cdc, &writer), 0);
}

/// What was acknowledged is nowhere else.
#[test]
fn a_log_that_is_no_longer_wanted_is_written_first() {
    let mut broker = Broker::start();
    let master = master("3.5.5");
    let mut writer = Numbers::new(200);
    let mut cdc = cdc(&master, &broker);
    cdc.start_and_wait();
    writer.write(&master, 50);
    wait(&cdc, &master);
    broker.kill();
    writer.write(&master, 3000);
    until("all is acknowledged", || is_acknowledged(&master));
    purge(&master);
    cdc.kill();
    cdc.set("wal.enabled=false");
    cdc.start();
    until("the brokers are missed", || cdc.says().contains("sink: "));
    broker.run();
    wait(&cdc, &master);
    writer.write(&master, 100);
    until("all is acknowledged", || is_acknowledged(&master));
    wait(&cdc, &master);
    check(&broker, &cdc, &writer);
    assert!(kept_bytes(&cdc) < 1.0, "{}", kept_bytes(&cdc));
    // And the other way about.
    assert!(cdc.stop().success());
    cdc.set("wal.enabled=true");
    cdc.start_and_wait();
    writer.write(&master, 100);
    wait(&cdc, &master);
    until("it is kept", || kept_bytes(&cdc) > 0.0);
    check(&broker, &cdc, &writer);
}

/// A master of another version, or with a database more.
#[test]
fn a_master_that_is_not_as_it_was() {
    let broker = Broker::shared();
    let master = master("3.4.1");
    let mut writer = Numbers::new(210);
    let mut cdc = cdc(&master, broker);
    cdc.start_and_wait();
    writer.write(&master, 200);
    wait(&cdc, &master);
    master.set(|settings| settings.version = "3.5.5".into());
    master.restart();
    writer.write(&master, 200);
    wait(&cdc, &master);
    until("it is begun anew", || {
        cdc.log().contains("what is kept of it is written first")
    });
    // It begins with the changes from when it is known.
    master.execute("db2", &[b"set", b"k", b"0"]);
    master.restart();
    until("the third one is followed", || cdc.saved("db2").is_some());
    writer.write(&master, 100);
    wait(&cdc, &master);
    until("the third one is kept", || kept(&cdc, "db2") != (0.0, 0.0));
    let again = check(broker, &cdc, &writer);
    assert!(again <= 200, "{again}");
}

/// Fixtures have what the master had in the end: key by key.
#[test]
fn a_data_set_and_what_changed_after_it() {
    let broker = Broker::shared();
    for version in ["3.5.5", "4.0.1"] {
        let Replayed { master, version, .. } = Replayed::start(version).unwrap();
        let mut cdc = cdc(&master, broker);
        cdc.set("snapshot.mode=initial");
        cdc.start_and_wait();
        wait(&cdc, &master);
        crate::snapshot::check(broker, &cdc, version);
        until("it is kept", || kept_bytes(&cdc) > 0.0);
        assert!(cdc.stop().success());
    }
}

/// The master has deleted what comes next while nobody was there: what is kept is written first, then the data set is taken.
#[test]
fn a_lost_position_takes_the_data_set_again() {
    let broker = Broker::shared();
    let Replayed { master, version, .. } = Replayed::start("4.0.1").unwrap();
    let mut cdc = cdc(&master, broker);
    cdc.set("snapshot.mode=initial");
    let lost = DBS.map(|db| (db.to_owned(), Position::new(900, 0)));
    cdc.go_on_from(&Settings::default().replication_id, &lost.into());
    cdc.start_and_wait();
    wait(&cdc, &master);
    crate::snapshot::check(broker, &cdc, version);
    assert!(cdc.stop().success());
    for db in DBS {
        let end = master.end(db);
        master.begin_at(db, Position::new(end.filenum + 30, 0));
    }
    cdc.start();
    let resyncs = || cdc.metric("takhin_cdc_full_resyncs_total{reason=\"position_lost\"}");
    until("the data sets are taken", || resyncs() >= 2.0);
}

/// A master keeps its binlog for whom it sends it to: it would be gone once the data set of another one is there.
#[test]
fn what_waits_for_the_data_set_of_another_database_is_kept_by_the_master() {
    let broker = Broker::shared();
    let Replayed { master, .. } = Replayed::start("3.5.5").unwrap();
    let mut cdc = cdc(&master, broker);
    cdc.set("snapshot.mode=initial");
    let from = [("db0", master.begin("db0")), ("db1", Position::new(900, 0))];
    let from = from.map(|(db, position)| (db.to_owned(), position));
    cdc.go_on_from(&Settings::default().replication_id, &from.into());
    cdc.start();
    wait(&cdc, &master);
    let requests = master.requests();
    let begun = requests.iter().position(|request| {
        let sync = request.binlog_sync.as_ref();
        sync.is_some_and(|sync| sync.first_send && sync.db_name == "db0")
    });
    let taken = requests.iter().position(|request| request.db_sync.is_some());
    assert!(begun.unwrap() < taken.unwrap(), "{begun:?} {taken:?}");
    assert_eq!(cdc.log().matches("taking the data set").count(), 1);
    // What came of it meanwhile was not acknowledged: it is asked for again.
    let of_db0 = master.tried().into_iter().filter(|(db, ..)| db == "db0");
    let asked: Vec<Position> = of_db0.map(|(_, position, _)| position).collect();
    assert_eq!(asked, [master.begin("db0"); 2]);
}

/// With `stop` what is kept is written still, and nothing is taken.
#[test]
fn what_is_kept_is_written_where_the_position_is_lost() {
    let mut broker = Broker::start();
    let master = master("3.5.5");
    let mut writer = Numbers::new(220);
    let mut cdc = cdc(&master, &broker);
    cdc.set("source.on_position_lost=stop");
    cdc.start_and_wait();
    writer.write(&master, 50);
    wait(&cdc, &master);
    broker.kill();
    writer.write(&master, 1000);
    until("all is acknowledged", || is_acknowledged(&master));
    cdc.kill();
    let ends = DBS.map(|db| master.end(db));
    for db in DBS {
        master.begin_at(db, Position::new(master.end(db).filenum + 30, 0));
    }
    broker.run();
    cdc.start();
    until("what is kept is written", || {
        DBS.map(|db| cdc.saved(db)) == ends.map(Some)
    });
    check(&broker, &cdc, &writer);
    until("it is said", || cdc.says().contains("of db0 is lost: "));
}
