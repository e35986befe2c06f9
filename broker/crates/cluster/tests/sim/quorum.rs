//! The controller's quorum, as every broker describes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Cluster, NewTopic, Quorum, QuorumReplica};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{CONVERGENCE, NAMES, Running, SEEDS, SEGMENT_BYTES, boot, boot_all};
use crate::world::start_node;

/// Longer than the pause between two requests to a follower that lacks nothing.
const QUIET: Duration = Duration::from_secs(10);

/// For how long a voter that is silent keeps its place (`cluster/members.rs`), less a bit.
const KEPT: Duration = Duration::from_secs(280);

/// And when another one has it at the latest.
const REPLACED: Duration = Duration::from_secs(330);

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

/// Another broker has its vote, in time for the loss of a second voter, the controller itself: of the three that were founded
/// one is left.
#[test]
fn a_voter_that_is_gone_for_good_is_replaced_and_a_second_loss_survived() {
    let mut sim = Sim::new(53);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let newcomer = sim.add_machine("n4");
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let own = newcomer.env();
        let fourth = start_node(&own, 4, "n4:33145", &SEEDS, SEGMENT_BYTES);
        let fourth = env.clock.timeout(CONVERGENCE, fourth).await.unwrap().unwrap();
        env.clock.sleep(QUIET).await;
        let quorum = fourth.quorum().await.expect("the controller answers");
        assert_eq!(ids(&quorum.voters), [1, 2, 3]);
        let controller = quorum.leader;
        let gone = (1..=3).find(|id| *id != controller).unwrap();
        let left = (1..=3).find(|id| ![controller, gone].contains(id)).unwrap();
        let died = env.clock.instant();
        kill(&machines, &running, gone);
        env.clock.sleep(KEPT).await;
        let quorum = fourth.quorum().await.expect("the controller answers");
        assert_eq!(ids(&quorum.voters), [1, 2, 3], "it may come back");
        let mut voters = vec![controller, left, 4];
        voters.sort_unstable();
        let replaced = async {
            while fourth
                .quorum()
                .await
                .is_none_or(|quorum| ids(&quorum.voters) != voters)
            {
                env.clock.sleep(Duration::from_millis(100)).await;
            }
        };
        let replaced = env.clock.timeout(CONVERGENCE, replaced).await;
        replaced.expect("another broker has its vote");
        assert!(died.elapsed() < REPLACED, "{:?}", died.elapsed());

        kill(&machines, &running, controller);
        let new = NewTopic {
            name: "later".into(),
            partitions: vec![vec![4, left]],
            overrides: BTreeMap::new(),
        };
        let created = env.clock.timeout(CONVERGENCE, fourth.create_topic(new)).await;
        created.expect("somebody decides").expect("a topic is created");
        let quorum = fourth.quorum().await.expect("the next controller answers");
        assert!([left, 4].contains(&quorum.leader), "{quorum:?}");
    });
}

/// A controller that dies at any moment of a change of voters leaves what it has begun to the next one.
#[test]
fn a_change_of_voters_that_was_begun_is_ended() {
    let mut sim = Sim::new(52);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let newcomer = sim.add_machine("n4");
    sim.net()
        .set_default_delay(Duration::from_micros(500)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let own = newcomer.env();
        let fourth = start_node(&own, 4, "n4:33145", &SEEDS, SEGMENT_BYTES);
        let fourth = env.clock.timeout(CONVERGENCE, fourth).await.unwrap().unwrap();
        for round in 0..16 {
            let (controller, voters) = loop {
                env.clock.sleep(Duration::from_millis(50)).await;
                let quorum = fourth.quorum().await.expect("the controller answers");
                match quorum.leader {
                    4 => fourth.give_leadership_away().await,
                    leader if running.lock().len() == NAMES.len() => break (leader, ids(&quorum.voters)),
                    _ => {}
                }
            };
            let leaving = *voters.iter().find(|id| **id != controller).unwrap();
            set(&env, &fourth, leaving, true).await;
            let led = Arc::clone(&running.lock()[&usize::try_from(controller - 1).unwrap()]);
            // Between the two steps those vote who did and those who will.
            while led
                .quorum()
                .await
                .is_some_and(|quorum| quorum.voters.len() == NAMES.len())
            {
                env.clock.sleep(Duration::from_millis(1)).await;
            }
            drop(led);
            env.clock.sleep(Duration::from_millis(round % 4)).await;
            kill(&machines, &running, controller);
            let gone = async {
                loop {
                    let voters = fourth.quorum().await.map(|quorum| ids(&quorum.voters));
                    if voters.is_some_and(|voters| !voters.contains(&leaving)) {
                        return;
                    }
                    env.clock.sleep(Duration::from_millis(50)).await;
                }
            };
            let gone = env.clock.timeout(CONVERGENCE, gone).await;
            gone.unwrap_or_else(|_| panic!("round {round}: {leaving} still votes"));
            set(&env, &fourth, leaving, false).await;
            boot(&machines, usize::try_from(controller - 1).unwrap(), &running);
        }
    });
}

/// Has a broker leave, or stay.
async fn set(env: &Env, cluster: &Cluster, broker: i32, leaves: bool) {
    let set = async {
        while cluster.set_decommissioning(broker, leaves).await.is_err() {
            env.clock.sleep(Duration::from_millis(50)).await;
        }
    };
    let set = env.clock.timeout(CONVERGENCE, set).await;
    set.unwrap_or_else(|_| panic!("broker {broker}: decommissioning {leaves} has no answer"));
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
