//! Partitions that nobody writes to are parked on every broker, and nobody notices.

use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Cluster, Partition};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{
    CONVERGENCE, NAMES, Running, TOPIC, boot, boot_all, converge, leader, leader_of, reassign,
};
use crate::world::{PARK_AFTER, Producer, batch};

/// Until those who lead have looked often enough, and asked the others.
const QUIET: Duration = Duration::from_secs(4 * PARK_AFTER.as_secs());

/// An election by brokers that miss the leader, with all that comes before.
const ELECTION: Duration = Duration::from_secs(5);

fn parked(running: &Running) -> Vec<usize> {
    running.lock().values().map(|node| node.stats().parked).collect()
}

/// Waits until the partition is parked everywhere.
async fn all_rest(env: &Env, running: &Running) {
    let rest = async {
        while parked(running) != [1, 1, 1] {
            env.clock.sleep(Duration::from_millis(100)).await;
        }
    };
    env.clock.timeout(CONVERGENCE, rest).await.expect("all rest");
}

async fn write(partition: &Arc<Partition>, producer: &mut Producer) {
    producer.pending = Some(3);
    let ticket = partition.produce(batch(1, producer, 3), Acks::All).unwrap();
    ticket.await.unwrap();
    producer.answered(3);
}

/// Writes to whoever leads, for as long as an election may take.
async fn write_to_leader(env: &Env, running: &Running, producer: &mut Producer) {
    producer.pending = Some(3);
    let written = async {
        loop {
            let partition = leader(env, running).await;
            if let Ok(ticket) = partition.produce(batch(1, producer, 3), Acks::All)
                && ticket.await.is_ok()
            {
                return;
            }
            env.clock.sleep(Duration::from_millis(20)).await;
        }
    };
    env.clock
        .timeout(ELECTION, written)
        .await
        .expect("somebody leads and accepts");
    producer.answered(3);
}

fn place_of(running: &Running, lead: bool) -> usize {
    find_place(running, lead).unwrap()
}

fn leads(running: &Running) -> Option<usize> {
    find_place(running, true)
}

fn find_place(running: &Running, lead: bool) -> Option<usize> {
    let nodes = running.lock();
    let is_wanted = |node: &Arc<Cluster>| {
        let topic = node.image().topic(TOPIC).unwrap().id;
        node.partition(topic, 0).unwrap().leadership().is_some() == lead
    };
    let (place, _) = nodes.iter().find(|(_, node)| is_wanted(node))?;
    Some(*place)
}

fn cluster(seed: u64) -> (Sim, Vec<Machine>) {
    let mut sim = Sim::new(seed);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(500)..=Duration::from_millis(2));
    (sim, machines)
}

#[test]
fn a_partition_rests_while_nobody_writes_and_keeps_its_leader_and_its_epoch() {
    let (mut sim, machines) = cluster(71);
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader(&env, &running).await);
        converge(&env, &running).await;
        // Leadership goes to the preferred replica first.
        env.clock.sleep(Duration::from_secs(30)).await;
        let led = leader(&env, &running).await;
        let epoch = led.leadership();
        let mut producer = Producer::default();
        for round in 1..6 {
            write(&led, &mut producer).await;
            assert_eq!(parked(&running), [0, 0, 0]);
            env.clock.sleep(QUIET * round).await;
            assert_eq!(parked(&running), [1, 1, 1]);
            assert_eq!(led.leadership(), epoch);
            let nodes: Vec<_> = running.lock().values().cloned().collect();
            for node in &nodes {
                assert_eq!(node.stats().under_replicated, 0);
                assert_eq!(node.stats().unavailable, 0);
            }
        }
        // Several at once find it asleep.
        let batches = (0..4).map(|place| {
            let at = Producer {
                next: 100 + place,
                sequence: i32::try_from(place).unwrap(),
                pending: None,
            };
            led.produce(batch(2, &at, 1), Acks::All).unwrap()
        });
        let batches: Vec<_> = batches.collect();
        for ticket in batches {
            ticket.await.unwrap();
        }
        assert_eq!(led.leadership(), epoch);
        // Who leads for sure can say so when it is asked in its sleep.
        all_rest(&env, &running).await;
        let place = place_of(&running, true);
        let node = running.lock()[&place].clone();
        assert!(node.confirms_leadership(&led, epoch.unwrap()).await);
        let found = converge(&env, &running).await;
        assert_eq!(found[0].len(), 5 * 3 + 4);
        assert!(found.iter().all(|replica| *replica == found[0]));
    });
}

#[test]
fn a_leader_that_dies_while_all_rest_is_missed() {
    let (mut sim, machines) = cluster(72);
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer::default();
        write_to_leader(&env, &running, &mut producer).await;
        for _ in 0..3 {
            converge(&env, &running).await;
            all_rest(&env, &running).await;
            let place = place_of(&running, true);
            drop(running.lock().remove(&place));
            machines[place].crash(CrashMode::Power);
            write_to_leader(&env, &running, &mut producer).await;
            boot(&machines, place, &running);
        }
        let found = converge(&env, &running).await;
        assert_eq!(found[0].len(), 12);
    });
}

