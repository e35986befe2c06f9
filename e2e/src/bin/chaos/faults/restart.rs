//! A rolling restart.

use anyhow::Result;
use takhin_e2e::rng::Rng;

use crate::stage::{Stage, shuffle};

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let mut order: Vec<usize> = (0..stage.brokers.len()).collect();
    shuffle(rng, &mut order);
    let ids: Vec<u32> = order.iter().map(|b| stage.brokers[*b].node_id()).collect();
    stage.say(&format!("in the order {ids:?}"));
    for broker in order {
        stage.brokers[broker].stop()?;
        stage.goes_on()?;
        stage.start(&[broker])?;
        stage.settle()?;
    }
    Ok(())
}
