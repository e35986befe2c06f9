//! The controller's quorum, as every broker describes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Cluster, NewTopic, Quorum, QuorumReplica};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{CONVERGENCE, NAMES, Running, SEEDS, SEGMENT_BYTES, boot_all};
use crate::world::start_node;

/// Longer than the pause between two requests to a follower that lacks nothing.
const QUIET: Duration = Duration::from_secs(10);

/// Every broker gives the controller's word: who votes, who only receives, who lags behind and since when.
#[test]
fn every_broker_describes_the_quorum() {
    let mut sim = Sim::new(51);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let newcomer = sim.add_machine("n4");
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let own = newcomer.env();
        let joined = start_node(&own, 4, "n4:33145", &SEEDS, SEGMENT_BYTES);
        let joined = env.clock.timeout(CONVERGENCE, joined).await;
        let joined = joined.expect("a broker is taken in").unwrap();
        env.clock.sleep(QUIET).await;
        let controller = joined.controller_id();
        let mut brokers: BTreeMap<i32, Arc<Cluster>> = running
            .lock()
            .values()
            .map(|node| (node.node_id(), Arc::clone(node)))
            .collect();
        assert_eq!(brokers.len(), 3);
        brokers.insert(4, joined);
        for broker in brokers.values() {
            let quorum = broker.quorum().await.expect("the controller answers");
            assert_eq!(quorum.leader, controller);
            assert_eq!(ids(&quorum.voters), [1, 2, 3]);
            assert_eq!(ids(&quorum.observers), [4]);
            assert!(quorum.high_watermark > 0);
            let replicas = quorum.voters.iter().chain(&quorum.observers);
            replicas.for_each(|replica| lacks_nothing(&env, &quorum, replica));
        }

        // A voter dies, which the others are told by a refused connection, and the metadata go on without it. It keeps
        // its vote for minutes, as it would if it were only silent.
        let gone = (1..=3).find(|id| *id != controller).unwrap();
        brokers.remove(&gone);
        kill(&machines, &running, gone);
        let cut_off = env.clock.now_ms();
        env.clock.sleep(QUIET).await;
        let before = brokers[&4].quorum().await.unwrap();
        let lost = find(&before, gone);
        assert_eq!(
            lost.log_end_offset, before.high_watermark,
            "nothing has been written since"
        );
        assert!(
            lost.last_caught_up_ms <= cut_off,
            "and nobody knows that it is there: {lost:?}"
        );
        let new = NewTopic {
            name: "later".into(),
            partitions: vec![vec![controller]],
            overrides: BTreeMap::new(),
        };
        brokers[&4].create_topic(new).await.unwrap();
        env.clock.sleep(QUIET).await;
        for broker in brokers.values() {
            let quorum = broker.quorum().await.unwrap();
            let lost = find(&quorum, gone);
            assert_eq!(lost.log_end_offset, before.high_watermark);
            assert!(lost.log_end_offset < quorum.high_watermark);
            assert!(
                lost.last_caught_up_ms <= cut_off && lost.last_fetch_ms <= cut_off,
                "{lost:?}"
            );
            assert_eq!(quorum.observers[0].log_end_offset, quorum.high_watermark);
        }
    });
}

fn kill(machines: &[Machine], running: &Running, id: i32) {
    let index = usize::try_from(id - 1).unwrap();
    drop(running.lock().remove(&index));
    machines[index].crash(CrashMode::Process);
}

fn ids(replicas: &[QuorumReplica]) -> Vec<i32> {
    replicas.iter().map(|replica| replica.id).collect()
}

fn find(quorum: &Quorum, id: i32) -> QuorumReplica {
    quorum.voters.iter().find(|voter| voter.id == id).unwrap().clone()
}

fn age(env: &Env, at_ms: i64) -> i64 {
    env.clock.now_ms() - at_ms
}

fn lacks_nothing(env: &Env, quorum: &Quorum, replica: &QuorumReplica) {
    assert_eq!(replica.log_end_offset, quorum.high_watermark);
    assert!(!replica.directory.is_nil());
    assert!(age(env, replica.last_caught_up_ms) < 1_000, "{replica:?}");
    assert!(age(env, replica.last_fetch_ms) < 6_000, "{replica:?}");
}
