//! A disk that fills up.

use std::fs;

use anyhow::Result;
use takhin_e2e::disk;
use takhin_e2e::rng::Rng;

use crate::stage::Stage;

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
    stage.hold(rng, 2_000..8_000);
    fs::remove_file(ballast)?;
    if !stage.brokers[victim].is_running()? {
        // It may end when it cannot write what it must, but not stay away once there is space.
        stage.brokers[victim].kill();
        stage.start(&[victim])?;
    }
    Ok(())
}
