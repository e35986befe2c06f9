//! What must hold all the time, one file each, and who looks.
//!
//! Consistent groups are looked after where groups are: `broker/tests/it/coordinators.rs`.

pub(crate) mod acknowledged;
mod election_safety;
mod high_watermark;
mod leader_completeness;
pub(crate) mod log_matching;
pub(crate) mod offsets;
mod one_decision;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_cluster::{Image, Offsets};
use takhin_runtime::{Env, Shutdown};

use crate::nodes::{Running, TOPIC};
use crate::oracle::Oracle;
use crate::world::records_of;

/// How often everybody is looked at, in virtual time: several times within an election.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of a replica that are read at each look, and one batch at least.
const READ: usize = 1 << 12;

/// One replica at one moment.
pub(crate) struct Sighting {
    /// Index of its node.
    pub(crate) node: usize,
    /// The epoch in which it leads, if it does.
    pub(crate) leads: Option<i32>,
    pub(crate) offsets: Offsets,
}

#[derive(Default)]
struct Invariants {
    election_safety: election_safety::ElectionSafety,
    leader_completeness: leader_completeness::LeaderCompleteness,
    high_watermark: high_watermark::HighWatermark,
    one_decision: one_decision::OneDecision,
    offsets: offsets::Stable,
}

/// Looks at all nodes until told to stop; returns how many leaders it saw come.
pub(crate) async fn watch(env: Env, running: Running, oracle: Arc<Mutex<Oracle>>, stop: Shutdown) -> usize {
    let mut invariants = Invariants::default();
    while !stop.is_triggered() {
        look(&mut invariants, &running, &oracle.lock());
        env.clock.sleep(LOOK).await;
    }
    invariants.election_safety.elections()
}

fn look(invariants: &mut Invariants, running: &Running, oracle: &Oracle) {
    for (node, cluster) in &*running.lock() {
        let image: Arc<Image> = cluster.image();
        invariants.one_decision.see(*node, cluster, &image);
        let Some(topic) = image.topic(TOPIC) else { continue };
        let Some(partition) = cluster.partition(topic.id, 0) else {
            continue;
        };
        let sighting = Sighting {
            node: *node,
            leads: partition.leadership(),
            offsets: partition.offsets(),
        };
        invariants.election_safety.see(&sighting);
        invariants
            .leader_completeness
            .see(&sighting, oracle.acknowledged_end());
        invariants.high_watermark.see(&sighting);
        let Some(log) = partition.log() else { continue };
        let (from, end) = (
            invariants.offsets.next(&sighting),
            sighting.offsets.high_watermark,
        );
        let mut found = Vec::new();
        // A disk that fails, or a log that is being opened anew, shows nothing.
        if let Ok(ranges) = log.read(from, end, READ, true)
            && let Ok(bytes) = ranges.read_all()
        {
            records_of(&bytes, &mut found);
            invariants.offsets.see(*node, &found);
        }
    }
}
