//! Connections that are reset in the middle of anything, those of clients too.

use anyhow::{Result, ensure};
use takhin_e2e::rng::Rng;

use crate::network::{KAFKA_PORT, RPC_PORT, Rule};
use crate::stage::{Stage, below};

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let times = rng.within(3..10);
    stage.say(&format!("{times} times"));
    let mut met = 0;
    for _ in 0..times {
        let victim = below(rng, stage.brokers.len());
        let port = [RPC_PORT, KAFKA_PORT][below(rng, 2)];
        stage.network.hosts[victim].filter(&[Rule::Reset(port)])?;
        stage.hold(rng, 50..500);
        met += stage.network.heal()?;
        stage.some_load(rng)?;
    }
    ensure!(met > 0, "no connection was reset");
    Ok(())
}
