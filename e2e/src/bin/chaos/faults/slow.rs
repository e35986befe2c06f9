//! A disk whose syncs take long.

use std::time::Duration;

use anyhow::{Result, ensure};
use takhin_e2e::rng::Rng;
use takhin_e2e::trace::Tampering;

use crate::stage::Stage;

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victim = stage.some_leader(rng)?;
    let delay = Duration::from_millis(rng.within(20..500));
    stage.say(&format!("broker {}, {delay:?}", stage.brokers[victim].node_id()));
    let slow = Tampering::slow_syncs(stage.brokers[victim].pid()?, delay)?;
    let others = stage.goes_on();
    stage.hold(rng, 0..4_000);
    let struck = slow.struck();
    drop(slow);
    others?;
    ensure!(struck? > 0, "no sync was slow");
    Ok(())
}
