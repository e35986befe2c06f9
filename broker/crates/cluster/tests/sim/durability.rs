//! A topic's durability changes while it takes records: what was acknowledged is as safe as the topic is at any moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Cluster, ConfigTarget, NewTopic, Partition};
use takhin_config::alter::{Change, Operation};
use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Op, Sim};

use crate::world::start;

const TOPIC: &str = "changing";

async fn create(cluster: &Arc<Cluster>, durability: &str) {
    let overrides = BTreeMap::from([("takhin.durability".to_owned(), durability.to_owned())]);
    let new = NewTopic {
        name: TOPIC.into(),
        partitions: vec![vec![1]],
        overrides,
    };
    cluster.create_topic(new).await.unwrap();
}

async fn led(env: &Env, cluster: &Cluster) -> Arc<Partition> {
    let id = cluster.image().topic(TOPIC).unwrap().id;
    loop {
        match cluster.partition(id, 0) {
            Some(partition) if partition.leadership().is_some() => return partition,
            _ => env.clock.sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn produce(partition: &Arc<Partition>) -> i64 {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(NewRecord {
        timestamp: 1,
        key: None,
        value: Some(&[7; 100]),
        headers: &[],
    });
    let ticket = partition.produce(builder.build().unwrap(), Acks::All).unwrap();
    ticket.await.unwrap().base_offset
}

async fn set(cluster: &Cluster, durability: &str) {
    let edit = (
        "takhin.durability".to_owned(),
        Operation::Set(durability.to_owned()),
    );
    let target = ConfigTarget::Topic(TOPIC.to_owned());
    cluster
        .alter_config(&target, &Change::Edit(vec![edit]), false)
        .await
        .unwrap();
}

/// Runs a first life, cuts the power, and returns the log end of the second.
fn log_end_after_power_cut(sim: &mut Sim) -> i64 {
    sim.crash(CrashMode::Power);
    sim.run(|env| async move {
        let cluster = start(&env, 1 << 16).await.unwrap();
        let end = led(&env, &cluster).await.offsets().log_end_offset;
        cluster.stop().await;
        end
    })
}

#[test]
fn what_a_topic_took_before_it_became_flushed_survives_a_power_cut() {
    for seed in 0..8 {
        let mut sim = Sim::new(seed);
        let flushed = seed % 2 == 0;
        sim.run(move |env| async move {
            let cluster = start(&env, 1 << 16).await.unwrap();
            create(&cluster, "cached").await;
            let partition = led(&env, &cluster).await;
            for _ in 0..20 {
                produce(&partition).await;
            }
            if flushed {
                set(&cluster, "flushed").await;
            }
        });
        let end = log_end_after_power_cut(&mut sim);
        if flushed {
            assert_eq!(end, 20, "seed {seed}");
        } else {
            assert!(
                end < 20,
                "the crash model keeps unsynced bytes: the test shows nothing"
            );
        }
    }
}

/// openraft's own assertions watch over the order of completions here.
#[test]
fn records_stay_in_order_while_durability_goes_back_and_forth() {
    for seed in 0..8 {
        let mut sim = Sim::new(seed);
        sim.disk()
            .set_latency(Op::SyncData, Duration::from_millis(1)..=Duration::from_millis(20));
        sim.run(|env| async move {
            let cluster = start(&env, 1 << 16).await.unwrap();
            create(&cluster, "flushed").await;
            let partition = led(&env, &cluster).await;
            let producing = async {
                let (partition, env) = (&partition, &env);
                let producers = (0..4).map(|_| async move {
                    let mut offsets = Vec::new();
                    for _ in 0..100 {
                        offsets.push(produce(partition).await);
                        env.clock
                            .sleep(Duration::from_micros(env.rng.range(10..3000)))
                            .await;
                    }
                    offsets
                });
                futures_util::future::join_all(producers).await
            };
            let changing = async {
                for round in 0..40 {
                    set(&cluster, if round % 2 == 0 { "cached" } else { "flushed" }).await;
                    env.clock.sleep(Duration::from_millis(3)).await;
                }
            };
            let (offsets, ()) = tokio::join!(producing, changing);
            let mut all: Vec<i64> = offsets.into_iter().flatten().collect();
            all.sort_unstable();
            assert_eq!(all, (0..400).collect::<Vec<_>>());
        });
        assert_eq!(
            log_end_after_power_cut(&mut sim),
            400,
            "the topic was flushed at the end"
        );
    }
}
