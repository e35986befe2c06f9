//! Who takes part in a group, and changing that.
//!
//! Invariant: a replica becomes a voter only with what was committed at the last look at the group, half a second ago at most
//! (see [`super::in_sync`]). So a change of voters has those who write wait for no longer than it takes to send what was
//! committed since then, whatever the size of a batch: who cannot keep up with the others is not let in.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use openraft_rt::WatchReceiver as _;

use super::group::{Group, Life};
use super::in_sync::Led;
use super::types::Voter;

/// Who takes part in a group, as its leader knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) voters: BTreeSet<u64>,
    /// Voters, and those that only receive.
    pub(crate) nodes: BTreeMap<u64, Voter>,
    /// Nodes that have what was committed at the last look. Empty until this replica has led for as long.
    pub(crate) up_to_date: BTreeSet<u64>,
    /// Whether a change of voters is under way, or not known to be committed.
    pub(crate) is_changing: bool,
    /// Who is to vote once a change is over of which the first of two steps is committed. Whoever led then may lead no more,
    /// so that it is for the next leader to take the second.
    pub(crate) half_changed: Option<BTreeSet<u64>>,
}

impl Group {
    /// Who takes part; `None` unless this replica leads.
    pub(crate) fn members(&self) -> Option<Members> {
        let raft = match &*self.life.lock() {
            Life::Running(running) => running.raft.clone(),
            Life::Parked(parked) if parked.leads => return Some(parked.members.clone()),
            Life::Parked(_) | Life::Closed => return None,
        };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let committed = self.led.lock().as_ref().map(Led::committed);
        let reached = |matched: Option<u64>| matched.zip(committed).is_some_and(|(index, all)| index >= all);
        let up_to_date = replication
            .iter()
            .filter(|(_, matched)| reached(matched.as_ref().map(|id| id.index)));
        // openraft goes by a membership from its append on; one that is not committed may yet be undone.
        let stored = &metrics.membership_config;
        let changed_at = stored.log_id().as_ref().map(|id| id.index);
        let is_committed = changed_at <= metrics.last_applied.as_ref().map(|id| id.index);
        let membership = stored.membership();
        Some(Members {
            voters: membership.voter_ids().collect(),
            nodes: membership
                .nodes()
                .map(|(id, voter)| (*id, voter.clone()))
                .collect(),
            up_to_date: up_to_date.map(|(node, _)| *node).collect(),
            is_changing: membership.get_joint_config().len() > 1 || !is_committed,
            half_changed: match membership.get_joint_config().as_slice() {
                [_, .., wanted] if is_committed => Some(wanted.clone()),
                _ => None,
            },
        })
    }

    /// Who votes as far as this replica knows; `None` while the group is not open.
    pub(crate) fn voters(&self) -> Option<BTreeSet<u64>> {
        let raft = match &*self.life.lock() {
            Life::Running(running) => running.raft.clone(),
            Life::Parked(parked) => return Some(parked.members.voters.clone()),
            Life::Closed => return None,
        };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        Some(metrics.membership_config.membership().voter_ids().collect())
    }

    /// Has a node receive the log without a vote; returns once that is committed.
    pub(crate) async fn add_receiver(&self, node: u64, voter: Voter) -> Result<(), String> {
        let raft = self.awake().await.ok_or("the group is not open")?.raft;
        self.standing.demote(node);
        let added = raft.add_learner(node, voter, false).await;
        added.map(drop).map_err(|e| e.to_string())
    }

    /// Changes the voters, all of which receive the log already; returns once that is committed. Who votes no longer
    /// receives on if `retain`, and is no member any more otherwise.
    pub(crate) async fn set_voters(&self, voters: BTreeSet<u64>, retain: bool) -> Result<(), String> {
        let raft = self.awake().await.ok_or("the group is not open")?.raft;
        self.standing.hurry(&voters);
        let changed = raft
            .change_membership(ChangeMembers::ReplaceAllVoters(voters), retain)
            .await;
        changed.map(drop).map_err(|e| e.to_string())
    }

    /// Has nodes that do not vote receive the log no longer; returns once that is committed.
    pub(crate) async fn remove_receivers(&self, nodes: BTreeSet<u64>) -> Result<(), String> {
        let raft = self.awake().await.ok_or("the group is not open")?.raft;
        let changed = raft
            .change_membership(ChangeMembers::RemoveNodes(nodes), false)
            .await;
        changed.map(drop).map_err(|e| e.to_string())
    }
}
