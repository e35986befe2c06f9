//! What acknowledgements say: `min.insync.replicas` above a majority, and leaders that hear of none.

use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Partition, ProduceError};
use takhin_runtime::sim::{Machine, Sim};

use crate::nodes::{NAMES, TOPIC, boot_all, converge, leader, leader_of};
use crate::world::{Producer, batch};

/// Longer than it takes until a silent replica counts as out of sync.
const SILENT: Duration = Duration::from_secs(6);

#[test]
fn acknowledged_records_are_on_all_replicas_that_the_topic_asks_for() {
    let mut sim = Sim::new(61);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    net.set_default_delay(Duration::from_micros(500)..=Duration::from_millis(2));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader_of(&env, &running, &[("min.insync.replicas", "3")]).await);
        converge(&env, &running).await;
        let led = leader(&env, &running).await;
        let nodes: Vec<_> = running.lock().values().cloned().collect();
        let replicas: Vec<_> = nodes
            .iter()
            .map(|node| node.partition(led.id().topic_id, 0).unwrap())
            .collect();
        // One of them is far away from the others.
        let late = replicas.iter().position(|replica| replica.leadership().is_none());
        let late = late.unwrap();
        let slow = Duration::from_millis(400);
        for name in NAMES {
            net.set_delay(name, NAMES[late], slow..=slow);
        }
        let mut producer = Producer::default();
        for _ in 0..5 {
            producer.pending = Some(2);
            let ticket = led.produce(batch(1, &producer, 2), Acks::All).unwrap();
            let produced = ticket.await.unwrap();
            producer.answered(2);
            for replica in &replicas {
                assert!(replica.offsets().log_end_offset >= produced.base_offset + 2);
            }
        }

        // Gone, with a batch under way: it is committed, and its producer is told what is missing.
        net.isolate(NAMES[late]);
        producer.pending = Some(2);
        let ticket = led.produce(batch(1, &producer, 2), Acks::All).unwrap();
        let answer = env.clock.timeout(SILENT, ticket).await.expect("an answer");
        let expected = ProduceError::NotEnoughReplicasAfterAppend {
            in_sync: 2,
            wanted: 3,
        };
        assert_eq!(answer, Err(expected));
        assert!(led.is_settled());
        net.heal_all();
        let accepted = async {
            loop {
                if let Ok(ticket) = led.produce(batch(1, &producer, 2), Acks::All)
                    && ticket.await.is_ok()
                {
                    return;
                }
                env.clock.sleep(Duration::from_millis(50)).await;
            }
        };
        env.clock.timeout(SILENT, accepted).await.expect("it is back");
        let found = converge(&env, &running).await;
        assert_eq!(found[0].len(), 12, "nothing twice");
    });
}

/// A leader that has only just begun goes by whom the last one counted: what it took for more would be in its log, and
/// there twice once its producer has sent it again.
#[test]
fn a_new_leader_counts_nobody_who_was_out_of_sync() {
    let mut sim = Sim::new(63);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader_of(&env, &running, &[("min.insync.replicas", "3")]).await);
        converge(&env, &running).await;
        net.isolate(NAMES[2]);
        env.clock.sleep(SILENT).await;
        let nodes: Vec<_> = (0..2).map(|place| Arc::clone(&running.lock()[&place])).collect();
        let topic = nodes[0].image().topic(TOPIC).unwrap().id;
        let replicas: Vec<_> = nodes
            .iter()
            .map(|node| node.partition(topic, 0).unwrap())
            .collect();
        let refused = ProduceError::NotEnoughReplicas {
            in_sync: 2,
            wanted: 3,
        };
        let leads = || replicas.iter().position(|replica| replica.leadership().is_some());
        let from = leads().expect("one leads");
        let giving = Arc::clone(&nodes[from]);
        let giving = async move { giving.give_leadership_away().await };
        let giving = env.tasks.spawn("give away", giving);
        let taken = async {
            while leads() != Some(1 - from) {
                env.clock.sleep(Duration::from_millis(1)).await;
            }
            replicas[1 - from].produce(batch(1, &Producer::default(), 1), Acks::All)
        };
        let answer = env.clock.timeout(SILENT, taken).await.expect("the other leads");
        assert_eq!(answer.map(drop), Err(refused));
        giving.await.unwrap();
        assert_eq!(replicas[0].offsets().log_end_offset, 0);
    });
}

/// A client that asks for the leader's word only would be told yes for ever by one that others have replaced.
#[test]
fn a_leader_that_hears_of_no_majority_takes_nothing() {
    let mut sim = Sim::new(62);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let led = leader(&env, &running).await;
        converge(&env, &running).await;
        let leads = |partition: &Arc<Partition>| partition.leadership().is_some();
        let place = running.lock().iter().find_map(|(place, node)| {
            let partition = node.partition(led.id().topic_id, 0)?;
            leads(&partition).then_some(*place)
        });
        let mut producer = Producer {
            pending: Some(1),
            ..Producer::default()
        };
        let ticket = led.produce(batch(1, &producer, 1), Acks::All).unwrap();
        assert!(ticket.await.is_ok());
        producer.answered(1);
        net.isolate(NAMES[place.unwrap()]);
        let refused = async {
            loop {
                producer.pending = Some(1);
                match led.produce(batch(1, &producer, 1), Acks::Leader) {
                    Ok(ticket) => assert!(ticket.await.is_ok(), "the leader's word"),
                    Err(error) => return error,
                }
                producer.answered(1);
                env.clock.sleep(Duration::from_millis(100)).await;
            }
        };
        let refused = env
            .clock
            .timeout(SILENT, refused)
            .await
            .expect("it takes no more");
        assert_eq!(refused, ProduceError::NotLeader);
        assert_eq!(led.offsets().high_watermark, 1, "what is committed is read on");
        net.heal_all();
        converge(&env, &running).await;
    });
}
