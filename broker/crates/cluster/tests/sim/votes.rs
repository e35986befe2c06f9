//! A voter that has forgotten its vote must not vote again (Raft section 5.4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::NewTopic;
use takhin_runtime::sim::Sim;
use takhin_storage::{DataDir, Expected};
use uuid::Uuid;

use crate::world::start;

const SEGMENT: u32 = 8 << 10;

/// Journal key of the vote of a topic's first partition, as `raft/hard_state.rs` writes it.
fn vote_key(topic: Uuid) -> Vec<u8> {
    [&b"g"[..], topic.as_bytes(), &0_i32.to_be_bytes(), &[1]].concat()
}

#[test]
fn a_partition_whose_vote_is_gone_stays_offline_and_says_so() {
    let mut sim = Sim::new(5);
    let topic = sim.run(|env| async move {
        let cluster = start(&env, SEGMENT).await.unwrap();
        let created = cluster.create_topic(NewTopic {
            name: "voted".into(),
            partitions: vec![vec![1]],
            overrides: BTreeMap::new(),
        });
        let id = created.await.unwrap().id;
        cluster.stop().await;
        id
    });
    sim.run(|env| async move {
        let expected = Expected {
            node_id: 1,
            cluster_id: None,
            new_directory_id: Uuid::nil(),
            now_ms: env.clock.now_ms(),
        };
        let dir = DataDir::open(Arc::clone(&env.disk), "data".as_ref(), &expected).unwrap();
        assert!(
            dir.journal().get(&vote_key(topic)).is_some(),
            "the vote is where it is looked for"
        );
        dir.journal().put(&[(vote_key(topic), None)], true).unwrap();
        dir.close().unwrap();
    });
    sim.run(|env| async move {
        let cluster = start(&env, SEGMENT).await.unwrap();
        let partition = cluster.partition(topic, 0).unwrap();
        let reason = env.clock.timeout(Duration::from_secs(60), async {
            loop {
                match partition.offline_reason() {
                    Some(reason) => return reason,
                    None => env.clock.sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let reason = reason.await.expect("it says why it is offline");
        assert!(reason.contains("knows no vote"), "{reason}");
        assert_eq!(partition.leadership(), None);
        cluster.stop().await;
    });
}
