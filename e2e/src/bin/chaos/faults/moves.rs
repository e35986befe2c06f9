//! Replicas that are moved, and a broker that dies meanwhile.

use anyhow::{Result, ensure};
use takhin_e2e::rng::Rng;
use takhin_e2e::wait;
use takhin_e2e::wire::Connection;

use crate::stage::{LIMIT, Stage, TOPIC, below};

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let mut connection = Connection::open(stage.brokers[0].address())?;
    let mut wanted = Vec::new();
    for (partition, placement) in (0..).zip(stage.placements(TOPIC)?) {
        let ids = stage.some_brokers(rng, placement.replicas.len());
        let ids: Result<Vec<i32>, _> = ids
            .iter()
            .map(|b| stage.brokers[*b].node_id().try_into())
            .collect();
        let ids = ids?;
        let error = connection.reassign(TOPIC, partition, &ids)?;
        ensure!(
            error == 0,
            "AlterPartitionReassignments {TOPIC}-{partition}: error {error}"
        );
        wanted.push(ids);
    }
    let victim = below(rng, stage.brokers.len());
    stage.say(&format!(
        "to {wanted:?}, and broker {} dies",
        stage.brokers[victim].node_id()
    ));
    stage.hold(rng, 0..1_500);
    stage.brokers[victim].kill();
    stage.goes_on()?;
    stage.start(&[victim])?;
    wait::until("the replicas to be moved", LIMIT, || {
        let placements = stage.placements(TOPIC)?;
        let mut both = placements.iter().zip(&wanted);
        Ok(
            both.all(|(placement, wanted)| {
                placement.replicas == *wanted && placement.in_sync == wanted.len()
            }),
        )
    })
}
