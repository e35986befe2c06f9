//! A disk that fills up.

use std::fs;

use anyhow::Result;
use takhin_e2e::rng::Rng;
use takhin_e2e::{disk, wait};

use crate::stage::{LIMIT, Stage, TOPIC};

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victim = stage.some_leader(rng)?;
    // Above or below what the broker keeps free for itself: it refuses records, or the system refuses its writes.
    let left = if rng.within(0..2) == 0 { 32 << 20 } else { 64 << 10 };
    stage.say(&format!(
        "broker {}, {} KiB left",
        stage.brokers[victim].node_id(),
        left >> 10
    ));
    let path = stage.disks[victim].path();
    let ballast = path.join("ballast");
    let space = rustix::fs::statvfs(&path)?;
    disk::fill(&ballast, (space.f_bavail * space.f_frsize).saturating_sub(left))?;
    let others = refuses_alone(stage, victim);
    stage.hold(rng, 0..5_000);
    fs::remove_file(ballast)?;
    others?;
    if !stage.brokers[victim].is_running()? {
        // It may end when it cannot write what it must, but not stay away once there is space.
        stage.brokers[victim].kill();
        stage.start(&[victim])?;
    }
    Ok(())
}

/// The broker says that it refuses records, or has ended; what others lead goes on.
fn refuses_alone(stage: &mut Stage, victim: usize) -> Result<()> {
    wait::until("the broker to refuse records", LIMIT, || {
        if !stage.brokers[victim].is_running()? {
            return Ok(true);
        }
        let node = stage.ask(victim, "GET", "/v1/node")?;
        Ok(node["disk"]["refuses_records"] == true)
    })?;
    let id = i32::try_from(stage.brokers[victim].node_id())?;
    let placements = stage.placements(TOPIC)?;
    let by_others: Vec<bool> = placements
        .iter()
        .map(|p| p.leader >= 0 && p.leader != id)
        .collect();
    stage.goes_on_in(|partition| by_others.get(partition).copied().unwrap_or_default())
}
