//! A rolling upgrade and a rolling downgrade between two builds that know the same formats.

use anyhow::{Result, ensure};
use takhin_e2e::rng::Rng;

use crate::stage::{Build, Stage, pick};

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let (old, new) = (stage.with_build(Build::Old), stage.with_build(Build::New));
    all_are_heard(stage, rng)?;
    for broker in old {
        exchange(stage, broker, Build::New)?;
        stage.settle()?;
    }
    // One that has written with the new build.
    let broker = pick(rng, &new);
    exchange(stage, broker, Build::Old)?;
    stage.settle()?;
    all_are_heard(stage, rng)
}

fn exchange(stage: &mut Stage, broker: usize, build: Build) -> Result<()> {
    stage.brokers[broker].stop()?;
    stage.goes_on()?;
    stage.give_build(broker, build);
    stage.start(&[broker])
}

/// Every broker takes a change of the metadata, and has the controller make it, whichever build each of the two runs. Nothing
/// is hurt now, so that it is made at once: one that is only made after a while was not understood.
fn all_are_heard(stage: &Stage, rng: &mut Rng) -> Result<()> {
    for broker in 0..stage.brokers.len() {
        let id = stage.brokers[broker].node_id();
        let topic = format!("asked-of-{id}-{:x}", rng.next_u64());
        let error = stage.ask_to_create(broker, &topic, 1)?;
        ensure!(
            error == 0,
            "broker {id} was asked to create {topic}: error {error}"
        );
    }
    Ok(())
}
