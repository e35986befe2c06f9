//! Single stories of several nodes: what must be so after one particular course of events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Isolation, NewTopic, Partition, ReadError, ServedBy, Waiter};
use takhin_runtime::Rng;
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{
    CONVERGENCE, NAMES, SEEDS, SEGMENT_BYTES, TOPIC, boot, boot_all, converge, leader, leader_of,
};
use crate::world::{Producer, batch, start_node};

/// How long a replica that is away holds the others' segments (`raft/purge.rs`).
const LEAVE_BEHIND: Duration = Duration::from_secs(600);

/// A replica that is away while records expire and segments go comes back to the same records as the others.
#[test]
fn a_replica_that_was_away_while_segments_went_comes_back() {
    away_for(Duration::from_secs(700), 11);
}

/// One that is away for long does not hold the others' segments: it gets a copy of theirs.
#[test]
fn a_replica_that_was_left_behind_gets_a_copy() {
    away_for(Duration::from_secs(2_000), 21);
}

/// Longer than the pause between two looks at what has expired.
fn away_for(away: Duration, seed: u64) {
    let mut sim = Sim::new(seed);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    let rng = Rng::from_seed(seed);
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let retention = [("retention.bytes", "40000"), ("retention.ms", "-1")];
        drop(leader_of(&env, &running, &retention).await);
        let absent = running.lock()[&2].clone();
        let topic = absent.image().topic(TOPIC).unwrap().id;
        net.isolate(NAMES[2]);
        env.clock.sleep(Duration::from_secs(5)).await;
        let mut producer = Producer::default();
        for _ in 0..200 {
            producer.pending = Some(10);
            let partition = leader(&env, &running).await;
            let batch = batch(1, &producer, 10);
            partition.produce(batch, Acks::All).unwrap().await.unwrap();
            producer.answered(10);
        }
        env.clock.sleep(away).await;
        let led = leader(&env, &running).await;
        let start = led.offsets().log_start_offset;
        assert!(start > 0, "nothing has expired");
        let (last, first) = {
            let log = absent.partition(topic, 0).unwrap().log().unwrap();
            (
                log.end().last.unwrap().index,
                led.log().unwrap().end().first_index,
            )
        };
        let is_left_behind = away > 2 * LEAVE_BEHIND;
        assert_eq!(first > last + 1, is_left_behind, "{first} {last}");
        drop(absent);
        net.heal_all();
        if is_left_behind {
            // Whatever it had received of the copy, and wherever it stood when putting it in place.
            for _ in 0..4 {
                env.clock.sleep(Duration::from_millis(rng.range(1..700))).await;
                drop(running.lock().remove(&2));
                machines[2].crash(CrashMode::Power);
                boot(&machines, 2, &running);
            }
        }
        let found = converge(&env, &running).await;
        assert_eq!(found[0], found[2]);
        assert_eq!(found[0].first().map(|(offset, _)| *offset), Some(start));
    });
}

/// The founder has entered itself long before the others can: until then it reaches them as when they elected it.
#[test]
fn founders_that_are_late_are_taken_in() {
    let mut sim = Sim::new(13);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    // They ask each other how they stand before they turn to the founder.
    let slow = Duration::from_millis(700);
    sim.net().set_delay(NAMES[1], NAMES[2], slow..=slow);
    sim.net().set_delay(NAMES[2], NAMES[1], slow..=slow);
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let formed = async {
            while running.lock().len() < NAMES.len() {
                env.clock.sleep(Duration::from_millis(20)).await;
            }
        };
        let formed = env.clock.timeout(CONVERGENCE, formed).await;
        formed.expect("every founder is taken in");
    });
}

/// A broker that is no seed is taken in by a cluster that exists, and can hold replicas then.
#[test]
fn a_broker_joins_a_cluster_that_exists() {
    let mut sim = Sim::new(12);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let newcomer = sim.add_machine("n4");
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader(&env, &running).await);
        let own = newcomer.env();
        let joined = start_node(&own, 4, "n4:33145", &SEEDS, SEGMENT_BYTES);
        let joined = env.clock.timeout(CONVERGENCE, joined).await;
        let joined = joined.expect("a broker is taken in").unwrap();
        assert_eq!(
            joined.image().brokers.keys().copied().collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        let new = NewTopic {
            name: "later".into(),
            partitions: vec![vec![4, 1, 2]],
            overrides: BTreeMap::new(),
        };
        let topic = joined.create_topic(new).await.unwrap();
        let partition = joined.partition(topic.id, 0).unwrap();
        let led = async {
            while partition.leadership().is_none() {
                env.clock.sleep(Duration::from_millis(20)).await;
            }
        };
        env.clock
            .timeout(CONVERGENCE, led)
            .await
            .expect("the preferred replica leads");
        let batch = batch(1, &Producer::default(), 3);
        let produced = partition.produce(batch, Acks::All).unwrap().await.unwrap();
        assert_eq!(produced.base_offset, 0);
    });
}

