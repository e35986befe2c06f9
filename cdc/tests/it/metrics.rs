//! What `/metrics` says is what the master did.

use takhin_pika_testing::master::{Master, Settings};
use takhin_pika_testing::numbers::Numbers;

use crate::broker::{Broker, free_address, get, until};
use crate::cdc::Cdc;
use crate::events::check;

const DATABASES: [&str; 2] = ["db0", "db1"];

fn master() -> Master {
    Master::start(Settings {
        databases: 2,
        ..Settings::default()
    })
    .unwrap()
}

fn wait(master: &Master) {
    for db in DATABASES {
        until("everything is acknowledged", || {
            master.acked(db) == Some(master.end(db))
        });
    }
}

/// Whether there is a series, whatever its value.
fn has(cdc: &Cdc, series: &str) -> bool {
    let (_, text) = get(cdc.admin, "/metrics").unwrap_or_default();
    text.lines().any(|line| {
        line.strip_prefix(series)
            .is_some_and(|rest| rest.starts_with(' '))
    })
}

/// The sum of a series over both databases.
fn sum(cdc: &Cdc, name: &str, labels: &str) -> f64 {
    let of = |db: &&str| cdc.metric(&format!("takhin_cdc_{name}{{db=\"{db}\"{labels}}}"));
    DATABASES.iter().map(of).sum()
}

/// Fails where the master's end and the position are not the same, at the end of all that it has.
fn check_positions(cdc: &Cdc, master: &Master) {
    for db in DATABASES {
        let end = master.end(db);
        let end = (f64::from(end.filenum), end.offset as f64);
        for what in ["position", "head"] {
            let at = |part: &str| cdc.metric(&format!("takhin_cdc_source_{what}_{part}{{db=\"{db}\"}}"));
            until(what, || (at("filenum"), at("offset")) == end);
        }
        for lag in ["lag_bytes", "lag_seconds"] {
            let series = format!("takhin_cdc_{lag}{{db=\"{db}\"}}");
            until("there is no lag", || {
                has(cdc, &series) && cdc.metric(&series) == 0.0
            });
        }
    }
}

#[test]
fn positions_rates_and_failures() {
    let broker = Broker::shared();
    let master = master();
    let mut writer = Numbers::new(60);
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.start_and_wait();
    let written = |cdc: &Cdc| sum(cdc, "events_total", ",kind=\"binlog\"");
    let bytes = |cdc: &Cdc| cdc.metric("takhin_cdc_bytes_total");
    writer.write(&master, 300);
    wait(&master);
    until("they are counted", || written(&cdc) == 300.0);
    check_positions(&cdc, &master);
    // A record has a few hundred bytes, whatever is in it.
    let before = bytes(&cdc);
    assert!((300.0 * 300.0..300.0 * 3000.0).contains(&before), "{before}");
    assert_eq!(cdc.metric("takhin_cdc_queue_bytes"), 0.0);

    master.faults(|faults| faults.twice = Some(200));
    writer.write(&master, 200);
    wait(&master);
    until("they are counted", || written(&cdc) == 500.0);
    assert_eq!(sum(&cdc, "duplicate_items_total", ""), 1.0);
    assert!(bytes(&cdc) > before);
    check_positions(&cdc, &master);

    let ended = |reason: &str| cdc.metric(&format!("takhin_cdc_reconnects_total{{reason=\"{reason}\"}}"));
    assert_eq!((ended("closed"), ended("gap")), (0.0, 0.0));
    master.disconnect();
    until("its end is counted", || ended("closed") == 1.0);
    until("it has connected again", || master.slaves().len() == 2);
    writer.write(&master, 100);
    wait(&master);
    check_positions(&cdc, &master);

    assert_eq!(sum(&cdc, "gaps_total", ""), 0.0);
    master.faults(|faults| faults.leave_out = Some(350));
    writer.write(&master, 400);
    wait(&master);
    assert_eq!((sum(&cdc, "gaps_total", ""), ended("gap")), (1.0, 1.0));
    check_positions(&cdc, &master);
    let again = check(broker, &cdc, &writer);
    until("all are counted", || {
        written(&cdc) >= writer.written() as f64 + again as f64
    });
    assert_eq!(
        cdc.metric("takhin_cdc_full_resyncs_total{reason=\"initial\"}"),
        0.0
    );
}

/// A lag of 0 that nobody has seen for an hour is none.
#[test]
fn the_lag_grows_while_the_master_is_away() {
    let broker = Broker::shared();
    for has_log in [false, true] {
        let master = master();
        let mut writer = Numbers::new(61);
        let mut cdc = Cdc::new(&master, broker.kafka);
        cdc.set(&format!("wal.enabled={has_log}"));
        cdc.start_and_wait();
        writer.write(&master, 50);
        wait(&master);
        check_positions(&cdc, &master);
        drop(master);
        let seconds = |db: &str| cdc.metric(&format!("takhin_cdc_lag_seconds{{db=\"{db}\"}}"));
        for db in DATABASES {
            until("the lag grows", || seconds(db) >= 5.0);
            let before = seconds(db);
            until("it goes on growing", || seconds(db) > before);
            assert!(
                !has(&cdc, &format!("takhin_cdc_lag_bytes{{db=\"{db}\"}}")),
                "{db}"
            );
        }
        assert!(cdc.metric("takhin_cdc_reconnects_total{reason=\"connect\"}") >= 1.0);
    }
}

/// Whoever never comes so far as to save is the one to be seen.
#[test]
fn the_age_of_positions_is_there_before_the_first_one_is_saved() {
    let master = master();
    let mut cdc = Cdc::new(&master, free_address());
    cdc.start();
    let age = "takhin_cdc_checkpoint_age_seconds";
    until("it is there", || has(&cdc, age));
    until("it grows", || cdc.metric(age) > 1.0);
    assert_eq!(cdc.saved("db0"), None);
}
