//! The client against a cluster in memory, in simulated time.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod coordinator;
mod transactions;

use std::time::Duration;

use bytes::Bytes;
use takhin_client::{
    Client, ClientConfig, ClientError, Connection, Consumer, ConsumerConfig, OffsetSpec, Producer,
    ProducerConfig, Record,
};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{MetadataRequest, ProduceRequest};
use takhin_runtime::Env;
use takhin_runtime::sim::Sim;

use cluster::{Cluster, Moods, REFUSED, TOPIC};

const MOODY: Moods = Moods {
    drop_before: 0.05,
    drop_after: 0.1,
    move_leader: 0.05,
    ancient: false,
    confused: false,
};

fn client(env: Env) -> Client {
    let config = ClientConfig {
        request_timeout: Duration::from_secs(5),
        ..ClientConfig::new(Cluster::bootstrap())
    };
    Client::new(env, config)
}

/// Records whose values name them, `count` of them.
fn records(name: u32, count: u32) -> Vec<Record> {
    (0..count).map(|i| Record::of(format!("{name}.{i}"))).collect()
}

#[test]
fn an_idempotent_producer_neither_loses_nor_doubles_nor_reorders() {
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let (cluster, machines) = Cluster::new(&mut sim, MOODY);
        let at = cluster.clone();
        let expected = sim.run(|env| async move {
            at.start(&machines).await;
            let producer = Producer::new(client(env.clone()), ProducerConfig::default());
            let mut deliveries = Vec::new();
            for name in 0..100_u32 {
                let count = 1 + name % 3;
                deliveries.push((
                    name,
                    count,
                    producer.enqueue(TOPIC, 0, records(name, count)).await.unwrap(),
                ));
            }
            let mut expected = Vec::new();
            for (name, count, delivery) in deliveries {
                let offset = delivery.wait().await.unwrap();
                expected
                    .extend((0..count).map(|i| (offset + i64::from(i), Bytes::from(format!("{name}.{i}")))));
            }
            expected
        });
        assert_eq!(cluster.values(), expected, "seed {seed}");
    }
}

#[test]
fn the_first_batch_of_a_producer_is_there_before_the_second_is_sent() {
    for seed in 0..100 {
        let mut sim = Sim::new(seed);
        let moods = Moods {
            move_leader: 0.5,
            ..Moods::default()
        };
        let (cluster, machines) = Cluster::new(&mut sim, moods);
        let at = cluster.clone();
        sim.run(|env| async move {
            at.start(&machines).await;
            let producer = Producer::new(client(env), ProducerConfig::default());
            let mut deliveries = Vec::new();
            for name in 0..5 {
                deliveries.push(producer.enqueue(TOPIC, 0, records(name, 1)).await.unwrap());
            }
            for delivery in deliveries {
                delivery.wait().await.unwrap();
            }
        });
        let values: Vec<_> = cluster.values().into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["0.0", "1.0", "2.0", "3.0", "4.0"], "seed {seed}");
    }
}

#[test]
fn a_refused_batch_takes_no_other_with_it() {
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        let (cluster, machines) = Cluster::new(
            &mut sim,
            Moods {
                move_leader: 0.1,
                ..Moods::default()
            },
        );
        let at = cluster.clone();
        sim.run(|env| async move {
            at.start(&machines).await;
            let producer = Producer::new(client(env), ProducerConfig::default());
            let mut deliveries = Vec::new();
            for name in 0..40_u32 {
                let records = if name % 7 == 3 {
                    vec![Record::of(REFUSED)]
                } else {
                    records(name, 1)
                };
                deliveries.push(producer.enqueue(TOPIC, 0, records).await.unwrap());
            }
            for (name, delivery) in deliveries.into_iter().enumerate() {
                let outcome = delivery.wait().await;
                if name % 7 == 3 {
                    let refused = ErrorCode::InvalidRecord;
                    assert!(
                        matches!(outcome, Err(ClientError::Code { code, .. }) if code == refused),
                        "{outcome:?}"
                    );
                } else {
                    outcome.unwrap();
                }
            }
        });
        let kept: Vec<_> = (0..40)
            .filter(|name| name % 7 != 3)
            .map(|name| Bytes::from(format!("{name}.0")))
            .collect();
        let values: Vec<_> = cluster.values().into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, kept, "seed {seed}");
    }
}

#[test]
fn what_is_given_up_is_unknown_and_never_appears_twice() {
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        let (cluster, machines) = Cluster::new(&mut sim, MOODY);
        let (at, net) = (cluster.clone(), sim.net().clone());
        let acknowledged = sim.run(|env| async move {
            at.start(&machines).await;
            let config = ProducerConfig {
                delivery_timeout: Duration::from_secs(20),
                ..ProducerConfig::default()
            };
            let producer = Producer::new(client(env.clone()), config);
            producer.send_batch(TOPIC, 0, records(0, 1)).await.unwrap();
            let mut deliveries = Vec::new();
            for name in 1..30_u32 {
                deliveries.push((name, producer.enqueue(TOPIC, 0, records(name, 1)).await.unwrap()));
                if name == 10 {
                    // For longer than a batch is tried.
                    env.clock.sleep(Duration::from_millis(2)).await;
                    ["b0", "b1"].iter().for_each(|broker| net.block("main", broker));
                }
            }
            let heal = async {
                env.clock.sleep(Duration::from_secs(60)).await;
                ["b0", "b1"].iter().for_each(|broker| net.heal("main", broker));
            };
            let outcomes = async {
                let mut acknowledged = vec![0];
                let mut failed = 0;
                for (name, delivery) in deliveries {
                    match delivery.wait().await {
                        Ok(_) => acknowledged.push(name),
                        Err(e) => {
                            assert!(e.is_unknown_outcome(), "{e}");
                            failed += 1;
                        }
                    }
                }
                assert!(failed > 0, "the cut was meant to be felt");
                acknowledged
            };
            let ((), mut acknowledged) = tokio::join!(heal, outcomes);
            for name in 30..40 {
                producer.send_batch(TOPIC, 0, records(name, 1)).await.unwrap();
                acknowledged.push(name);
            }
            acknowledged
        });
        let names = cluster.values().into_iter().map(|(_, value)| {
            let text = String::from_utf8(value.to_vec()).unwrap();
            text.split('.').next().unwrap().parse::<u32>().unwrap()
        });
        let names: Vec<_> = names.collect();
        assert!(names.is_sorted_by(|a, b| a < b), "seed {seed}: {names:?}");
        assert!(
            acknowledged.iter().all(|name| names.contains(name)),
            "seed {seed}: {names:?}"
        );
    }
}

