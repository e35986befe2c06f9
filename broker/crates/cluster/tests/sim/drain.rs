//! A broker that is being drained: leadership leaves it and does not come back, whatever happens, until it is undrained.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Cluster, NewTopic, NoElection, ProduceError, TopicError};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{NAMES, Running, TOPIC, boot, boot_all, leader, until};
use crate::world::{Producer, batch};

/// Several looks for partitions that another broker ought to lead.
const LONG: Duration = Duration::from_secs(60);

fn node(running: &Running, index: usize) -> Arc<Cluster> {
    running.lock()[&index].clone()
}

/// Whether the first node leads any partition of `topic`, or the metadata.
fn first_leads(running: &Running, topic: &str) -> bool {
    let Some(cluster) = running.lock().get(&0).cloned() else {
        return false;
    };
    let Some(topic) = cluster.image().topic(topic).map(|topic| topic.id) else {
        return false;
    };
    let leads = |partition: Arc<takhin_cluster::Partition>| partition.leadership().is_some();
    cluster.partition(topic, 0).is_some_and(leads)
}

/// Writes for a while, and watches that the first node leads neither the topic nor the metadata.
async fn write_without_the_first(env: &Env, running: &Running, producer: &mut Producer) {
    let end = env.clock.instant() + LONG;
    while env.clock.instant() < end {
        producer.pending = Some(5);
        let produced = leader(env, running)
            .await
            .produce(batch(1, producer, 5), Acks::All);
        if let Ok(ticket) = produced
            && ticket.await.is_ok()
        {
            producer.answered(5);
        }
        assert!(
            !first_leads(running, TOPIC),
            "it leads although it is being drained"
        );
        assert_ne!(node(running, 1).controller_id(), 1, "it is the controller");
        env.clock.sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn leadership_leaves_a_drained_broker_and_comes_back_when_it_is_undrained() {
    let mut sim = Sim::new(41);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        drop(leader(&env, &running).await);
        until(&env, "the preferred replica leads", || {
            first_leads(&running, TOPIC)
        })
        .await;
        let (first, other) = (node(&running, 0), node(&running, 1));
        let alone = NewTopic {
            name: "alone".into(),
            partitions: vec![vec![1]],
            overrides: BTreeMap::new(),
        };
        first.create_topic(alone).await.unwrap();
        drop(first);

        // Said twice, on a broker that need not be the controller.
        other.set_draining(1, true).await.unwrap();
        other.set_draining(1, true).await.unwrap();
        assert_eq!(
            other.set_draining(7, true).await,
            Err(TopicError::UnknownBroker { id: 7 })
        );
        until(&env, "leadership leaves it", || {
            !first_leads(&running, TOPIC) && ![-1, 1].contains(&other.controller_id())
        })
        .await;
        let mut producer = Producer::default();
        write_without_the_first(&env, &running, &mut producer).await;
        let topic = other.image().topic(TOPIC).unwrap().id;
        let elected = other.elect_preferred(topic, 0).await;
        assert_eq!(elected, Err(NoElection::Draining(1)));

        // It begins anew, and finds the others in search of a leader.
        drop(running.lock().remove(&0));
        machines[0].crash(CrashMode::Power);
        boot(&machines, 0, &running);
        until(&env, "it is back", || running.lock().contains_key(&0)).await;
        net.isolate(NAMES[1]);
        until(&env, "a partition that nobody else has is served", || {
            first_leads(&running, "alone")
        })
        .await;
        env.clock.sleep(Duration::from_secs(5)).await;
        assert!(!first_leads(&running, TOPIC), "another replica was in sync");
        net.heal_all();
        env.clock.sleep(Duration::from_secs(5)).await;
        write_without_the_first(&env, &running, &mut producer).await;
        assert!(producer.next > 500, "{producer:?}");

        other.set_draining(1, false).await.unwrap();
        assert!(other.image().draining.is_empty());
        until(&env, "the preferred replica leads again", || {
            first_leads(&running, TOPIC)
        })
        .await;
    });
}

/// The last replica in sync serves, drained or not.
#[test]
fn a_drained_broker_leads_what_no_other_broker_can() {
    let mut sim = Sim::new(42);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    let net = sim.net().clone();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer::default();
        drop(leader(&env, &running).await);
        // The third lacks what the first two acknowledge; then it is alone with the first, which is being drained.
        net.isolate(NAMES[2]);
        env.clock.sleep(Duration::from_secs(20)).await;
        node(&running, 0).set_draining(1, true).await.unwrap();
        until(&env, "leadership leaves it", || !first_leads(&running, TOPIC)).await;
        producer.pending = Some(5);
        let led = leader(&env, &running).await;
        led.produce(batch(1, &producer, 5), Acks::All)
            .unwrap()
            .await
            .unwrap();
        producer.answered(5);
        drop(led);
        drop(running.lock().remove(&1));
        machines[1].crash(CrashMode::Power);
        net.heal_all();
        until(&env, "somebody leads", || {
            let nodes: Vec<_> = running.lock().values().cloned().collect();
            nodes.iter().any(|cluster| {
                let topic = cluster.image().topic(TOPIC).map(|topic| topic.id);
                let partition = topic.and_then(|topic| cluster.partition(topic, 0));
                partition.is_some_and(|partition| partition.leadership().is_some())
            })
        })
        .await;
        let led = leader(&env, &running).await;
        assert_eq!(led.offsets().log_end_offset, 5, "nothing is lost");
    });
}

/// Otherwise a client would ask the metadata, which still name this broker, and come back after its own pause.
#[test]
fn who_is_refused_while_leadership_is_passed_on_learns_who_leads_next() {
    let mut sim = Sim::new(42);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(500)..=Duration::from_millis(10));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer::default();
        drop(leader(&env, &running).await);
        for round in 0..6 {
            until(&env, "the preferred replica leads", || {
                first_leads(&running, TOPIC)
            })
            .await;
            let (first, other) = (node(&running, 0), node(&running, 1));
            let led = leader(&env, &running).await;
            let draining = Arc::clone(&other);
            let draining = env
                .tasks
                .spawn("drain", async move { draining.set_draining(1, true).await });
            let refused = loop {
                producer.pending = Some(2);
                match led.produce(batch(1, &producer, 2), Acks::All) {
                    Ok(ticket) => {
                        ticket.await.expect("what is taken is committed");
                        producer.answered(2);
                    }
                    Err(error) => break error,
                }
                env.clock.sleep(Duration::from_millis(1)).await;
            };
            assert_eq!(refused, ProduceError::NotLeader, "round {round}");
            let begun = env.clock.instant();
            first.passed_on(&led).await;
            let next = first.leadership(led.id().topic_id, 0);
            assert!(
                next.is_some_and(|(leader, _)| leader > 1),
                "round {round}: {next:?} after {:?}",
                begun.elapsed()
            );
            // By now it is settled: nobody waits again.
            let begun = env.clock.instant();
            first.passed_on(&led).await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
            draining.await.unwrap().unwrap();
            other.set_draining(1, false).await.unwrap();
        }
    });
}
