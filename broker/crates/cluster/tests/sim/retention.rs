//! Retention end to end: the log start moves by a replicated entry, the segments go, and a restart agrees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Cluster, Isolation, NewTopic, Partition, ReadError, ServedBy};
use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Sim};

use crate::world::start;

const SEGMENT: u32 = 8 << 10;
const TOPIC: &str = "short";

async fn short_lived(env: &Env, cluster: &Arc<Cluster>) -> Arc<Partition> {
    if cluster.image().topic(TOPIC).is_none() {
        let overrides = BTreeMap::from([("retention.ms".to_owned(), "60000".to_owned())]);
        cluster
            .create_topic(NewTopic {
                name: TOPIC.into(),
                partitions: vec![vec![1]],
                overrides,
            })
            .await
            .unwrap();
    }
    let id = cluster.image().topic(TOPIC).unwrap().id;
    loop {
        match cluster.partition(id, 0) {
            Some(partition) if partition.leadership().is_some() => return partition,
            _ => env.clock.sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn produce(env: &Env, partition: &Arc<Partition>) {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(NewRecord {
        timestamp: env.clock.now_ms(),
        key: None,
        value: Some(&[7; 1000]),
        headers: &[],
    });
    partition
        .produce(builder.build().unwrap(), Acks::All)
        .unwrap()
        .await
        .unwrap();
}

#[test]
fn expired_segments_go_and_a_restart_agrees() {
    let mut sim = Sim::new(3);
    let log_start = sim.run(|env| async move {
        let cluster = start(&env, SEGMENT).await.unwrap();
        let partition = short_lived(&env, &cluster).await;
        for _ in 0..50 {
            produce(&env, &partition).await;
        }
        let before = partition.log().unwrap().stats();
        assert!(
            before.segments.len() > 4,
            "the test needs several segments, has {}",
            before.segments.len()
        );
        // Two retention rounds past the limit: one moves the log start, the next may purge.
        env.clock.sleep(Duration::from_secs(60 + 900)).await;
        let after = partition.log().unwrap().stats();
        assert!(
            after.bytes < before.bytes / 4,
            "{} of {} bytes are left",
            after.bytes,
            before.bytes
        );
        let start = partition.offsets().log_start_offset;
        assert!(start > 0);
        let below = partition.fetch(0, 1 << 20, true, Isolation::ReadUncommitted, ServedBy::Leader);
        assert!(matches!(
            below,
            Err(ReadError::OffsetOutOfRange { requested: 0, .. })
        ));
        produce(&env, &partition).await;
        start
    });
    sim.crash(CrashMode::Process);
    sim.run(|env| async move {
        let cluster = start(&env, SEGMENT).await.unwrap();
        let partition = short_lived(&env, &cluster).await;
        assert_eq!(
            partition.offsets().log_start_offset,
            log_start,
            "the log start went back"
        );
        assert_eq!(partition.offsets().high_watermark, 51);
        cluster.stop().await;
    });
}
