//! A broker dies: everything that it led is led by others soon, whether it was written to or at rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Cluster, NewTopic};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{CONVERGENCE, NAMES, Running, boot, boot_all};

const PARTITIONS: usize = 60;

/// From the death to the last election, in virtual time: the brokers are missed after 600 ms, and the first candidate is the
/// next in the order of replicas.
const FAILOVER: Duration = Duration::from_millis(1500);

async fn until(env: &Env, what: &str, so: impl Fn() -> bool) -> Duration {
    let begun = env.clock.instant();
    let waiting = async {
        while !so() {
            env.clock.sleep(Duration::from_millis(10)).await;
        }
    };
    env.clock.timeout(CONVERGENCE, waiting).await.expect(what);
    begun.elapsed()
}

fn all(running: &Running, so: impl Fn(&Cluster) -> bool) -> bool {
    let nodes: Vec<Arc<Cluster>> = running.lock().values().cloned().collect();
    nodes.iter().all(|node| so(node))
}

#[test]
fn the_partitions_of_a_broker_that_dies_are_led_by_others_at_once() {
    let mut sim = Sim::new(91);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(100)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        until(&env, "the cluster forms", || {
            running.lock().len() == 3 && all(&running, |node| node.image().brokers.len() == 3)
        })
        .await;
        let first = Arc::clone(&running.lock()[&0]);
        let new = NewTopic {
            name: "many".into(),
            partitions: (0..PARTITIONS)
                .map(|index| {
                    let mut replicas = vec![1, 2, 3];
                    replicas.rotate_left(index % 3);
                    replicas
                })
                .collect(),
            overrides: BTreeMap::new(),
        };
        let topic = first.create_topic(new).await.unwrap().id;
        drop(first);
        let is_led = |node: &Cluster, without: i32| {
            (0..).take(PARTITIONS).all(|index| {
                let leader = node.leadership(topic, index).map_or(-1, |(leader, _)| leader);
                leader >= 0 && leader != without
            })
        };
        for (round, place) in [0, 1, 2, 0].into_iter().enumerate() {
            until(&env, "all lead", || {
                running.lock().len() == 3 && all(&running, |node| is_led(node, -1))
            })
            .await;
            if round % 2 == 0 {
                until(&env, "all rest", || {
                    all(&running, |node| node.stats().parked == PARTITIONS)
                })
                .await;
            }
            drop(running.lock().remove(&place));
            machines[place].crash(CrashMode::Process);
            let gone = i32::try_from(place).unwrap() + 1;
            let took = until(&env, "others lead", || all(&running, |node| is_led(node, gone))).await;
            assert!(took < FAILOVER, "{took:?} without broker {gone}");
            boot(&machines, place, &running);
        }
    });
}
