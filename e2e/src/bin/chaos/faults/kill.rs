//! kill -9.

use anyhow::Result;
use takhin_e2e::rng::Rng;

use crate::stage::{Stage, pick, shuffle};

pub(super) fn one(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victims = [stage.some_leader(rng)?, stage.controller()?];
    let victim = pick(rng, &victims);
    stage.say(&format!("broker {}", stage.brokers[victim].node_id()));
    stage.brokers[victim].kill();
    stage.goes_on()?;
    stage.start(&[victim])
}

pub(super) fn most(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let count = stage.majority();
    let victims = stage.some_brokers(rng, count);
    kill(stage, &victims);
    stage.hold(rng, 500..5_000);
    stage.start(&victims)
}

pub(super) fn all(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let mut victims: Vec<usize> = (0..stage.brokers.len()).collect();
    kill(stage, &victims);
    shuffle(rng, &mut victims);
    stage.start(&victims)
}

fn kill(stage: &mut Stage, victims: &[usize]) {
    let ids: Vec<u32> = victims.iter().map(|v| stage.brokers[*v].node_id()).collect();
    stage.say(&format!("brokers {ids:?}"));
    for victim in victims {
        stage.brokers[*victim].kill();
    }
}
