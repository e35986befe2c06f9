//! A replica that is added after another one of its broker was removed: what it is given at first names the other one.

use std::time::Duration;

use takhin_cluster::Acks;
use takhin_runtime::Env;
use takhin_runtime::sim::{Machine, Sim};

use crate::nodes::{NAMES, Running, TOPIC, boot_all, delete_soon, leader, reassign, until};
use crate::world::{Producer, batch};

/// Until segments without records are gone, and a snapshot ends where they did.
const PURGED: Duration = Duration::from_secs(10);

async fn write(env: &Env, running: &Running, producer: &mut Producer) {
    for _ in 0..100 {
        producer.pending = Some(10);
        let led = leader(env, running).await;
        let written = led.produce(batch(1, producer, 10), Acks::All);
        written.unwrap().await.unwrap();
        producer.answered(10);
    }
}

async fn place(env: &Env, running: &Running, replicas: &[i32]) {
    let asked = running.lock()[&0].clone();
    reassign(&asked, Some(replicas.to_vec())).await;
    let is_so = || {
        running.lock().values().all(|node| {
            let image = node.image();
            let partition = &image.topic(TOPIC).unwrap().partitions[0];
            partition.replicas == replicas && image.reassigning.is_empty()
        })
    };
    until(env, "the replicas are where they are to be", is_so).await;
}

/// The third broker's replica is the only one when the log's beginning goes, and is removed. The one that it gets later is
/// given a snapshot of that time, in which the third broker votes alone: it does not take that vote for its own.
#[test]
fn a_replica_does_not_vote_for_one_that_its_broker_had_before() {
    let mut sim = Sim::new(141);
    let machines: Vec<Machine> = NAMES.map(|name| sim.add_machine(name)).into();
    sim.run(|env| async move {
        let running = boot_all(&machines);
        delete_soon(&env, &running).await;
        let mut producer = Producer::default();
        place(&env, &running, &[3]).await;
        write(&env, &running, &mut producer).await;
        let led = leader(&env, &running).await;
        let deleted = led.offsets().high_watermark;
        led.delete_records(Some(deleted)).await.unwrap();
        env.clock.sleep(PURGED).await;
        assert!(led.log().unwrap().end().purged.is_some(), "nothing was purged");
        write(&env, &running, &mut producer).await;
        place(&env, &running, &[1]).await;
        write(&env, &running, &mut producer).await;
        let led = leader(&env, &running).await;
        let epoch = led.leader_epoch();
        place(&env, &running, &[1, 3]).await;
        write(&env, &running, &mut producer).await;
        assert_eq!(
            leader(&env, &running).await.leader_epoch(),
            epoch,
            "somebody was elected"
        );
        let end = led.offsets().high_watermark;
        let third = running.lock()[&2].clone();
        let topic = third.image().topic(TOPIC).unwrap().id;
        let has_all = || third.partition(topic, 0).unwrap().offsets().high_watermark == end;
        until(&env, "the third broker has all", has_all).await;
    });
}
