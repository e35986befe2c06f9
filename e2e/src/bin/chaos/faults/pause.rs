//! SIGSTOP and SIGCONT: a broker that says nothing, and then goes on as if nothing had been.

use anyhow::Result;
use takhin_e2e::rng::Rng;

use crate::stage::Stage;

pub(super) fn one(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victim = stage.some_leader(rng)?;
    stage.say(&format!("broker {}", stage.brokers[victim].node_id()));
    stage.brokers[victim].freeze()?;
    let others = stage.goes_on();
    stage.hold(rng, 0..10_000);
    stage.brokers[victim].thaw()?;
    others
}

pub(super) fn most(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let count = stage.majority();
    let victims = stage.some_brokers(rng, count);
    let ids: Vec<u32> = victims.iter().map(|v| stage.brokers[*v].node_id()).collect();
    stage.say(&format!("brokers {ids:?}"));
    for victim in &victims {
        stage.brokers[*victim].freeze()?;
    }
    stage.hold(rng, 1_000..8_000);
    victims
        .iter()
        .try_for_each(|victim| stage.brokers[*victim].thaw())
}
