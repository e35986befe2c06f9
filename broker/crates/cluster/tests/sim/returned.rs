//! A replica that left a broker and came back to it: the directory holds another one than before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, NewTopic};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Machine, Sim};
use takhin_storage::{DataDir, Expected};
use uuid::Uuid;

use crate::nodes::{NAMES, Running, TOPIC, boot, boot_all, converge, leader, reassign, until};
use crate::world::{Producer, batch};

async fn move_to(env: &Env, running: &Running, replicas: &[i32]) {
    let asked = Arc::clone(&running.lock()[&1]);
    reassign(&asked, Some(replicas.to_vec())).await;
    until(env, "the replicas are moved", || {
        let nodes = running.lock();
        nodes.values().all(|node| {
            let image = node.image();
            let topic = image.topic(TOPIC).unwrap();
            let is_here = node.partition(topic.id, 0).is_some();
            image.reassigning.is_empty()
                && topic.partitions[0].replicas == replicas
                && is_here == replicas.contains(&node.node_id())
        })
    })
    .await;
}

/// What a broker hears first of how far its metadata are committed may be from before its replica left. Opened as the one of
/// then, the files would be deleted as those of one that has left, and there are no others.
#[test]
fn the_only_replica_is_there_after_a_restart() {
    for seed in 141..149 {
        let mut sim = Sim::new(seed);
        let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
        sim.net()
            .set_default_delay(Duration::from_micros(100)..=Duration::from_millis(2));
        sim.run(|env| async move {
            let running = boot_all(&machines);
            drop(leader(&env, &running).await);
            converge(&env, &running).await;
            for replicas in [&[1, 2][..], &[2, 3], &[1]] {
                move_to(&env, &running, replicas).await;
            }
            let mut producer = Producer {
                pending: Some(10),
                ..Producer::default()
            };
            let led = leader(&env, &running).await;
            led.produce(batch(1, &producer, 10), Acks::All)
                .unwrap()
                .await
                .unwrap();
            producer.answered(10);
            drop(led);
            for _ in 0..4 {
                // Whoever is the controller then finds out by halves how far the others are.
                for (place, machine) in machines.iter().enumerate() {
                    running.lock().remove(&place);
                    machine.crash(CrashMode::Process);
                    boot(&machines, place, &running);
                }
                until(&env, "all are back", || running.lock().len() == NAMES.len()).await;
                let led = leader(&env, &running).await;
                assert_eq!(led.offsets().high_watermark, 10, "seed {seed}");
            }
        });
    }
}

/// As `raft/hard_state.rs` writes it.
const IMAGE: &[u8] = b"node.image";

/// The journal says for how new an image replicas were made: nothing is opened for one that is older.
#[test]
fn a_broker_that_has_heard_less_than_before_waits() {
    let mut sim = Sim::new(150);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader(&env, &running).await);
        converge(&env, &running).await;
        let seen = running.lock()[&1].image().end_offset;
        running.lock().remove(&0);
        machines[0].crash(CrashMode::Process);
        let disk = machines[0].env().disk;
        let expected = Expected {
            node_id: 1,
            cluster_id: None,
            new_directory_id: Uuid::nil(),
            now_ms: env.clock.now_ms(),
        };
        let dir = DataDir::open(disk, "data".as_ref(), &expected).unwrap();
        let mut value = dir.journal().get(IMAGE).expect("it is written down");
        let end = i64::from_be_bytes(value[1..].try_into().unwrap());
        assert!((1..=seen).contains(&end), "{end} of {seen}");
        value[1..].copy_from_slice(&(seen + 1).to_be_bytes());
        dir.journal().put(&[(IMAGE.to_vec(), Some(value))], true).unwrap();
        dir.close().unwrap();
        boot(&machines, 0, &running);
        env.clock.sleep(Duration::from_secs(30)).await;
        assert!(!running.lock().contains_key(&0), "it knows less than it did");
        let other = Arc::clone(&running.lock()[&1]);
        let new = NewTopic {
            name: "new".into(),
            partitions: vec![vec![2]],
            overrides: BTreeMap::new(),
        };
        other.create_topic(new).await.unwrap();
        drop(other);
        until(&env, "it is back", || running.lock().contains_key(&0)).await;
        until(&env, "its replica is open", || {
            let node = Arc::clone(&running.lock()[&0]);
            let topic = node.image().topic(TOPIC).unwrap().id;
            node.partition(topic, 0).is_some_and(|it| it.log().is_some())
        })
        .await;
    });
}
