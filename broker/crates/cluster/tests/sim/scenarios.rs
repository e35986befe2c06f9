//! Courses of events in which brokers have lost what was acknowledged, or have brought back what was gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{Acks, Isolation, NewTopic, Partition, ReadError, ServedBy};
use takhin_runtime::Env;
use takhin_runtime::sim::{CrashMode, Machine, Sim};

use crate::nodes::{NAMES, Running, TOPIC, boot, boot_all, converge, leader, until};
use crate::world::{Producer, batch};

pub(crate) async fn write(
    env: &Env,
    running: &Running,
    producer: &mut Producer,
    batches: u64,
) -> Arc<Partition> {
    for _ in 0..batches {
        producer.pending = Some(2);
        loop {
            let led = leader(env, running).await;
            let written = led.produce(batch(1, producer, 2), Acks::All);
            if let Ok(ticket) = written
                && ticket.await.is_ok()
            {
                break;
            }
            env.clock.sleep(Duration::from_millis(20)).await;
        }
        producer.answered(2);
    }
    leader(env, running).await
}

fn place_of(running: &Running, led: &Arc<Partition>) -> usize {
    let nodes = running.lock();
    let is_it = |(_, node): &(&usize, &Arc<takhin_cluster::Cluster>)| {
        let id = led.id();
        node.partition(id.topic_id, id.index)
            .is_some_and(|partition| Arc::ptr_eq(&partition, led))
    };
    *nodes.iter().find(is_it).unwrap().0
}

/// DeleteRecords was answered: no later leader shows those records again.
#[test]
fn deleted_records_stay_deleted_whoever_leads() {
    let mut sim = Sim::new(111);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.net()
        .set_default_delay(Duration::from_micros(100)..=Duration::from_millis(5));
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer::default();
        let mut deleted = 0;
        for round in 0..8 {
            let led = write(&env, &running, &mut producer, 5).await;
            let wanted = led.offsets().high_watermark - 4;
            let Ok(start) = led.delete_records(Some(wanted)).await else {
                // Leadership moved, which leaves it open; the next round will tell.
                continue;
            };
            assert_eq!(start, wanted);
            deleted = wanted;
            let place = place_of(&running, &led);
            drop(led);
            drop(running.lock().remove(&place));
            machines[place].crash(match round % 2 {
                0 => CrashMode::Process,
                _ => CrashMode::Power,
            });
            let next = leader(&env, &running).await;
            assert!(next.offsets().log_start_offset >= deleted, "round {round}");
            let below = next.fetch(
                deleted - 1,
                1 << 20,
                true,
                Isolation::ReadUncommitted,
                ServedBy::Leader,
            );
            assert!(
                matches!(below, Err(ReadError::OffsetOutOfRange { .. })),
                "round {round}"
            );
            boot(&machines, place, &running);
            until(&env, "it is back", || running.lock().len() == NAMES.len()).await;
        }
        assert!(deleted > 0, "nothing was ever deleted");
        for replica in converge(&env, &running).await {
            assert_eq!(replica.first().map(|(offset, _)| *offset), Some(deleted));
        }
    });
}

/// A broker that was away while a topic was deleted, and made again under its name, has nothing of the old one.
#[test]
fn a_topic_that_is_made_again_begins_empty_on_every_broker() {
    let mut sim = Sim::new(112);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        let mut producer = Producer::default();
        let old = write(&env, &running, &mut producer, 9).await.id();
        let away = 2;
        drop(running.lock().remove(&away));
        machines[away].crash(CrashMode::Power);
        let other = Arc::clone(&running.lock()[&0]);
        other.delete_topic(old.topic_id).await.unwrap();
        let again = NewTopic {
            name: TOPIC.to_owned(),
            partitions: vec![vec![3, 1, 2]],
            overrides: BTreeMap::new(),
        };
        let new = other.create_topic(again).await.unwrap();
        assert_ne!(new.id, old.topic_id);
        let mut producer = Producer::default();
        let led = write(&env, &running, &mut producer, 2).await;
        assert_eq!((led.id().topic_id, led.offsets().high_watermark), (new.id, 4));
        drop(led);
        boot(&machines, away, &running);
        until(&env, "it is back", || running.lock().len() == NAMES.len()).await;
        for replica in converge(&env, &running).await {
            assert_eq!(replica.len(), 4);
        }
        let back = Arc::clone(&running.lock()[&away]);
        assert!(back.partition(old.topic_id, 0).is_none());
    });
}
