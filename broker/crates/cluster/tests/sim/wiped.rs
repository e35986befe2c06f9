//! A broker loses its directory, which held a vote and a replica.

use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Cluster, ReplicaChange};
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{
    CONVERGENCE, NAMES, Running, SEEDS, SEGMENT_BYTES, TOPIC, boot, boot_all, converge, leader_of, until,
};
use crate::scenarios::write;
use crate::world::{Producer, start_node};

/// After so long another broker gets the vote of one that is silent.
const REPLACED: Duration = Duration::from_secs(400);

fn node(running: &Running, place: usize) -> Arc<Cluster> {
    Arc::clone(&running.lock()[&place])
}

/// It is nobody under its old id, which has promised and acknowledged things that it knows nothing of. Under another one it
/// is given everything, and what was acknowledged outlives the loss of one more broker.
#[test]
fn a_broker_without_its_directory_comes_back_under_another_id() {
    for (seed, mode) in [(121, CrashMode::Process), (122, CrashMode::Power)] {
        let mut sim = Sim::new(seed);
        let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
        sim.run(|env| async move {
            let running = boot_all(&machines);
            // The records of stories are from long ago.
            drop(leader_of(&env, &running, &[("retention.ms", "-1")]).await);
            let mut producer = Producer::default();
            drop(write(&env, &running, &mut producer, 20).await);
            drop(running.lock().remove(&2));
            machines[2].wipe(mode);
            let own = machines[2].env();
            let again = start_node(&own, 3, SEEDS[2], &SEEDS, SEGMENT_BYTES);
            let again = env.clock.timeout(CONVERGENCE, again).await;
            let reason = again.expect("it ends by itself").expect_err("it is refused");
            assert!(reason.contains("node id 3 belongs to"), "{reason}");
            // The others go on meanwhile.
            drop(write(&env, &running, &mut producer, 20).await);

            // What the attempt has left says that it is of node 3.
            machines[2].wipe(mode);
            let own = machines[2].env();
            let new = start_node(&own, 4, SEEDS[2], &SEEDS, SEGMENT_BYTES);
            let new = env.clock.timeout(CONVERGENCE, new).await;
            running.lock().insert(2, new.expect("it is taken in").unwrap());
            let first = node(&running, 0);
            let change = ReplicaChange {
                topic_id: first.image().topic(TOPIC).unwrap().id,
                index: 0,
                replicas: Some(vec![1, 2, 4]),
                may_resize: false,
            };
            let refused = first.reassign(vec![change]).await.unwrap();
            assert!(refused.iter().all(Result::is_ok), "{refused:?}");
            until(&env, "it has a replica", || first.image().reassigning.is_empty()).await;
            env.clock.sleep(REPLACED).await;
            let quorum = first.quorum().await.expect("the controller answers");
            let voters: Vec<i32> = quorum.voters.iter().map(|voter| voter.id).collect();
            assert_eq!(voters, [1, 2, 4], "the vote went with the directory");
            drop(first);

            // A majority needs what came back.
            drop(running.lock().remove(&0));
            machines[0].crash(CrashMode::Process);
            drop(write(&env, &running, &mut producer, 20).await);
            node(&running, 1).unregister_broker(3).await.unwrap();
            boot(&machines, 0, &running);
            let written: Vec<_> = (0..producer.next).map(|n| (n.cast_signed(), (1, n))).collect();
            for replica in converge(&env, &running).await {
                assert_eq!(replica, written);
            }
        });
    }
}
