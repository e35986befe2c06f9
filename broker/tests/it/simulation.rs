//! The whole broker in the simulation: sockets, handlers, logs, and a power cut.

use bytes::Bytes;
use takhin_broker::Node;
use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
use takhin_runtime::sim::{CrashMode, Sim, Trace};
use uuid::Uuid;

use crate::fetch::{fetch_all, produce};
use crate::support::{Client, config};

/// A batch of these values from long ago: real time must not enter a story.
fn records(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(NewRecord {
            timestamp: 1,
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        });
    }
    builder.build().unwrap().to_bytes()
}

/// Produces, cuts the power, starts again and reads; returns the record of all that happened.
fn story(seed: u64) -> Trace {
    let mut sim = Sim::new(seed);
    sim.trace().keep_lines();
    let (id, acknowledged) = sim.run(|env| async move {
        let node = Node::start(env.clone(), config("/data", &[])).await.unwrap();
        let mut client = Client::connect(&env, &node.addresses()[0].1.to_string()).await;
        let id: Uuid = client.create("t", 1, &[]).await;
        let mut acknowledged = 0;
        for i in 0..20 {
            let records = records(&[&i.to_string(), "x"]);
            assert_eq!(produce(&mut client, id, 0, records).await, acknowledged);
            acknowledged += 2;
        }
        (id, acknowledged)
    });
    sim.crash(CrashMode::Power);
    sim.run(|env| async move {
        let node = Node::start(env.clone(), config("/data", &[])).await.unwrap();
        let mut client = Client::connect(&env, &node.addresses()[0].1.to_string()).await;
        let batches = fetch_all(&mut client, 13, "t", id).await;
        assert_eq!(batches.last().unwrap().header.next_offset(), acknowledged);
        node.stop().await;
    });
    sim.trace().clone()
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    for seed in 1..=3 {
        story(seed);
    }
}

/// A whole node from one seed: every operation on the disk and every delivery on the network, with contents and order.
#[test]
fn a_seed_replays_byte_for_byte() {
    let (one, two) = (story(11), story(11));
    let parts = one.lines().into_iter().zip(two.lines()).find(|(a, b)| a != b);
    assert_eq!(parts, None, "the first line in which two runs of one seed differ");
    assert_eq!((one.hash(), one.events()), (two.hash(), two.events()));
    assert_ne!(one.hash(), story(12).hash());
}
