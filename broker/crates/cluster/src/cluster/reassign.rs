//! Moving replicas: the leader of each partition brings its group to the replicas that the metadata ask for.
//!
//! ```text
//! new replicas receive ─▶ have nearly all ─▶ the leader goes? it votes on beside the target ─▶ passes leadership on
//!                                           └ it stays ─────────────────────────────────────▶ the target votes alone
//!                                                                                            ─▶ the controller is told
//! ```
//! Nothing but the group's own membership is remembered of how far a change has come, so that it goes on wherever it is
//! after any crash, under any leader. A change of voters is a joint one (Raft section 6), which openraft completes.
//!
//! At most [`AT_A_TIME`] partitions of one leader have replicas catching up; the others wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use uuid::Uuid;

use super::forward::Command;
use super::{Cluster, node_number};
use crate::controller::{Moved, ReplicaChange, TopicError};
use crate::metadata::PartitionInfo;
use crate::partition::PartitionId;
use crate::raft::{Group, Members, Voter};

/// How often partitions that are being moved are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Partitions of one leader whose new replicas catch up at a time.
const AT_A_TIME: usize = 16;

/// How long a step may take until it is looked at anew what has become of it.
const STEP: Duration = Duration::from_secs(10);

impl Cluster {
    /// Begins or cancels changes of replicas (KIP-455), which go on by themselves; what came of each, in order.
    ///
    /// # Errors
    /// [`TopicError`]; nothing was begun, except after [`TopicError::Timeout`], where all may yet be.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have begun them.
    pub async fn reassign(
        &self,
        changes: Vec<ReplicaChange>,
    ) -> Result<Vec<Result<(), TopicError>>, TopicError> {
        let done = self.command(Command::Reassign(changes)).await?;
        Ok(done.outcomes)
    }
}

/// Moves the replicas of partitions led here until the node stops.
pub(super) async fn keep(cluster: Arc<Cluster>) {
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(LOOK) => {}
        }
        let moving = moving(&cluster);
        let step = async |(group, placement): (Arc<Group>, PartitionInfo)| {
            let step = take_step(&cluster, &group, &placement);
            match cluster.env.clock.timeout(STEP, step).await {
                Ok(Ok(true)) => moved(&group, &placement),
                Ok(Ok(false)) => None,
                Ok(Err(reason)) => {
                    tracing::info!(partition = %group.spec.id, reason, "replicas not moved yet");
                    None
                }
                Err(_) => None,
            }
        };
        let steps = stream::iter(moving).map(step).buffer_unordered(AT_A_TIME);
        let moved: Vec<Moved> = tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            moved = steps.filter_map(std::future::ready).collect() => moved,
        };
        if !moved.is_empty()
            && let Err(error) = cluster.command(Command::Reassigned(moved)).await
        {
            // The next look finds it as it is.
            tracing::info!(%error, "the controller does not know yet that replicas are moved");
        }
    }
}

fn moved(group: &Group, placement: &PartitionInfo) -> Option<Moved> {
    Some(Moved {
        topic_id: group.spec.id.topic_id,
        index: group.spec.id.index,
        reassignment: placement.reassignment.as_ref()?.id,
    })
}

/// The partitions led here whose replicas are to be moved now.
fn moving(cluster: &Cluster) -> Vec<(Arc<Group>, PartitionInfo)> {
    let image = cluster.image();
    let groups = cluster.exchange.groups.read();
    let led = image.reassigning.iter().filter_map(|(topic_id, index)| {
        let id = PartitionId {
            topic_id: *topic_id,
            index: *index,
        };
        let group = groups.get(&id).filter(|group| group.members().is_some())?;
        Some((Arc::clone(group), image.partition(*topic_id, *index)?.clone()))
    });
    led.take(AT_A_TIME).collect()
}

/// What a group is to do next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// This node is to receive.
    Receive(u64, Voter),
    /// These receive for nothing.
    Drop(BTreeSet<u64>),
    /// Until new replicas have nearly all.
    Wait,
    /// These are to vote.
    Vote(BTreeSet<u64>),
    /// The leader is to go: one of these is to lead.
    Pass(Vec<u64>),
    /// It consists of what it is to consist of.
    Done,
}

/// `node` leads the group.
fn plan(node: u64, placement: &PartitionInfo, members: &Members) -> Step {
    let Some(moving) = &placement.reassignment else {
        return Step::Wait;
    };
    let target: BTreeSet<u64> = moving.target.iter().copied().map(node_number).collect();
    let voters: BTreeMap<u64, Uuid> = placement
        .voters
        .iter()
        .map(|(id, voter)| (node_number(*id), *voter))
        .collect();
    if members.voters == target && !members.is_changing {
        let idle: BTreeSet<u64> = members
            .nodes
            .keys()
            .filter(|id| !target.contains(id))
            .copied()
            .collect();
        return if idle.is_empty() {
            Step::Done
        } else {
            Step::Drop(idle)
        };
    }
    let missing = target.iter().find(|id| !members.nodes.contains_key(id));
    if let Some((id, directory)) = missing.and_then(|id| Some((*id, *voters.get(id)?))) {
        return Step::Receive(id, Voter { directory });
    }
    if !target.is_subset(&members.up_to_date) {
        return Step::Wait;
    }
    if target.contains(&node) {
        return Step::Vote(target);
    }
    // A leader that is not among the voters leads until that is committed, and then nobody does until an election.
    let mut with_leader = target.clone();
    with_leader.insert(node);
    if members.voters == with_leader && !members.is_changing {
        Step::Pass(moving.target.iter().copied().map(node_number).collect())
    } else {
        Step::Vote(with_leader)
    }
}

