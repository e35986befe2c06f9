//! Changes of the metadata whose controller dies over them: done once, whether it had committed them or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use takhin_cluster::{Cluster, NewTopic, ReplicaChange};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Machine, Sim};
use uuid::Uuid;

use crate::nodes::{NAMES, Running, boot, boot_all, until};

/// Rounds with a death each: in the step of that number, a few milliseconds sooner or later.
const ROUNDS: usize = 36;
const STEPS: usize = 6;

fn controller(running: &Running) -> Option<usize> {
    let running = running.lock();
    let (place, _) = running
        .iter()
        .find(|(_, node)| node.controller_id() == node.node_id())?;
    (running.len() == NAMES.len()).then_some(*place)
}

/// What one client does, step by step.
async fn change(asked: &Cluster, name: &str, step: &AtomicUsize) {
    let next = || step.fetch_add(1, Ordering::Relaxed);
    let new = NewTopic {
        name: name.to_owned(),
        partitions: vec![vec![1, 2, 3]],
        overrides: BTreeMap::new(),
    };
    let topic = asked.create_topic(new).await.expect("a topic is created").id;
    let move_to = |replicas| {
        vec![ReplicaChange {
            topic_id: topic,
            index: 0,
            replicas,
            may_resize: true,
        }]
    };
    next();
    let added = asked.create_partitions(topic, 1, vec![vec![2, 3, 1]]).await;
    added.expect("a partition is added");
    assert_eq!(partitions(asked, topic), Some(2));
    next();
    let [begun] = &asked
        .reassign(move_to(Some(vec![1, 2])))
        .await
        .expect("a move is begun")[..]
    else {
        panic!("one outcome");
    };
    assert_eq!(*begun, Ok(()));
    next();
    asked.set_draining(3, true).await.expect("a broker is drained");
    next();
    asked.set_draining(3, false).await.expect("it leads again");
    next();
    asked.delete_topic(topic).await.expect("the topic is deleted");
    assert_eq!(partitions(asked, topic), None);
}

fn partitions(cluster: &Cluster, topic: Uuid) -> Option<usize> {
    cluster
        .image()
        .topic_by_id(topic)
        .map(|topic| topic.partitions.len())
}

#[test]
fn a_change_outlives_the_controller_that_dies_over_it() {
    let mut sim = Sim::new(101);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(100)..=Duration::from_millis(5));
    sim.run(|env: Env| async move {
        let running = boot_all(&machines);
        for round in 0..ROUNDS {
            until(&env, "a controller of three brokers", || {
                let brokers = |place: usize| running.lock()[&place].image().brokers.len();
                controller(&running).is_some_and(|place| brokers(place) == 3)
            })
            .await;
            let dies = controller(&running).unwrap();
            let asked = Arc::clone(&running.lock()[&((dies + 1) % 3)]);
            let step = Arc::new(AtomicUsize::new(0));
            let shared = Arc::clone(&step);
            let changing = env.tasks.spawn("changes", async move {
                change(&asked, &format!("topic-{round}"), &shared).await;
            });
            while step.load(Ordering::Relaxed) < round % STEPS {
                env.clock.sleep(Duration::from_millis(1)).await;
            }
            env.clock.sleep(Duration::from_millis(env.rng.range(0..20))).await;
            drop(running.lock().remove(&dies));
            machines[dies].crash(CrashMode::Process);
            changing.await.expect("all changes are made");
            boot(&machines, dies, &running);
        }
    });
}
