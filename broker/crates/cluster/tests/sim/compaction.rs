//! Compaction end to end: entries are purged, segments rewritten while records come in, and a restart agrees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Cluster, ConfigTarget, Isolation, NewTopic, Partition, ServedBy};
use takhin_config::alter::{Change, Operation};
use takhin_protocol::record::{BatchBuilder, Compression, HEADER_LEN, NewRecord, Records, scan};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Sim};

use crate::world::start;

const SEGMENT: u32 = 8 << 10;
const TOPIC: &str = "compacted";

async fn compacted(env: &Env, cluster: &Arc<Cluster>) -> Arc<Partition> {
    if cluster.image().topic(TOPIC).is_none() {
        let overrides = [
            ("cleanup.policy", "compact"),
            ("max.compaction.lag.ms", "600000"),
            ("retention.ms", "1"),
        ];
        let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let new = NewTopic {
            name: TOPIC.into(),
            partitions: vec![vec![1]],
            overrides: BTreeMap::from(overrides),
        };
        cluster.create_topic(new).await.unwrap();
    }
    let id = cluster.image().topic(TOPIC).unwrap().id;
    loop {
        match cluster.partition(id, 0) {
            Some(partition) if partition.leadership().is_some() => return partition,
            _ => env.clock.sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One record under `key`, whose value says how many there were before; idempotent, so that the log remembers.
async fn produce(env: &Env, partition: &Arc<Partition>, key: u8, count: i32) {
    let mut value = count.to_be_bytes().to_vec();
    value.resize(500, 0);
    let mut builder = BatchBuilder::new(Compression::Lz4).producer(7, 0, count);
    builder.push(NewRecord {
        timestamp: env.clock.now_ms(),
        key: Some(&[key]),
        value: Some(&value),
        headers: &[],
    });
    let batch = builder.build().unwrap();
    partition.produce(batch, Acks::All).unwrap().await.unwrap();
}

/// Offset and number by key as a consumer learns them from the beginning, and how many records it reads.
fn consume(partition: &Partition) -> (BTreeMap<u8, (i64, i32)>, usize) {
    let (mut last, mut count) = (BTreeMap::new(), 0);
    let mut from = partition.offsets().log_start_offset;
    loop {
        let fetched = partition
            .fetch(from, 1 << 20, true, Isolation::ReadUncommitted, ServedBy::Leader)
            .unwrap();
        let bytes = fetched.ranges.read_all().unwrap();
        if bytes.is_empty() {
            assert_eq!(
                from, fetched.offsets.high_watermark,
                "the consumer does not reach the end"
            );
            return (last, count);
        }
        from = fetched.ranges.next_offset;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (header, len) = scan::check(rest).unwrap();
            let codec = Compression::from_id(header.attributes.compression()).unwrap();
            let body = takhin_protocol::record::decompress(codec, &rest[HEADER_LEN..len], 1 << 20).unwrap();
            for record in Records::new(&body, header.records_count) {
                let record = record.unwrap();
                let number = i32::from_be_bytes(record.value.unwrap()[..4].try_into().unwrap());
                last.insert(
                    record.key.unwrap()[0],
                    (header.base_offset + i64::from(record.offset_delta), number),
                );
                count += 1;
            }
            rest = &rest[len..];
        }
    }
}

#[test]
fn a_compacted_topic_keeps_the_last_value_of_each_key_and_a_restart_agrees() {
    for (seed, mode) in [
        (3, CrashMode::Process),
        (4, CrashMode::Power),
        (5, CrashMode::Power),
    ] {
        let mut sim = Sim::new(seed);
        let before = sim.run(|env| async move {
            let cluster = start(&env, SEGMENT).await.unwrap();
            let partition = compacted(&env, &cluster).await;
            for count in 0..300 {
                let key = u8::try_from(count % 5).unwrap();
                produce(&env, &partition, key, count).await;
                // Passes run in between.
                env.clock.sleep(Duration::from_millis(400)).await;
            }
            let (last, _) = consume(&partition);
            let numbers: Vec<_> = last.values().copied().collect();
            assert_eq!(
                numbers,
                [(295, 295), (296, 296), (297, 297), (298, 298), (299, 299)]
            );
            // Long after the last record the lag closes even the last segment.
            env.clock.sleep(Duration::from_secs(700)).await;
            let (again, count) = consume(&partition);
            assert_eq!((&again, count), (&last, 5), "only the last of each key is left");
            let log = partition.log().unwrap();
            assert!(log.end().purged.is_some() && log.stats().bytes < 4 << 10);
            assert_eq!(
                partition.offsets().log_start_offset,
                0,
                "the topic has no retention"
            );
            produce(&env, &partition, 1, 300).await;
            consume(&partition)
        });
        sim.crash(mode);
        sim.run(|env| async move {
            let cluster = start(&env, SEGMENT).await.unwrap();
            let partition = compacted(&env, &cluster).await;
            assert_eq!(consume(&partition), before);
            assert_eq!(partition.offsets().high_watermark, 301);
            // The producer goes on where it was.
            produce(&env, &partition, 2, 301).await;
            cluster.stop().await;
        });
    }
}

async fn set_pause(cluster: &Cluster, ms: &str) {
    let edit = ("log.cleaner.backoff.ms".to_owned(), Operation::Set(ms.to_owned()));
    let change = Change::Edit(vec![edit]);
    cluster
        .alter_config(&ConfigTarget::Broker(None), &change, false)
        .await
        .unwrap();
}

#[test]
fn the_pause_between_passes_changes_while_it_lasts() {
    Sim::new(6).run(|env| async move {
        let cluster = start(&env, SEGMENT).await.unwrap();
        set_pause(&cluster, "86400000").await;
        let partition = compacted(&env, &cluster).await;
        for count in 0..60 {
            let key = u8::try_from(count % 5).unwrap();
            produce(&env, &partition, key, count).await;
        }
        env.clock.sleep(Duration::from_secs(700)).await;
        assert_eq!(consume(&partition).1, 60);
        set_pause(&cluster, "1000").await;
        env.clock.sleep(Duration::from_secs(700)).await;
        assert_eq!(consume(&partition).1, 5);
        cluster.stop().await;
    });
}
