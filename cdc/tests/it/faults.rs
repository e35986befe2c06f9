//! What goes wrong between master and broker: nothing is lost, and what comes twice is a tail.

use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::numbers::Numbers;

use crate::broker::{Broker, get, until};
use crate::cdc::Cdc;
use crate::events::check;

/// Waits until everything was acknowledged.
fn wait(master: &Master) {
    for db in ["db0", "db1"] {
        until("everything is acknowledged", || {
            master.end(db).offset == 0 || master.acked(db) == Some(master.end(db))
        });
    }
}

fn two_databases() -> Master {
    Master::start(Settings {
        databases: 2,
        ..Settings::default()
    })
    .unwrap()
}

/// TrySync never asks for what lies before something that was acknowledged: no more than what was not is sent again.
fn check_tries(master: &Master) {
    for (db, asked, acked) in master.tried() {
        assert!(
            acked.is_none_or(|acked| asked >= acked),
            "{db}: asked for {asked} after {acked:?}"
        );
    }
}

#[test]
fn connections_that_end_at_any_byte() {
    let broker = Broker::shared();
    let master = two_databases();
    let mut writer = Numbers::new(1);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    let mut cuts = 0;
    for round in 0..12 {
        let at = usize::try_from(writer.random.range(0..20_000)).unwrap();
        master.faults(|faults| faults.cut_after = Some(at));
        writer.write(&master, 300);
        let mut is_cut = false;
        until("the connection was cut, or all was sent", || {
            // Not by connections: that of the round before may come as late as now.
            master.faults(|faults| is_cut = faults.cut_after.is_none());
            is_cut
                || ["db0", "db1"]
                    .iter()
                    .all(|db| master.acked(db) == Some(master.end(db)))
        });
        cuts += usize::from(is_cut);
        if round % 4 == 3 {
            master.restart();
        }
    }
    master.faults(|faults| faults.cut_after = None);
    writer.write(&master, 10);
    wait(&master);
    check(broker, &cdc, &writer);
    check_tries(&master);
    assert!(cuts > 6, "{cuts}");
    assert!(cdc.stop().success());
}

#[test]
fn what_comes_twice_is_dropped_and_what_is_missing_is_an_error() {
    let broker = Broker::shared();
    let master = two_databases();
    let mut writer = Numbers::new(2);
    let mut cdc = Cdc::new(&master, broker.kafka);
    // A gap is for people: it is tried again after a while, and said until then.
    cdc.start_and_wait();
    writer.write(&master, 50);
    wait(&master);
    master.faults(|faults| faults.twice = Some(usize::MAX));
    let entries = |db: &str| cdc.metric(&format!("takhin_cdc_events_total{{db=\"{db}\",kind=\"binlog\"}}"));
    until("the events are counted", || {
        entries("db0") + entries("db1") >= 50.0
    });
    // The next of either database; both have more than that.
    master.faults(|faults| faults.twice = Some(40));
    writer.write(&master, 100);
    wait(&master);
    let twice =
        ["db0", "db1"].map(|db| cdc.metric(&format!("takhin_cdc_duplicate_items_total{{db=\"{db}\"}}")));
    assert!(twice.iter().sum::<f64>() >= 1.0, "{twice:?}");

    master.faults(|faults| faults.leave_out = Some(90));
    let before = master.connections();
    writer.write(&master, 100);
    until("the gap is said", || {
        cdc.says().contains("a gap in the binlog of db")
    });
    assert!(cdc.log().contains("gap"));
    // Whatever sent it has the item when it is asked again.
    until("it has connected again", || master.connections() > before);
    wait(&master);
    // That nothing was written behind the gap is in the order. What was on its way to the brokers when it was noticed comes
    // again.
    let again = check(broker, &cdc, &writer);
    assert!(again <= 100, "{again}");
    check_tries(&master);
}

