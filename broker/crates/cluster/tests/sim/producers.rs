//! Idempotent producers that stop writing are forgotten, in the time that is set while the node runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Cluster, ConfigTarget, NewTopic, Partition};
use takhin_config::alter::{Change, Operation};
use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
use takhin_runtime::Env;
use takhin_runtime::sim::Sim;

use crate::world::start;

const TOPIC: &str = "t";

async fn led(env: &Env, cluster: &Arc<Cluster>) -> Arc<Partition> {
    let new = NewTopic {
        name: TOPIC.into(),
        partitions: vec![vec![1]],
        overrides: BTreeMap::new(),
    };
    let id = cluster.create_topic(new).await.unwrap().id;
    loop {
        match cluster.partition(id, 0) {
            Some(partition) if partition.leadership().is_some() => return partition,
            _ => env.clock.sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn produce(env: &Env, partition: &Arc<Partition>, producer: i64, sequence: i32) {
    let mut builder = BatchBuilder::new(Compression::None).producer(producer, 0, sequence);
    builder.push(NewRecord {
        timestamp: env.clock.now_ms(),
        key: None,
        value: Some(b"v"),
        headers: &[],
    });
    let batch = builder.build().unwrap();
    partition.produce(batch, Acks::All).unwrap().await.unwrap();
}

fn remembered(partition: &Partition) -> Vec<i64> {
    let log = partition.log().unwrap();
    log.with_producers(|table| table.iter().map(|(id, _)| id).collect())
}

#[test]
fn a_producer_that_stops_is_forgotten_and_one_that_goes_on_is_not() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    Sim::new(5).run(move |env| async move {
        let cluster = start(&env, 1 << 16).await.unwrap();
        let partition = led(&env, &cluster).await;
        let twenty_minutes = (
            "producer.id.expiration.ms".to_owned(),
            Operation::Set("1200000".to_owned()),
        );
        let change = Change::Edit(vec![twenty_minutes]);
        let all = ConfigTarget::Broker(None);
        cluster.alter_config(&all, &change, false).await.unwrap();
        produce(&env, &partition, 7, 0).await;
        produce(&env, &partition, 8, 0).await;
        env.clock.sleep(minutes(15)).await;
        produce(&env, &partition, 8, 1).await;
        assert_eq!(remembered(&partition), [7, 8]);
        // The look after ten minutes found them fresh, as does that after twenty; the third is the one.
        env.clock.sleep(minutes(16)).await;
        assert_eq!(remembered(&partition), [8]);
        // Where it went on writing it begins anew.
        produce(&env, &partition, 7, 5).await;
        assert_eq!(remembered(&partition), [7, 8]);
        cluster.stop().await;
    });
}
