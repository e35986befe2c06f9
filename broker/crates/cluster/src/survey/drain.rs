//! How far is a broker drained?

use super::Survey;
use super::findings::{ConcernKind, Findings};

/// How far a broker is drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainProgress {
    /// Whether it is to lead nothing.
    pub is_draining: bool,
    /// Partitions that it leads.
    pub leaders: usize,
    /// Whether it is the controller.
    pub is_controller: bool,
    /// Partitions that no other broker can lead at the moment.
    pub held: Findings,
}

impl DrainProgress {
    /// Whether it is being drained and leads nothing any more.
    pub fn is_done(&self) -> bool {
        self.is_draining && self.leaders == 0 && !self.is_controller
    }
}

impl Survey {
    /// How far broker `id` is drained; `None` if no such broker is registered.
    pub fn drain_progress(&self, id: i32) -> Option<DrainProgress> {
        if !self.image.brokers.contains_key(&id) {
            return None;
        }
        let mut progress = DrainProgress {
            is_draining: self.image.draining.contains(&id),
            leaders: 0,
            is_controller: self.controller == id,
            held: Findings::default(),
        };
        for seen in self.partitions().filter(|seen| seen.leader == Some(id)) {
            progress.leaders += 1;
            let may_lead = |broker: &i32| *broker != id && !self.image.is_to_lead_nothing(*broker);
            if !seen.in_sync.iter().any(may_lead) {
                progress.held.partition(ConcernKind::NoSuccessor, &seen, || {
                    format!(
                        "no other replica of {}-{} is in sync on a broker that may lead; its replicas are on brokers {:?}",
                        seen.topic.name, seen.index, seen.replicas
                    )
                });
            }
        }
        Some(progress)
    }
}
