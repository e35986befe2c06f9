//! Replicas that the cluster moves by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Cluster, NewTopic, ReplicaChange};
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{CONVERGENCE, NAMES, SEEDS, SEGMENT_BYTES, boot, boot_all, until};
use crate::world::start_node;

/// As long as a silent broker is not fenced yet, less a bit.
const SILENCE: Duration = Duration::from_secs(8);

/// Partitions that have a replica on a broker, or are to have one.
fn replicas_of(cluster: &Cluster, broker: i32) -> usize {
    let image = cluster.image();
    let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
    let is_on = |replicas: &[i32]| replicas.contains(&broker);
    partitions
        .filter(|partition| {
            let moving = partition.reassignment.as_ref();
            is_on(&partition.replicas) || moving.is_some_and(|moving| is_on(&moving.target))
        })
        .count()
}

/// A broker joins and dies before anything was moved onto it. Nobody knows whether it comes back, also if for a moment nobody
/// hears of anybody.
#[test]
fn nothing_is_moved_to_a_broker_that_has_just_died() {
    let mut sim = Sim::new(111);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let newcomer = sim.add_machine("n4");
    let net = sim.net().clone();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        until(&env, "three brokers", || {
            let running = running.lock();
            running.len() == 3 && running.values().all(|node| node.image().brokers.len() == 3)
        })
        .await;
        let cluster = Arc::clone(&running.lock()[&0]);
        let new = NewTopic {
            name: "even".into(),
            partitions: [[1, 2], [2, 3], [3, 1]]
                .repeat(4)
                .into_iter()
                .map(Vec::from)
                .collect(),
            overrides: BTreeMap::new(),
        };
        cluster.create_topic(new).await.unwrap();
        let own = newcomer.env();
        let joining = async move {
            let _ = start_node(&own, 4, "n4:33145", &SEEDS, SEGMENT_BYTES).await;
        };
        drop(newcomer.env().tasks.spawn("join", joining));
        until(&env, "a broker is taken in", || {
            cluster.image().brokers.contains_key(&4)
        })
        .await;
        newcomer.crash(CrashMode::Process);
        assert_eq!(replicas_of(&cluster, 4), 0, "it died too late for this test");
        let end = env.clock.instant() + SILENCE;
        while env.clock.instant() < end {
            assert_eq!(replicas_of(&cluster, 4), 0, "replicas go to a dead broker");
            assert!(!cluster.is_fenced(4), "it was silent for too long for this test");
            env.clock.sleep(Duration::from_millis(100)).await;
        }

        // Those who decide hear of nobody for a while, and of one after the other then.
        for round in 0..10 {
            NAMES.iter().for_each(|name| net.isolate(name));
            env.clock.sleep(Duration::from_millis(1500 + 70 * round)).await;
            net.heal_all();
            env.clock.sleep(Duration::from_secs(4)).await;
            assert_eq!(replicas_of(&cluster, 4), 0, "replicas go to a dead broker");
        }

        let own = newcomer.env();
        let started = start_node(&own, 4, "n4:33145", &SEEDS, SEGMENT_BYTES);
        let started = env.clock.timeout(CONVERGENCE, started).await;
        let started = started.expect("it comes back").unwrap();
        until(&env, "it gets its share", || {
            replicas_of(&cluster, 4) == 6 && cluster.image().reassigning.is_empty()
        })
        .await;
        started.stop().await;
    });
}

/// More than those of one leader of which the replicas catch up at a time.
const MANY: i32 = 40;

/// Of what has been written nothing: a move takes a few steps.
const MOVED: Duration = Duration::from_secs(15);

/// Somebody moves replicas to a broker that is dead. That is not taken back, and keeps no other move of the leader's waiting.
#[test]
fn moves_to_a_broker_that_is_dead_keep_no_other_waiting() {
    let mut sim = Sim::new(112);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        until(&env, "three brokers", || {
            let running = running.lock();
            running.len() == 3 && running.values().all(|node| node.image().brokers.len() == 3)
        })
        .await;
        let cluster = Arc::clone(&running.lock()[&0]);
        let new = NewTopic {
            name: "moved".into(),
            partitions: (0..=MANY).map(|_| vec![1]).collect(),
            overrides: BTreeMap::new(),
        };
        let topic = cluster.create_topic(new).await.unwrap().id;
        until(&env, "all lead", || {
            (0..=MANY).all(|index| cluster.leadership(topic, index).is_some())
        })
        .await;
        let to = |broker: i32, partitions: std::ops::Range<i32>| {
            let change = |index| ReplicaChange {
                topic_id: topic,
                index,
                replicas: Some(vec![1, broker]),
                may_resize: true,
            };
            partitions.map(change).collect::<Vec<_>>()
        };
        drop(running.lock().remove(&2));
        machines[2].crash(CrashMode::Process);
        let begun = cluster.reassign(to(3, 0..MANY)).await.unwrap();
        assert!(begun.iter().all(Result::is_ok), "{begun:?}");
        let begun = cluster.reassign(to(2, MANY..MANY + 1)).await.unwrap();
        assert!(begun.iter().all(Result::is_ok), "{begun:?}");
        let moving = || cluster.image().reassigning.len();
        let most = usize::try_from(MANY).unwrap();
        let took = until(&env, "the one that can be moved is", || moving() == most).await;
        assert!(took < MOVED, "{took:?}");
        boot(&machines, 2, &running);
        let took = until(&env, "the others are, once the broker is back", || moving() == 0).await;
        assert!(took < MOVED, "{took:?}");
    });
}