/// It forgets each database by itself, and what it shows of others says nothing.
#[test]
fn a_master_that_forgets_one_of_two_databases() {
    let broker = Broker::shared();
    let master = two_databases();
    let mut writer = Numbers::new(5);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    writer.write(&master, 100);
    wait(&master);
    master.forget("db0");
    until("it is said", || {
        cdc.log().contains("has sent nothing of db0 for 20 s")
    });
    writer.write(&master, 100);
    wait(&master);
    assert_eq!(master.connections(), 2);
    assert_eq!(check(broker, &cdc, &writer), 0);
}

#[test]
fn brokers_that_are_away() {
    let mut broker = Broker::start();
    let master = two_databases();
    let mut writer = Numbers::new(3);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("sink.queue_size=1MiB");
    cdc.start_and_wait();
    writer.write(&master, 500);
    wait(&master);
    let connections = master.connections();
    broker.kill();
    // More than the queue holds.
    writer.write(&master, 12_000);
    until("the queue is full", || {
        cdc.metric("takhin_cdc_queue_bytes") > 900_000.0
    });
    until("it is said", || cdc.says().starts_with("sink: "));
    let of = |name: &str, db: &str| cdc.metric(&format!("takhin_cdc_{name}{{db=\"{db}\"}}"));
    let at = |what: &str, db: &str| {
        let part = |part: &str| of(&format!("source_{what}_{part}"), db);
        (part("filenum"), part("offset"))
    };
    for db in ["db0", "db1"] {
        until("the lag is seen", || {
            of("lag_bytes", db) > 0.0 && of("lag_seconds", db) >= 1.0
        });
        let head = at("head", db);
        assert!(at("position", db) < head, "{db}: {head:?}");
        let end = master.end(db);
        assert_eq!(head, (f64::from(end.filenum), end.offset as f64));
    }
    let resident = cdc.metric("process_resident_memory_bytes");
    assert!(
        resident < 100.0 * 1024.0 * 1024.0,
        "{resident} bytes for what waits"
    );
    assert_eq!(
        master.connections(),
        connections,
        "the source was given up for the sink"
    );
    broker.run();
    wait(&master);
    assert_eq!(check(&broker, &cdc, &writer), 0);
    until("it is ready again", || cdc.is_ready());
    assert_eq!(master.connections(), connections);
    for db in ["db0", "db1"] {
        until("there is no lag", || {
            of("lag_bytes", db) == 0.0 && of("lag_seconds", db) == 0.0
        });
        assert_eq!(at("position", db), at("head", db));
    }
    // What dashboards and the operator know by name.
    let (_, text) = get(cdc.admin, "/metrics").unwrap();
    for name in [
        "phase{db=\"db0\",phase=\"streaming\"} 1",
        "events_total{db=\"db0\",kind=\"binlog\"} ",
        "bytes_total ",
        "queue_bytes 0",
        "checkpoint_age_seconds ",
        "produce_retries_total{topic=",
        "paused 0",
    ] {
        assert!(text.contains(&format!("\ntakhin_cdc_{name}")), "{name}: {text}");
    }
    assert!(cdc.stop().success());
}

/// They are there, and take what was sent late.
#[test]
fn brokers_that_are_slow() {
    let broker = Broker::start();
    let master = two_databases();
    let mut writer = Numbers::new(6);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("sink.queue_size=1MiB");
    cdc.start_and_wait();
    for _ in 0..3 {
        writer.write(&master, 300);
        broker.stand_still(true);
        // More than the queue holds.
        writer.write(&master, 9000);
        until("it is said", || {
            cdc.says()
                .starts_with("sink: the brokers have not acknowledged what was sent within 10 s")
        });
        broker.stand_still(false);
        until("it is ready again", || cdc.is_ready());
    }
    wait(&master);
    assert_eq!(master.connections(), 1, "the source was given up for the sink");
    assert_eq!(check(&broker, &cdc, &writer), 0);
}

