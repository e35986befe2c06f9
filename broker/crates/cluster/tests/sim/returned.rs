//! A broker that begins anew and hears at first of older metadata than it has acted upon. Where a replica of its has left and
//! come back since, it would take the files for those of the one that left, and delete them with the next image.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::NewTopic;
use takhin_runtime::sim::{CrashMode, Machine, Sim};
use takhin_storage::{DataDir, Expected};
use uuid::Uuid;

use crate::nodes::{NAMES, TOPIC, boot, boot_all, converge, leader, until};

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
