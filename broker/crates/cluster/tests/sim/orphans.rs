//! Files of partitions that went while their broker was away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Cluster, NewTopic};
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{NAMES, Running, boot, boot_all, leader, reassign, until};
use crate::world::PARTITIONS_DIR;

fn files(machine: &Machine) -> usize {
    let entries = machine.env().disk.read_dir(PARTITIONS_DIR.as_ref()).unwrap();
    // One directory is the metadata's.
    entries.iter().filter(|entry| entry.is_dir).count() - 1
}

fn node(running: &Running, place: usize) -> Arc<Cluster> {
    Arc::clone(&running.lock()[&place])
}

#[test]
fn files_of_partitions_that_went_meanwhile_are_deleted_and_no_others() {
    let mut sim = Sim::new(81);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader(&env, &running).await);
        let first = node(&running, 0);
        for name in ["stays", "goes"] {
            let new = NewTopic {
                name: name.to_owned(),
                partitions: vec![vec![1, 2, 3], vec![2, 3, 1]],
                overrides: BTreeMap::new(),
            };
            first.create_topic(new).await.unwrap();
        }
        until(&env, "all replicas have files", || {
            machines.iter().all(|machine| files(machine) == 5)
        })
        .await;
        drop(running.lock().remove(&2));
        machines[2].crash(CrashMode::Process);
        env.clock.sleep(Duration::from_secs(3)).await;
        let goes = first.image().topic("goes").unwrap().id;
        first.delete_topic(goes).await.unwrap();
        reassign(&first, Some(vec![1, 2])).await;
        until(&env, "the replica is given up", || {
            first.image().reassigning.is_empty()
        })
        .await;
        assert_eq!(files(&machines[2]), 5, "it knows nothing of this");
        boot(&machines, 2, &running);
        until(&env, "they are deleted", || files(&machines[2]) == 2).await;
        let third = node(&running, 2);
        until(&env, "the others are served", || third.stats().unavailable == 0).await;
        let stays = third.image().topic("stays").unwrap().id;
        assert!(third.partition(stays, 0).is_some() && third.partition(stays, 1).is_some());
        env.clock.sleep(Duration::from_secs(120)).await;
        assert_eq!(files(&machines[2]), 2);
    });
}