/// Its followers hear nothing for a second and a half, as of a broker whose machine is busy.
#[test]
fn a_leader_that_is_slow_for_a_moment_leaves_the_others_asleep() {
    let (mut sim, machines) = cluster(75);
    let net = sim.net().clone();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer::default();
        write_to_leader(&env, &running, &mut producer).await;
        converge(&env, &running).await;
        all_rest(&env, &running).await;
        let leader = NAMES[place_of(&running, true)];
        for _ in 0..3 {
            net.isolate(leader);
            env.clock.sleep(Duration::from_millis(1_500)).await;
            net.heal_all();
            for _ in 0..50 {
                assert_eq!(parked(&running), [1, 1, 1]);
                env.clock.sleep(Duration::from_millis(100)).await;
            }
        }
        net.isolate(leader);
        let woken = async {
            while parked(&running).iter().sum::<usize>() > 1 {
                env.clock.sleep(Duration::from_millis(100)).await;
            }
        };
        let missed = env.clock.timeout(ELECTION, woken).await;
        missed.expect("one that stays silent is missed");
    });
}

/// One replica hears the leader no more and the other one still does: it would be elected if the other gave it the vote of a
/// replica that has only just woken, and all that a broker has missed for a while would change hands.
#[test]
fn a_replica_that_alone_misses_the_leader_deposes_nobody_who_rests() {
    let (mut sim, machines) = cluster(76);
    let net = sim.net().clone();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer::default();
        write_to_leader(&env, &running, &mut producer).await;
        converge(&env, &running).await;
        all_rest(&env, &running).await;
        let led = leader(&env, &running).await;
        let (epoch, leader) = (led.leadership(), place_of(&running, true));
        let [late, other] = [(leader + 1) % 3, (leader + 2) % 3];
        for _ in 0..3 {
            net.partition(NAMES[leader], NAMES[late]);
            for _ in 0..100 {
                assert_eq!(parked(&running)[other], 1, "it hears the leader");
                assert_eq!(led.leadership(), epoch);
                env.clock.sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(parked(&running)[late], 0, "it looks for another leader");
            net.heal_all();
            all_rest(&env, &running).await;
            assert_eq!(led.leadership(), epoch);
        }
        write(&led, &mut producer).await;
    });
}

/// It acknowledged what it had not synced, which is what such a topic asks for: the leader has to send it again.
#[test]
fn a_replica_that_loses_its_end_while_all_rest_gets_it_again() {
    let (mut sim, machines) = cluster(73);
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let led = leader_of(&env, &running, &[("takhin.durability", "cached")]).await;
        converge(&env, &running).await;
        let mut producer = Producer::default();
        env.clock.sleep(Duration::from_secs(30)).await;
        drop(led);
        write_to_leader(&env, &running, &mut producer).await;
        let led = leader(&env, &running).await;
        let epoch = led.leadership();
        all_rest(&env, &running).await;
        let place = place_of(&running, false);
        drop(running.lock().remove(&place));
        machines[place].crash(CrashMode::Power);
        boot(&machines, place, &running);
        let found = env
            .clock
            .timeout(CONVERGENCE, Box::pin(converge(&env, &running)))
            .await
            .unwrap();
        assert_eq!(found[place].len(), 3);
        assert_eq!(led.leadership(), epoch, "nobody had to be elected");
    });
}

#[test]
fn leadership_and_replicas_of_a_resting_partition_move() {
    let (mut sim, machines) = cluster(74);
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer::default();
        write_to_leader(&env, &running, &mut producer).await;
        converge(&env, &running).await;
        all_rest(&env, &running).await;
        let place = place_of(&running, true);
        let id = i32::try_from(place).unwrap() + 1;
        let other = running.lock()[&((place + 1) % 3)].clone();
        other.set_draining(id, true).await.unwrap();
        let gone = async {
            // While it is passed on nobody leads.
            while leads(&running).is_none_or(|now| now == place) {
                env.clock.sleep(Duration::from_millis(20)).await;
            }
        };
        env.clock
            .timeout(ELECTION, gone)
            .await
            .expect("leadership leaves it");
        other.set_draining(id, false).await.unwrap();
        all_rest(&env, &running).await;
        for replicas in [vec![2], vec![3, 1], vec![1, 2, 3]] {
            reassign(&other, Some(replicas.clone())).await;
            let moved = async {
                loop {
                    let image = other.image();
                    let topic = image.topic(TOPIC).unwrap();
                    if topic.partitions[0].replicas == replicas && image.reassigning.is_empty() {
                        return;
                    }
                    env.clock.sleep(Duration::from_millis(50)).await;
                }
            };
            env.clock
                .timeout(CONVERGENCE, moved)
                .await
                .expect("replicas move");
            env.clock.sleep(QUIET).await;
            assert_eq!(parked(&running).iter().sum::<usize>(), replicas.len());
        }
        write_to_leader(&env, &running, &mut producer).await;
        let found = converge(&env, &running).await;
        assert_eq!(found[0].len(), 6);
    });
}
