//! Copies of segments, of which a node takes a few at a time.

use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Cluster, NewTopic, Partition};
use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Machine, Op, Sim, When};
use uuid::Uuid;

use crate::nodes::{NAMES, Running, boot, boot_all, until};
use crate::world::{Producer, batch};

/// As many as a node takes copies of at a time that cannot be begun, as many that cannot be gone on with, and one.
const PARTITIONS: i32 = 9;

/// Long after the leaders hold segments for nobody any more.
const AWAY: Duration = Duration::from_secs(1_400);

/// Several attempts.
const TRIED: Duration = Duration::from_secs(10);

/// Until a node that is back has the copy that can be written; sooner than one that nobody goes on with is given up.
const COPIED: Duration = Duration::from_secs(20);

fn led(running: &Running, topic: Uuid, index: i32) -> Option<Arc<Partition>> {
    let nodes: Vec<Arc<Cluster>> = running.lock().values().cloned().collect();
    let mut replicas = nodes.iter().filter_map(|node| node.partition(topic, index));
    replicas.find(|replica| replica.leadership().is_some())
}

/// The disk refuses the others, which are tried again and again, some when they begin and some when they are written to.
#[test]
fn copies_that_cannot_be_written_keep_no_other_waiting() {
    let mut sim = Sim::new(121);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let formed = || running.lock().len() == 3 && running.lock()[&0].image().brokers.len() == 3;
        until(&env, "three brokers", formed).await;
        let first = Arc::clone(&running.lock()[&0]);
        let settings = [("retention.bytes", "40000"), ("retention.ms", "-1")];
        let (failing, last) = (0..PARTITIONS - 1, PARTITIONS - 1);
        let mut replicas = vec![vec![1, 2, 3]; failing.len()];
        replicas.push(vec![2, 1, 3]);
        let new = NewTopic {
            name: "copied".into(),
            partitions: replicas,
            overrides: settings.map(|(key, value)| (key.into(), value.into())).into(),
        };
        let topic = first.create_topic(new).await.unwrap().id;
        drop(running.lock().remove(&2));
        machines[2].crash(CrashMode::Process);
        for index in 0..PARTITIONS {
            until(&env, "all lead", || led(&running, topic, index).is_some()).await;
            let partition = led(&running, topic, index).unwrap();
            let mut producer = Producer::default();
            for _ in 0..100 {
                producer.pending = Some(10);
                let written = partition.produce(batch(1, &producer, 10), Acks::All);
                written.unwrap().await.unwrap();
                producer.answered(10);
            }
        }
        env.clock.sleep(AWAY).await;
        for index in failing.clone() {
            let (op, fault) = match index % 2 {
                0 => (Op::CreateDir, Fault::Eio),
                _ => (Op::Write, Fault::Enospc),
            };
            machines[2].disk().arm(FaultRule {
                op,
                path: format!("{topic}-{index}.incoming"),
                when: When::Always,
                fault,
            });
        }
        // The other leader finds those of the first one there.
        let leads = |index| first.leadership(topic, index).map(|(leader, _)| leader);
        assert!(failing.clone().all(|index| leads(index) == Some(1)) && leads(last) == Some(2));
        net.partition(NAMES[1], NAMES[2]);
        boot(&machines, 2, &running);
        until(&env, "it is back", || running.lock().len() == 3).await;
        env.clock.sleep(TRIED).await;
        net.heal_all();
        let absent = Arc::clone(&running.lock()[&2]);
        let has_all = |index| {
            let end = led(&running, topic, index).map(|led| led.offsets().high_watermark);
            absent
                .partition(topic, index)
                .map(|own| own.offsets().high_watermark)
                == end
        };
        let took = until(&env, "a copy that can be written is", || has_all(last)).await;
        assert!(took < COPIED, "{took:?}");
        assert!(!failing.clone().any(has_all), "they need no copy");
        machines[2].disk().clear_faults();
        for index in failing {
            until(&env, "the others are, once there is room", || has_all(index)).await;
        }
    });
}