#[test]
fn a_consumer_sees_every_record_once_through_drops_and_elections() {
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        let (cluster, machines) = Cluster::new(&mut sim, MOODY);
        let at = cluster.clone();
        sim.run(|env| async move {
            at.start(&machines).await;
            let client = client(env);
            let producer = Producer::new(client.clone(), ProducerConfig::default());
            for name in 0..20 {
                producer.send_batch(TOPIC, 0, records(name, 5)).await.unwrap();
            }
            assert_eq!(
                client.offset(TOPIC, 0, OffsetSpec::Latest).await.unwrap(),
                Some(100)
            );
            let mut consumer = Consumer::new(client, ConsumerConfig::default());
            // In the middle of a batch.
            consumer.assign(TOPIC, 0, 7);
            let mut offsets = Vec::new();
            while consumer.position(TOPIC, 0) < Some(100) {
                for consumed in consumer.poll().await.unwrap() {
                    let name = format!("{}.{}", consumed.offset / 5, consumed.offset % 5);
                    assert_eq!(consumed.record.value.as_deref(), Some(name.as_bytes()));
                    offsets.push(consumed.offset);
                }
            }
            assert_eq!(offsets, (7..100).collect::<Vec<_>>(), "seed {seed}");
        });
    }
}

#[test]
fn damage_and_positions_out_of_range_are_told() {
    let mut sim = Sim::new(1);
    let (cluster, machines) = Cluster::new(&mut sim, Moods::default());
    sim.run(|env| async move {
        cluster.start(&machines).await;
        let client = client(env);
        let producer = Producer::new(client.clone(), ProducerConfig::default());
        for name in 0..2 {
            producer.send_batch(TOPIC, 0, records(name, 1)).await.unwrap();
        }
        let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default());
        consumer.assign(TOPIC, 0, 3);
        let outcome = consumer.poll().await;
        assert!(
            matches!(outcome, Err(ClientError::OffsetOutOfRange { offset: 3, .. })),
            "{outcome:?}"
        );
        let reset = ConsumerConfig {
            reset: Some(OffsetSpec::Latest),
            ..ConsumerConfig::default()
        };
        let mut consumer = Consumer::new(client.clone(), reset);
        consumer.assign(TOPIC, 0, 3);
        assert!(consumer.poll().await.unwrap().is_empty());
        assert_eq!(consumer.position(TOPIC, 0), Some(2));

        cluster.damage(1);
        let mut consumer = Consumer::new(client, ConsumerConfig::default());
        consumer.assign(TOPIC, 0, 0);
        let outcome = consumer.poll().await;
        assert!(
            matches!(outcome, Err(ClientError::Damaged { offset: 1, .. })),
            "{outcome:?}"
        );
        assert_eq!(consumer.position(TOPIC, 0), Some(0));
    });
}

#[test]
fn connections_negotiate_keep_deadlines_and_notice_confusion() {
    let mut sim = Sim::new(1);
    let (cluster, machines) = Cluster::new(
        &mut sim,
        Moods {
            ancient: true,
            ..Moods::default()
        },
    );
    let net = sim.net().clone();
    sim.run(|env| async move {
        cluster.start(&machines).await;
        let config = ClientConfig {
            max_in_flight: 2,
            ..ClientConfig::new(Cluster::bootstrap())
        };
        let connection = Connection::open(&env, &config, "b0:9092").await.unwrap();
        assert_eq!(connection.version::<ProduceRequest>(i16::MAX).unwrap(), 12);
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));

        // The third waits for a place, and all three answers are lost.
        net.block("main", "b0");
        let begin = env.clock.instant();
        let (mut first, mut second) = (
            connection.send(9, &request).await.unwrap(),
            connection.send(9, &request).await.unwrap(),
        );
        let third = env
            .clock
            .timeout(Duration::from_secs(10), connection.send(9, &request))
            .await;
        assert!(third.is_err(), "two are in flight");
        assert!(matches!(first.wait().await, Err(ClientError::TimedOut { .. })));
        assert_eq!(begin.elapsed().as_secs(), config.request_timeout.as_secs());
        assert!(matches!(
            second.wait().await,
            Err(ClientError::Closed { .. } | ClientError::TimedOut { .. })
        ));
        assert!(matches!(
            connection.send(9, &request).await,
            Err(ClientError::Closed { .. })
        ));
        net.heal("main", "b0");

        cluster.0.lock().unwrap().moods.confused = true;
        let connection = Connection::open(&env, &config, "b0:9092").await.unwrap();
        assert!(matches!(
            connection.call(&request).await,
            Err(ClientError::Mismatch { .. })
        ));
        let small = ClientConfig {
            max_response_bytes: 20,
            ..config
        };
        let refused = Connection::open(&env, &small, "b0:9092").await;
        assert!(matches!(refused, Err(ClientError::Frame { .. })), "{refused:?}");
    });
}
