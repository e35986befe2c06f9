//! A broker dies: everything that it led is led by others soon, whether it was written to or at rest.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Cluster, NewTopic};
use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Machine, Op, Sim, When};
use takhin_runtime::{Disk as _, Env, OpenMode};
use uuid::Uuid;

use crate::nodes::{
    CONVERGENCE, NAMES, Running, SEEDS, SEGMENT_BYTES, TOPIC, boot, boot_all, converge, leader, reassign,
    until,
};
use crate::world::{PARTITIONS_DIR, Producer, batch, start_node};

const PARTITIONS: usize = 60;

/// Several times as long as positions wait until they are written down.
const CHECKPOINTS: Duration = Duration::from_secs(1);

/// From the death to the last election, in virtual time: the brokers are missed after 600 ms, and the first candidate is the
/// next in the order of replicas.
const FAILOVER: Duration = Duration::from_millis(1500);

/// From the failure of one partition on a broker that lives until another leads it: a few syncs.
const GIVEN_UP: Duration = Duration::from_millis(250);

/// From the begin of a process until it has taken its place in the cluster again; no heartbeat needs to be waited for.
const BACK: Duration = Duration::from_secs(2);

fn all(running: &Running, so: impl Fn(&Cluster) -> bool) -> bool {
    let nodes: Vec<Arc<Cluster>> = running.lock().values().cloned().collect();
    nodes.iter().all(|node| so(node))
}

/// Has the first broker lead the partition, as far as `asked` knows.
async fn first_leads(env: &Env, asked: &Cluster, topic: Uuid) {
    let elected = async {
        while asked.leadership(topic, 0).map(|(leader, _)| leader) != Some(1) {
            // It may be behind for a moment, or about to be opened again.
            let _ = asked.elect_preferred(topic, 0).await;
            env.clock.sleep(Duration::from_millis(5)).await;
        }
    };
    let elected = env.clock.timeout(CONVERGENCE, elected).await;
    elected.expect("the first leads");
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

/// The others may not have seen yet that it leads when it begins anew: then it is missed by nobody, and asks for votes itself.
#[test]
fn a_leader_that_begins_anew_at_once_is_no_leader() {
    let mut sim = Sim::new(92);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(100)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader(&env, &running).await);
        for round in 0..12_u64 {
            let back = || running.lock().len() == 3;
            let took = until(&env, "all are back", back).await;
            assert!(round == 0 || took < BACK, "{took:?} in round {round}");
            let other = Arc::clone(&running.lock()[&1]);
            let topic = other.image().topic(TOPIC).unwrap().id;
            first_leads(&env, &other, topic).await;
            let epoch = other.leadership(topic, 0).map(|(_, epoch)| epoch);
            env.clock.sleep(Duration::from_millis(round * 20)).await;
            drop(running.lock().remove(&0));
            machines[0].crash(CrashMode::Process);
            boot(&machines, 0, &running);
            let is_led = || {
                other
                    .leadership(topic, 0)
                    .is_some_and(|(leader, now)| leader >= 0 && Some(now) > epoch)
            };
            let took = until(&env, "somebody leads", is_led).await;
            assert!(took < 4 * FAILOVER, "{took:?} in round {round}");
        }
    });
}

/// A client asks when its connection ends, maybe before the broker that it asks has seen its own end.
#[test]
fn who_asks_when_a_leader_dies_is_told_the_next_one() {
    let mut sim = Sim::new(94);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(100)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader(&env, &running).await);
        for round in 0..8 {
            until(&env, "all are back", || running.lock().len() == 3).await;
            let other = Arc::clone(&running.lock()[&1]);
            let topic = other.image().topic(TOPIC).unwrap().id;
            first_leads(&env, &other, topic).await;
            env.clock
                .sleep(Duration::from_secs(2) + Duration::from_millis(130 * round))
                .await;
            drop(running.lock().remove(&0));
            machines[0].crash(CrashMode::Process);
            if round % 2 == 0 {
                boot(&machines, 0, &running);
            }
            let asked = env.clock.instant();
            other.leaders_settle(&[topic]).await;
            let told = other.leadership(topic, 0);
            assert!(
                told.is_some_and(|(leader, _)| leader > 1),
                "in round {round} it is told {told:?} after {:?}",
                asked.elapsed()
            );
            if round % 2 == 1 {
                boot(&machines, 0, &running);
            }
        }
    });
}

