//! A broker that lost its data directory and still has its id: what it voted and acknowledged is forgotten, so that it
//! must not take part again under that id.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use takhin_e2e::rng::Rng;
use takhin_e2e::wait;
use takhin_e2e::wire::Connection;

use crate::stage::{LIMIT, OFFSETS, Stage, TOPIC};

/// Of every partition.
const REPLICAS: usize = 3;

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victim = stage.some_leader(rng)?;
    let old = stage.brokers[victim].node_id();
    let data = stage.brokers[victim].data_dir().to_owned();
    let empty = stage.disks[victim].path().join(format!("data-{}", stage.next_id));
    stage.say(&format!("broker {old}"));
    stage.brokers[victim].kill();
    stage.goes_on()?;
    stage.brokers[victim].move_to(&empty);
    is_refused(stage, victim)?;
    // The remedies that it names.
    if rng.within(0..2) == 0 {
        stage.say("started with its own directory");
        stage.brokers[victim].move_to(&data);
        return stage.start(&[victim]);
    }
    let new = stage.next_id;
    stage.next_id += 1;
    stage.say(&format!("started as broker {new}"));
    fs::remove_dir_all(&data)?;
    fs::remove_dir_all(&empty)?;
    let address = stage.brokers[victim].address();
    stage.brokers[victim].identify(new, address);
    stage.start(&[victim])?;
    for topic in [TOPIC, OFFSETS] {
        replace(stage, topic, i32::try_from(old)?, i32::try_from(new)?)?;
    }
    Ok(())
}

fn is_refused(stage: &mut Stage, victim: usize) -> Result<()> {
    let broker = &mut stage.brokers[victim];
    broker.start_process()?;
    let status = broker.wait_end(Duration::from_secs(60))?;
    ensure!(!status.success(), "it ended, but called that a success");
    let log = broker.log_tail();
    let reason = format!("node id {} belongs to a broker with", broker.node_id());
    ensure!(log.contains(&reason), "it does not say why:\n{log}");
    Ok(())
}

/// Has one broker take over the replicas of another.
fn replace(stage: &Stage, topic: &str, old: i32, new: i32) -> Result<()> {
    let mut connection = Connection::open(stage.brokers[0].address())?;
    // The cluster may be moving replicas onto the new broker by itself already: then both are listed.
    let replaced = |replicas: &[i32]| -> Vec<i32> {
        let mut each = Vec::new();
        for id in replicas.iter().map(|id| if *id == old { new } else { *id }) {
            if !each.contains(&id) && each.len() < REPLICAS {
                each.push(id);
            }
        }
        each
    };
    for (partition, placement) in (0..).zip(stage.placements(topic)?) {
        let error = connection.reassign(topic, partition, &replaced(&placement.replicas))?;
        ensure!(
            error == 0,
            "AlterPartitionReassignments {topic}-{partition}: error {error}"
        );
    }
    wait::until(format_args!("{topic} to have left broker {old}"), LIMIT, || {
        let mut placements = stage.placements(topic)?.into_iter();
        Ok(placements.all(|p| !p.replicas.contains(&old) && p.in_sync == p.replicas.len()))
    })
}
