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
//! Replicas of a few partitions of one leader catch up at a time ([`super::slots`]); the others wait for them, but not for
//! those that cannot go on. One on a broker that is not there begins once it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use uuid::Uuid;

use super::forward::Command;
use super::slots::{AT_A_TIME, CatchingUp, Slots};
use super::{Cluster, node_number};
use crate::controller::{Moved, ReplicaChange, TopicError};
use crate::metadata::PartitionInfo;
use crate::partition::PartitionId;
use crate::raft::{Group, Members, Voter};

/// How often partitions that are being moved are looked at.
const LOOK: Duration = Duration::from_millis(200);

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
    let mut steps = Steps::default();
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(LOOK) => {}
        }
        let due = steps.due(&cluster);
        let step = async |due: Due| {
            let group = Arc::clone(&due.group);
            let (moved, step) = (due.moved(), take_step(&cluster, due));
            match cluster.env.clock.timeout(STEP, step).await {
                Ok(Ok(true)) => Some(moved),
                Ok(Ok(false)) => None,
                Ok(Err(reason)) => {
                    tracing::info!(partition = %group.spec.id, reason, "replicas not moved yet");
                    None
                }
                Err(_) => None,
            }
        };
        let steps = stream::iter(due).map(step).buffer_unordered(AT_A_TIME);
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

/// A partition led here that is being moved, and its next step.
struct Due {
    group: Arc<Group>,
    reassignment: Uuid,
    members: Members,
    step: Step,
    is_throttled: bool,
}

impl Due {
    /// `None` if the partition is not led here.
    fn of(cluster: &Cluster, group: &Arc<Group>, placement: &PartitionInfo) -> Option<Self> {
        let (members, moving) = (group.members()?, placement.reassignment.as_ref()?);
        let (config, index) = (group.spec.partition.config(), group.spec.id.index);
        let mut adding = moving.adding().into_iter();
        let is_throttled = config.leader_throttled.names(index, cluster.node_id())
            || adding.any(|broker| config.follower_throttled.names(index, broker));
        Some(Self {
            step: plan(cluster.host.node, placement, &members, |node| {
                cluster.host.is_present(node)
            }),
            reassignment: moving.id,
            group: Arc::clone(group),
            members,
            is_throttled,
        })
    }

    fn moved(&self) -> Moved {
        let id = self.group.spec.id;
        Moved {
            topic_id: id.topic_id,
            index: id.index,
            reassignment: self.reassignment,
        }
    }

    /// How far its new replicas are, if there are any that lack something on brokers that are there.
    fn catching_up(&self, cluster: &Cluster) -> Option<CatchingUp> {
        let Members {
            voters,
            nodes,
            up_to_date,
            ..
        } = &self.members;
        let lacks = |node: &&u64| !voters.contains(*node) && !up_to_date.contains(*node);
        let receivers = nodes.keys().filter(lacks);
        let present: Vec<u64> = receivers
            .copied()
            .filter(|node| cluster.host.is_present(*node))
            .collect();
        let progress = (!present.is_empty()).then(|| self.group.progress())??;
        let replicas = present.iter().filter_map(|node| progress.replicas.get(node));
        Some(CatchingUp {
            id: self.group.spec.id,
            is_throttled: self.is_throttled,
            reached: replicas
                .map(|replica| (replica.matched, replica.copied))
                .collect(),
        })
    }
}

/// What is remembered between two looks.
#[derive(Default)]
struct Steps {
    slots: Slots,
    /// The partition that took a step last: one after the other gets its turn.
    last: Option<PartitionId>,
}

impl Steps {
    /// The next steps of partitions led here, [`AT_A_TIME`] at most: any of them may take until it is given up.
    fn due(&mut self, cluster: &Cluster) -> Vec<Due> {
        let mut moving = moving(cluster);
        let catching_up = moving.iter().filter_map(|due| due.catching_up(cluster));
        let mut free = self
            .slots
            .look(catching_up.collect(), cluster.env.clock.instant());
        let next = moving.partition_point(|due| Some(due.group.spec.id) <= self.last);
        moving.rotate_left(next);
        let can_go_on = |due: &Due| match &due.step {
            Step::Wait => false,
            Step::Receive(..) => free.take(due.group.spec.id, due.is_throttled),
            Step::Drop(_) | Step::Vote(_) | Step::Pass(_) | Step::Done => true,
        };
        let due: Vec<Due> = moving.into_iter().filter(can_go_on).take(AT_A_TIME).collect();
        self.last = due.last().map(|due| due.group.spec.id);
        due
    }
}

/// The partitions led here whose replicas are being moved, in the order of their ids.
fn moving(cluster: &Cluster) -> Vec<Due> {
    let image = cluster.image();
    let groups = cluster.exchange.groups.read();
    let led = image.reassigning.iter().filter_map(|(topic_id, index)| {
        let id = PartitionId {
            topic_id: *topic_id,
            index: *index,
        };
        Due::of(cluster, groups.get(&id)?, image.partition(*topic_id, *index)?)
    });
    led.collect()
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
fn plan(node: u64, placement: &PartitionInfo, members: &Members, is_present: impl Fn(u64) -> bool) -> Step {
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
    let is_missing = |id: &&u64| !members.nodes.contains_key(*id) && is_present(**id);
    let missing = target.iter().find(is_missing);
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
async fn take_step(cluster: &Cluster, due: Due) -> Result<bool, String> {
    let Due {
        group, members, step, ..
    } = due;
    match step {
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
        let next = |members: &Members| plan(1, &moving, members, |_| true);
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
    fn a_replica_on_a_broker_that_is_not_there_waits_for_it() {
        let moving = placement(&[1, 4, 5], &[1, 2, 3]);
        let next = |members: &Members| plan(1, &moving, members, |node| node != 4);
        assert_eq!(
            next(&members(&[1, 2, 3], &[], &[1, 2, 3])),
            Step::Receive(5, voter(5))
        );
        assert_eq!(next(&members(&[1, 2, 3], &[5], &[1, 2, 3, 5])), Step::Wait);
    }

    #[test]
    fn a_leader_that_goes_passes_leadership_on_first() {
        let moving = placement(&[4], &[1]);
        let next = |members: &Members| plan(1, &moving, members, |_| true);
        assert_eq!(next(&members(&[1], &[4], &[1, 4])), Step::Vote([1, 4].into()));
        assert_eq!(next(&members(&[1, 4], &[], &[1, 4])), Step::Pass(vec![4]));
        assert_eq!(
            plan(4, &moving, &members(&[1, 4], &[], &[1, 4]), |_| true),
            Step::Vote([4].into())
        );
    }

    #[test]
    fn a_change_that_is_cancelled_drops_what_it_added() {
        let cancelled = placement(&[1, 2, 3], &[1, 2, 3]);
        assert_eq!(
            plan(1, &cancelled, &members(&[1, 2, 3], &[4], &[1, 2, 3]), |_| true),
            Step::Drop([4].into())
        );
        assert_eq!(
            plan(1, &cancelled, &members(&[1, 2, 4], &[], &[1, 2, 4]), |_| true),
            Step::Receive(3, voter(3))
        );
    }
}
