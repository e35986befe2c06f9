//! How far is a broker decommissioned?

use super::findings::{ConcernKind, Findings};
use super::{Seen, Survey};
use crate::metadata::PartitionInfo;

/// How far a broker is decommissioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecommissionProgress {
    /// Whether it is to lose all its replicas.
    pub is_decommissioning: bool,
    /// Replicas that it has.
    pub replicas: usize,
    /// Bytes of its partitions' logs, as it says.
    pub bytes: Option<u64>,
    /// Those of its replicas that are on their way to other brokers.
    pub moving: usize,
    /// Partitions that it leads.
    pub leaders: usize,
    /// Whether it is the controller.
    pub is_controller: bool,
    /// Whether it votes on the metadata.
    pub is_voter: bool,
    /// Replicas that cannot leave at the moment.
    pub held: Findings,
}

impl DecommissionProgress {
    /// Whether it is being decommissioned and has nothing any more: it may be stopped for good.
    pub fn is_done(&self) -> bool {
        self.is_decommissioning
            && self.replicas == 0
            && self.leaders == 0
            && !self.is_voter
            && !self.is_controller
    }
}

impl Survey {
    /// How far broker `id` is decommissioned; `None` if no such broker is registered.
    pub fn decommission_progress(&self, id: i32) -> Option<DecommissionProgress> {
        if !self.image.brokers.contains_key(&id) {
            return None;
        }
        let mut progress = DecommissionProgress {
            is_decommissioning: self.image.decommissioning.contains(&id),
            replicas: 0,
            bytes: self.reports.get(&id).map(|report| report.log_bytes),
            moving: 0,
            leaders: 0,
            is_controller: self.controller == id,
            // As long as nobody knows who votes, it may.
            is_voter: self.voters.is_empty() || self.voters.contains(&id),
            held: Findings::default(),
        };
        for seen in self.partitions() {
            progress.leaders += usize::from(seen.leader == Some(id));
            if !seen.replicas.contains(&id) {
                continue;
            }
            progress.replicas += 1;
            let placement = usize::try_from(seen.index)
                .ok()
                .and_then(|index| seen.topic.partitions.get(index));
            let Some(placement) = placement else { continue };
            let is_leaving = placement
                .reassignment
                .as_ref()
                .is_some_and(|moving| !moving.target.contains(&id));
            progress.moving += usize::from(is_leaving);
            if progress.is_decommissioning {
                self.look_at_leaving(id, &seen, placement, is_leaving, &mut progress.held);
            }
        }
        Some(progress)
    }

    /// Says why a replica cannot leave.
    fn look_at_leaving(
        &self,
        id: i32,
        seen: &Seen<'_>,
        placement: &PartitionInfo,
        is_leaving: bool,
        held: &mut Findings,
    ) {
        let (name, index) = (&seen.topic.name, seen.index);
        if seen.leader.is_none() {
            held.partition(ConcernKind::PartitionOffline, seen, || {
                format!("{name}-{index} has no leader that could move its replicas")
            });
            return;
        }
        if is_leaving {
            return;
        }
        if placement.reassignment.is_some() {
            if !placement.is_automatic {
                held.partition(ConcernKind::MovedByHand, seen, || {
                    format!("the replicas of {name}-{index} are being moved, and that on broker {id} stays")
                });
            }
            return;
        }
        let mut others = self.image.staying();
        let has_place = others.any(|other| !seen.replicas.contains(&other) && self.is_there(other));
        if !has_place {
            held.partition(ConcernKind::NoPlace, seen, || {
                format!(
                    "no broker that is there can take the replica of {name}-{index}; its replicas are on brokers {:?}",
                    seen.replicas
                )
            });
        }
    }
}
