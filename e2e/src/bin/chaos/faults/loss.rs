//! Packets that are lost at random.

use anyhow::Result;
use takhin_e2e::rng::Rng;

use crate::network::Rule;
use crate::stage::Stage;

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let percent = rng.within(5..31);
    let count = if rng.within(0..2) == 0 {
        1
    } else {
        stage.brokers.len()
    };
    let victims = stage.some_brokers(rng, count);
    let ids: Vec<u32> = victims.iter().map(|v| stage.brokers[*v].node_id()).collect();
    stage.say(&format!("{percent} % at brokers {ids:?}"));
    for victim in &victims {
        stage.network.hosts[*victim].filter(&[Rule::Loss(percent)])?;
    }
    // How fast, TCP alone says: its answer to a loss of a third is to hardly send at all.
    stage.hold(rng, 3_000..8_000);
    stage.network.heal_from_faults()
}