/// Takes the next step; whether the group consists of the target by now.
async fn take_step(cluster: &Cluster, group: &Group, placement: &PartitionInfo) -> Result<bool, String> {
    let Some(members) = group.members() else {
        return Ok(false);
    };
    match plan(cluster.host.node, placement, &members) {
        Step::Receive(node, voter) => group.add_receiver(node, voter).await?,
        Step::Drop(nodes) => group.remove_receivers(nodes).await?,
        Step::Vote(voters) => group.set_voters(voters, false).await?,
        Step::Pass(candidates) => {
            let is_fit = |node: &u64| members.up_to_date.contains(node) && cluster.host.is_present(*node);
            let draining = cluster.host.draining();
            let fit = candidates.into_iter().filter(is_fit);
            let next = fit.min_by_key(|node| draining.contains(node));
            let next = next.ok_or("no replica that stays can lead at the moment")?;
            group.pass_to(&cluster.host, next).await?;
        }
        Step::Wait => {}
        Step::Done => return Ok(true),
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Reassignment;

    fn voter(node: u64) -> Voter {
        Voter {
            directory: Uuid::from_u128(node.into()),
        }
    }

    fn placement(target: &[i32], original: &[i32]) -> PartitionInfo {
        let mut replicas = target.to_vec();
        replicas.extend(original.iter().filter(|id| !target.contains(id)));
        PartitionInfo {
            voters: replicas
                .iter()
                .map(|id| (*id, voter(node_number(*id)).directory))
                .collect(),
            replicas,
            founders: BTreeMap::new(),
            reassignment: Some(Reassignment {
                id: Uuid::nil(),
                target: target.to_vec(),
                original: original.to_vec(),
            }),
            ..PartitionInfo::default()
        }
    }

    fn members(voters: &[u64], receivers: &[u64], up_to_date: &[u64]) -> Members {
        let nodes = voters.iter().chain(receivers);
        Members {
            voters: voters.iter().copied().collect(),
            nodes: nodes.map(|node| (*node, voter(*node))).collect(),
            up_to_date: up_to_date.iter().copied().collect(),
            is_changing: false,
            half_changed: None,
        }
    }

    #[test]
    fn a_replica_is_replaced_step_by_step() {
        let moving = placement(&[1, 2, 4], &[1, 2, 3]);
        let next = |members: &Members| plan(1, &moving, members);
        let vote = |nodes: &[u64]| Step::Vote(nodes.iter().copied().collect());
        assert_eq!(
            next(&members(&[1, 2, 3], &[], &[1, 2, 3])),
            Step::Receive(4, voter(4))
        );
        assert_eq!(next(&members(&[1, 2, 3], &[4], &[1, 2, 3])), Step::Wait);
        assert_eq!(next(&members(&[1, 2, 3], &[4], &[1, 2, 3, 4])), vote(&[1, 2, 4]));
        // A leader died while both sets voted: the next one completes it.
        let joint = Members {
            is_changing: true,
            ..members(&[1, 2, 3, 4], &[], &[1, 2, 3, 4])
        };
        assert_eq!(next(&joint), vote(&[1, 2, 4]));
        assert_eq!(
            next(&members(&[1, 2, 4], &[3], &[1, 2, 4])),
            Step::Drop([3].into())
        );
        assert_eq!(next(&members(&[1, 2, 4], &[], &[1, 2, 4])), Step::Done);
    }

    #[test]
    fn a_leader_that_goes_passes_leadership_on_first() {
        let moving = placement(&[4], &[1]);
        let next = |members: &Members| plan(1, &moving, members);
        assert_eq!(next(&members(&[1], &[4], &[1, 4])), Step::Vote([1, 4].into()));
        assert_eq!(next(&members(&[1, 4], &[], &[1, 4])), Step::Pass(vec![4]));
        assert_eq!(
            plan(4, &moving, &members(&[1, 4], &[], &[1, 4])),
            Step::Vote([4].into())
        );
    }

    #[test]
    fn a_change_that_is_cancelled_drops_what_it_added() {
        let cancelled = placement(&[1, 2, 3], &[1, 2, 3]);
        assert_eq!(
            plan(1, &cancelled, &members(&[1, 2, 3], &[4], &[1, 2, 3])),
            Step::Drop([4].into())
        );
        assert_eq!(
            plan(1, &cancelled, &members(&[1, 2, 4], &[], &[1, 2, 4])),
            Step::Receive(3, voter(3))
        );
    }
}