/// It says so, and comes last in the order of candidates: nobody waits for the next look, nor for it.
#[test]
fn a_partition_that_fails_on_a_living_leader_is_led_by_another_at_once() {
    let mut sim = Sim::new(93);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(100)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader(&env, &running).await);
        let first = Arc::clone(&running.lock()[&0]);
        let topic = first.image().topic(TOPIC).unwrap().id;
        for round in 0..6 {
            first_leads(&env, &first, topic).await;
            env.clock.sleep(Duration::from_millis(150 * round)).await;
            machines[0].disk().arm(FaultRule {
                op: Op::Write,
                path: topic.to_string(),
                when: When::Always,
                fault: Fault::Eio,
            });
            let partition = first.partition(topic, 0).unwrap();
            let refused = partition.produce(batch(1, &Producer::default(), 1), Acks::All);
            let others = Arc::clone(&running.lock()[&1]);
            let led = || others.leadership(topic, 0).is_some_and(|(leader, _)| leader > 1);
            let took = until(&env, "another leads", led).await;
            assert!(took < GIVEN_UP, "{took:?} in round {round}");
            drop(refused);
            machines[0].disk().clear_faults();
        }
    });
}

/// A disk that fails shows less than it has: a file may be shorter than what was synced until the disk is mounted again.
#[test]
fn a_replica_that_seems_damaged_while_its_disk_fails_is_opened_again() {
    let mut sim = Sim::new(94);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer {
            pending: Some(7),
            ..Producer::default()
        };
        let led = leader(&env, &running).await;
        led.produce(batch(1, &producer, 7), Acks::All)
            .unwrap()
            .await
            .unwrap();
        producer.answered(7);
        converge(&env, &running).await;
        let first = Arc::clone(&running.lock()[&0]);
        let topic = first.image().topic(TOPIC).unwrap().id;
        first_leads(&env, &first, topic).await;
        converge(&env, &running).await;
        let disk = machines[0].disk();
        let directory = Path::new(PARTITIONS_DIR).join(format!("{topic}-0"));
        let files = disk.read_dir(&directory).unwrap();
        let log = files.iter().find(|file| file.name.ends_with(".log")).unwrap();
        let file = disk.open(&directory.join(&log.name), OpenMode::Write).unwrap();
        let mut whole = vec![0; usize::try_from(log.len).unwrap()];
        file.read_exact_at(&mut whole, 0).unwrap();
        file.set_len(log.len / 2).unwrap();
        disk.arm(FaultRule {
            op: Op::Write,
            path: topic.to_string(),
            when: When::Nth(1),
            fault: Fault::Eio,
        });
        let partition = first.partition(topic, 0).unwrap();
        producer.pending = Some(1);
        drop(partition.produce(batch(1, &producer, 1), Acks::All));
        let others = Arc::clone(&running.lock()[&1]);
        let led = || others.leadership(topic, 0).is_some_and(|(leader, _)| leader > 1);
        until(&env, "another leads", led).await;
        env.clock.sleep(BACK).await;
        let reason = partition.offline_reason().expect("it is damaged");
        assert!(reason.contains("offset 0"), "no other failure: {reason}");
        disk.clear_faults();
        file.set_len(0).unwrap();
        file.write_at(&mut [IoSlice::new(&whole)], 0).unwrap();
        let back = || partition.offline_reason().is_none();
        until(&env, "it is opened again", back).await;
        let found = converge(&env, &running).await;
        assert!(found.iter().all(|replica| *replica == found[0]));
    });
}