/// With the settings that nobody has changed, values that are not small, and brokers that come back: then the queue, what is on
/// its way to them and what was made of it are there together.
#[test]
fn memory_is_bounded_by_default() {
    let value = vec![b'v'; 4096];
    for has_log in [false, true] {
        let mut broker = Broker::start();
        let master = Master::start(Settings {
            file_size: 100 << 20,
            ..Settings::default()
        })
        .unwrap();
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.set(&format!("wal.enabled={has_log}"));
        cdc.start_and_wait();
        master.execute("db0", &[b"set", b"first", b"1"]);
        until("it is written", || cdc.saved("db0") == Some(master.end("db0")));
        broker.kill();
        for number in 0..24_000 {
            let key = format!("key{}", number % 1000);
            master.execute("db0", &[b"set", key.as_bytes(), &value]);
        }
        until("the queue is full", || {
            cdc.metric("takhin_cdc_queue_bytes") > f64::from(30 << 20)
        });
        broker.run();
        until("it is written", || cdc.saved("db0") == Some(master.end("db0")));
        let peak = cdc.peak_mib();
        assert!(peak < 100, "{peak} MiB, with a log: {has_log}");
        assert!(cdc.stop().success());
    }
}

/// A message has a hundred items, whatever their size, and each value is in its record twice: 100 MiB here, of which records are made
/// piece by piece.
#[test]
fn memory_is_bounded_with_large_values() {
    let value = vec![b'v'; 1 << 20];
    let broker = Broker::start();
    let master = Master::start(Settings {
        file_size: 100 << 20,
        ..Settings::default()
    })
    .unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    for number in 0..200 {
        let key = format!("key{}", number % 10);
        master.execute("db0", &[b"set", key.as_bytes(), &value]);
    }
    until("it is written", || cdc.saved("db0") == Some(master.end("db0")));
    let peak = cdc.peak_mib();
    assert!(peak < 400, "{peak} MiB");
    assert!(cdc.stop().success());
}

/// Seeds of chance: what happens, and when.
#[test]
fn killed_at_any_point() {
    let broker = Broker::shared();
    for seed in 10..13 {
        let master = two_databases();
        let mut writer = Numbers::new(seed);
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.set("sink.batch_size=4KiB");
        cdc.start_and_wait();
        for _ in 0..5 {
            writer.write(&master, 400);
            let progress = writer.random.range(0..300);
            let wanted = 400 - progress;
            // Somewhere on the way: when so many are on the master's list of acknowledged ones, or after a moment.
            let moments = writer.random.range(0..40);
            let mut looks = 0;
            until("a moment", || {
                looks += 1;
                let acked = ["db0", "db1"]
                    .iter()
                    .filter(|db| master.acked(db) == Some(master.end(db)))
                    .count();
                looks > moments || acked == 2 || wanted == 0
            });
            cdc.kill();
            match writer.random.range(0..3) {
                // The file is gone, as with a pod's directory: the topic has positions.
                0 => {
                    writer.write(&master, 20);
                    cdc.start();
                }
                1 => {
                    master.restart();
                    cdc.start();
                }
                _ => cdc.start(),
            }
        }
        wait(&master);
        let again = check(broker, &cdc, &writer);
        check_tries(&master);
        assert!(again < 2000, "{again} of {}", writer.written());
    }
}

/// A pod's directory is gone with the pod.
#[test]
fn the_topic_has_positions_where_the_file_is_lost() {
    let broker = Broker::shared();
    let master = two_databases();
    let mut writer = Numbers::new(4);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    writer.write(&master, 200);
    wait(&master);
    assert_eq!(cdc.saved("db0"), Some(master.end("db0")));
    assert!(cdc.stop().success());
    cdc.lose_file();
    // It would begin here without a position.
    writer.write(&master, 100);
    cdc.start_and_wait();
    wait(&master);
    assert_eq!(
        check(broker, &cdc, &writer),
        0,
        "a clean stop leaves nothing to be sent again"
    );
}
