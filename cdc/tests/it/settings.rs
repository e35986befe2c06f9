//! What settings say is so, and what is counted is counted.

use std::collections::BTreeMap;

use takhin_client::{Client, ConfigResource};
use takhin_pika_testing::master::{Master, Settings};

use crate::broker::{Broker, until};
use crate::cdc::Cdc;
use crate::events::{read_until, with_client};

/// The settings of a topic by name.
fn settings(broker: &Broker, topic: &str) -> BTreeMap<String, String> {
    with_client(broker.kafka, async |client: Client| {
        let wanted = [(ConfigResource::Topic(topic.to_owned()), None)];
        let mut found = client.describe_configs(&wanted).await.unwrap();
        let found = found.remove(0).1.unwrap();
        found
            .into_iter()
            .filter_map(|(name, setting)| Some((name, setting.value?)))
            .collect()
    })
}

#[test]
fn topics_are_made_as_the_settings_say() {
    // The topic of positions is that of all sources.
    let broker = Broker::start();
    let master = Master::start(Settings::default()).unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("sink.partitions=3")
        .set("sink.binlog_retention=2h")
        .set("sink.snapshot_retention=unlimited")
        .set("sink.max_record_size=2MiB");
    cdc.start_and_wait();
    for (name, retention) in [("binlog", "7200000"), ("snapshot", "-1")] {
        let found = settings(&broker, &cdc.topic(name));
        assert_eq!(
            (&*found["cleanup.policy"], &*found["retention.ms"]),
            ("delete", retention),
            "{name}"
        );
        let max: u64 = found["max.message.bytes"].parse().unwrap();
        assert!((2 << 20..3 << 20).contains(&max), "{name}: {max}");
    }
    assert_eq!(
        settings(&broker, "__pika_port_kafka_offsets")["cleanup.policy"],
        "compact"
    );
}

/// What is left out moves the position all the same.
#[test]
fn what_is_left_out_and_what_is_odd_is_counted() {
    let broker = Broker::shared();
    let master = Master::start(Settings::default()).unwrap();
    let mut cdc = Cdc::new(&master, broker.kafka);
    cdc.set("sink.partition_by=type_and_key")
        .set("filters.exclude_keys=[\"left*\"]")
        .set("telemetry.log_format=json");
    cdc.start_and_wait();
    master.execute("db0", &[b"set", b"key", b"1"]);
    master.execute("db0", &[b"frobnicate", b"key", b"2"]);
    master.execute("db0", &[b"sinterstore", b"to", b"a", b"b"]);
    master.execute("db0", &[b"hset", b"key", b"f", b"v"]);
    let before = master.end("db0");
    for _ in 0..3 {
        master.execute("db0", &[b"set", b"left out", b"1"]);
    }
    assert!(before < master.end("db0"));
    until("the position is behind what is left out", || {
        cdc.saved("db0") == Some(master.end("db0"))
    });
    until("it is counted", || {
        cdc.metric("takhin_cdc_filtered_total{rule=\"exclude_keys\"}") > 2.5
    });
    for (name, count) in [("unknown_commands", 1.0), ("more_keys", 1.0)] {
        let found = cdc.metric(&format!("takhin_cdc_{name}_total{{db=\"db0\"}}"));
        assert!((found - count).abs() < 0.5, "{name}: {found}");
    }
    let read = read_until(broker.kafka, &cdc.topic("binlog"), "four changes", |read| {
        read.len() >= 4
    });
    let mut keys: Vec<_> = read.iter().map(|event| event.key.clone()).collect();
    keys.sort();
    assert_eq!(
        keys,
        ["db0:hash:key", "db0:none:key", "db0:set:to", "db0:string:key"]
    );
    let lines = cdc.log();
    assert!(lines.lines().count() > 0);
    for line in lines.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string(), "{line}");
    }
}