/// Whoever waits for an election may give up at any moment of it: the partition has a leader that accepts soon after.
#[test]
fn an_election_that_nobody_waits_for_leaves_a_leader() {
    let mut sim = Sim::new(31);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    let rng = Rng::from_seed(31);
    net.set_default_delay(Duration::from_micros(500)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer::default();
        let mut elections = 0;
        for _ in 0..20 {
            drop(leader(&env, &running).await);
            net.isolate(NAMES[0]);
            env.clock.sleep(Duration::from_secs(5)).await;
            net.heal_all();
            env.clock.sleep(Duration::from_secs(2)).await;
            let nodes: Vec<_> = running.lock().values().cloned().collect();
            let topic = nodes[0].image().topic(TOPIC).unwrap().id;
            producer.pending = Some(3);
            let elected = async {
                // What is under way has to commit before leadership can be passed on.
                let led = leader(&env, &running).await;
                let _unanswered = led.produce(batch(1, &producer, 3), Acks::All);
                for cluster in &nodes {
                    let is_leader = cluster.partition(topic, 0).unwrap().leadership().is_some();
                    if is_leader {
                        let patience = Duration::from_micros(rng.range(1..6_000));
                        let election = cluster.elect_preferred(topic, 0);
                        let given_up = env.clock.timeout(patience, election).await.is_err();
                        elections += u32::from(given_up);
                    }
                }
                while !is_accepted(&leader(&env, &running).await, &producer).await {
                    env.clock.sleep(Duration::from_millis(20)).await;
                }
            };
            // Well before the next look for leaders that are not the preferred ones.
            let elected = env.clock.timeout(Duration::from_secs(4), elected).await;
            elected.expect("a leader accepts again");
            producer.answered(3);
        }
        assert!(elections > 5, "{elections} elections were given up");
    });
}

async fn is_accepted(partition: &Arc<Partition>, producer: &Producer) -> bool {
    match partition.produce(batch(1, producer, 3), Acks::All) {
        Ok(ticket) => ticket.await.is_ok(),
        Err(_) => false,
    }
}

/// How soon a follower has to know that the last record of a burst is committed; heartbeats come every five seconds.
const TOLD: Duration = Duration::from_millis(200);

/// Consumers may read from followers, which hear of every commit at once and know who leads.
#[test]
fn followers_serve_what_is_committed() {
    let mut sim = Sim::new(41);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    net.set_default_delay(Duration::from_micros(500)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let led = leader(&env, &running).await;
        let epoch = led.leadership().unwrap();
        let mut producer = Producer::default();
        converge(&env, &running).await;
        let nodes: Vec<_> = running.lock().values().cloned().collect();
        let topic = led.id().topic_id;
        let replicas: Vec<_> = nodes
            .iter()
            .map(|node| node.partition(topic, 0).unwrap())
            .collect();
        let followers: Vec<_> = replicas.iter().filter(|r| r.leadership().is_none()).collect();
        assert_eq!(followers.len(), 2);
        // Bursts of every length: the last record of each has nothing behind it that would tell of its commit.
        for burst in 1..6 {
            env.clock.sleep(Duration::from_secs(1)).await;
            let from = led.offsets().log_end_offset;
            let waiter = Waiter::new();
            followers[0].wait(&waiter);
            for _ in 0..burst {
                producer.pending = Some(2);
                let batch = batch(1, &producer, 2);
                led.produce(batch, Acks::All).unwrap().await.unwrap();
                producer.answered(2);
            }
            env.clock
                .timeout(TOLD, waiter.woken())
                .await
                .expect("a long poll ends");
            env.clock.sleep(TOLD).await;
            let end = led.offsets().log_end_offset;
            let records = read_any(&led, epoch, from, end);
            for follower in &followers {
                assert_eq!(read_any(follower, epoch, from, end), records);
            }
            let ends = nodes
                .iter()
                .map(|node| node.log_end_offsets(led.id(), &[1, 2, 3]));
            let ends: Vec<_> = ends.flatten().collect();
            assert!(ends.iter().all(|(_, known)| *known == end), "{ends:?}");
            assert_eq!(ends.len(), 2, "the leader's followers, and nobody else's");
        }
        // Another one leads: whoever goes on with the old epoch at a replica that follows it is sent to look.
        let place = replicas.iter().position(|replica| replica.leadership().is_some());
        net.isolate(NAMES[place.unwrap()]);
        let fenced = async {
            loop {
                let mut checked = followers
                    .iter()
                    .map(|f| f.check_epoch(epoch, ServedBy::AnyReplica));
                let is_fenced = |check| matches!(check, Err(ReadError::FencedLeaderEpoch { .. }));
                if checked.all(is_fenced) {
                    return;
                }
                env.clock.sleep(Duration::from_millis(20)).await;
            }
        };
        env.clock.timeout(CONVERGENCE, fenced).await.expect("a new epoch");
    });
}

/// What a replica gives a consumer from offset `from` on; it knows that everything before `end` is committed.
fn read_any(replica: &Partition, epoch: i32, from: i64, end: i64) -> Vec<u8> {
    let (isolation, by) = (Isolation::ReadCommitted, ServedBy::AnyReplica);
    replica.check_epoch(epoch, by).unwrap();
    let fetched = replica.fetch(from, 1 << 20, true, isolation, by).unwrap();
    assert_eq!(fetched.offsets.high_watermark, end);
    fetched.ranges.read_all().unwrap()
}