/// What it applies after its restart has no record in it: nothing says by itself how far records are committed.
#[test]
fn a_follower_that_begins_anew_behind_an_election_knows_what_is_committed() {
    let mut sim = Sim::new(93);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let first = leader(&env, &running).await;
        converge(&env, &running).await;
        let mut producer = Producer {
            pending: Some(7),
            ..Producer::default()
        };
        first
            .produce(batch(1, &producer, 7), Acks::All)
            .unwrap()
            .await
            .unwrap();
        producer.answered(7);
        converge(&env, &running).await;
        env.clock.sleep(CHECKPOINTS).await;
        let led = || {
            let nodes: Vec<_> = running
                .lock()
                .iter()
                .map(|(place, node)| (*place, Arc::clone(node)))
                .collect();
            nodes.into_iter().find_map(|(place, node)| {
                let partition = node.partition(first.id().topic_id, 0)?;
                partition.leadership().map(|epoch| (place, epoch))
            })
        };
        let (place, epoch) = led().unwrap();
        running.lock().remove(&place);
        machines[place].crash(CrashMode::Process);
        let mut next = None;
        // Quicker than a checkpoint.
        while next.is_none_or(|(_, now)| now <= epoch) {
            env.clock.sleep(Duration::from_millis(1)).await;
            next = led();
        }
        let follower = (0..NAMES.len()).find(|other| ![place, next.unwrap().0].contains(other));
        let follower = follower.unwrap();
        running.lock().remove(&follower);
        machines[follower].crash(CrashMode::Process);
        boot(&machines, follower, &running);
        boot(&machines, place, &running);
        let found = converge(&env, &running).await;
        assert_eq!(found.len(), NAMES.len());
    });
}

/// Half of six brokers are left, and a majority of the five that voted and of the five that are to.
#[test]
fn those_who_are_a_majority_before_and_after_a_change_of_voters_elect_in_the_midst_of_it() {
    let mut sim = Sim::new(95);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let newcomers: Vec<Machine> = (4..7).map(|id| sim.add_machine(&format!("n{id}"))).collect();
    sim.net()
        .set_default_delay(Duration::from_millis(5)..=Duration::from_millis(5));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        for (id, machine) in (4..).zip(&newcomers) {
            let own = machine.env();
            let rpc = format!("n{id}:33145");
            let started = start_node(&own, id, &rpc, &SEEDS, SEGMENT_BYTES);
            let started = env.clock.timeout(CONVERGENCE, started).await;
            let place = usize::try_from(id).unwrap() - 1;
            running.lock().insert(place, started.expect("it joins").unwrap());
        }
        let asked = Arc::clone(&running.lock()[&1]);
        let new = NewTopic {
            name: TOPIC.into(),
            partitions: vec![vec![1, 2, 3, 4, 5]],
            overrides: BTreeMap::new(),
        };
        let topic = asked.create_topic(new).await.unwrap().id;
        first_leads(&env, &asked, topic).await;
        env.clock.sleep(CHECKPOINTS).await;
        // The index of the last entry on each of those that stay.
        let last = || {
            let nodes: Vec<Arc<Cluster>> = (1..4).map(|place| Arc::clone(&running.lock()[&place])).collect();
            let last = |node: Arc<Cluster>| node.partition(topic, 0)?.log()?.end().last.map(|id| id.index);
            nodes.into_iter().map(last).collect::<Vec<_>>()
        };
        let begun = last()[0].unwrap();
        reassign(&asked, Some(vec![1, 2, 3, 4, 6])).await;
        // One entry has the sixth receive, the next is the first of the two steps by which it is to vote.
        let half_changed = [Some(begun + 2); 3];
        let mut reached = last();
        while reached != half_changed {
            env.clock.sleep(Duration::from_millis(1)).await;
            reached = last();
            assert!(
                reached.iter().all(|index| *index <= Some(begun + 2)),
                "{reached:?}"
            );
        }
        for (place, machine) in machines.iter().chain(&newcomers).enumerate() {
            if [0, 4, 5].contains(&place) {
                drop(running.lock().remove(&place));
                machine.crash(CrashMode::Process);
            }
        }
        let is_led = || {
            let led = |node: &Cluster| {
                node.leadership(topic, 0)
                    .is_some_and(|(leader, _)| (2..5).contains(&leader))
            };
            all(&running, led)
        };
        let took = until(&env, "another leads", is_led).await;
        assert!(took < FAILOVER, "{took:?}");
    });
}
