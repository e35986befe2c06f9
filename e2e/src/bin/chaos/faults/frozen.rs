//! A disk that answers nothing at all: the process lives and talks, but its writes do not return.

use anyhow::Result;
use takhin_e2e::rng::Rng;

use crate::stage::Stage;

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victim = stage.some_leader(rng)?;
    stage.say(&format!("broker {}", stage.brokers[victim].node_id()));
    let frozen = stage.disks[victim].freeze()?;
    let others = stage.goes_on();
    stage.hold(rng, 0..5_000);
    drop(frozen);
    others?;
    if !stage.brokers[victim].is_running()? {
        stage.brokers[victim].kill();
        stage.start(&[victim])?;
    }
    Ok(())
}
