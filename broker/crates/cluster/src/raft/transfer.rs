//! Passing leadership on without waiting for anybody to miss the leader.
//!
//! ```text
//! take nothing more ─▶ what is under way commits ─▶ the successor has it all ─▶ openraft passes leadership on
//!        ▲                                                 │ not within CATCH_UP
//!        └─────────────────────────────────────────────────┘
//! ```
//! Clients that wait for an acknowledgement get it; those that come meanwhile are told who leads next, after an election
//! without a timeout in it (`cluster/passing.rs`).

use std::convert::Infallible;
use std::time::Duration;

use openraft::ServerState;
use openraft::raft::TransferLeaderRequest;
use openraft_rt::WatchReceiver as _;
use takhin_runtime::clock::Instant;

use super::group::{Group, Raft};
use super::host::GroupHost;
use super::members::Members;
use super::types::RaftVote;
use super::wire;
use crate::links::{Class, Kind};
use crate::partition::{Partition, Waiter};

/// How long what is under way has to commit and to reach the successor; nothing is accepted meanwhile.
const CATCH_UP: Duration = Duration::from_millis(500);

/// How long one replica has to take over: a vote of a majority, with a sync each.
const HANDOVER: Duration = Duration::from_secs(1);

impl Group {
    /// Passes leadership to node `to`; returns once some other replica leads.
    ///
    /// # Errors
    /// Why this replica still leads, or never did. If it was openraft that could not pass leadership on, this replica
    /// takes nothing more in this term and goes on trying by itself.
    ///
    /// # Cancel safety
    /// Safe: dropped early, this replica accepts again, or, if openraft was told already, goes on trying by itself.
    pub(crate) async fn pass_to(&self, host: &GroupHost, to: u64) -> Result<(), String> {
        let _turn = self.passing.lock().await;
        let running = self.awake_in_touch(host).await;
        let raft = running.ok_or("the partition is not open")?.raft;
        let members = self.members().ok_or("this broker does not lead the partition")?;
        if !members.voters.contains(&to) || !members.up_to_date.contains(&to) {
            return Err(format!("the replica on broker {to} is not up to date"));
        }
        let partition = &self.spec.partition;
        let vote = raft.server_metrics().borrow_watched().vote;
        let mut handing_over = HandingOver::begin(partition, host.env.clock.instant());
        let caught_up = host.env.clock.timeout(CATCH_UP, self.caught_up(&raft, to)).await;
        if caught_up.is_err() {
            return Err(format!("the replica on broker {to} does not catch up"));
        }
        // openraft accepts no more in this term, and waits for ever for a successor that does not come.
        handing_over.told = Some(vote.leader_id().term);
        raft.trigger()
            .transfer_leader(to)
            .await
            .map_err(|e| e.to_string())?;
        if has_ended(&raft, host).await || self.ask_in_turn(&raft, host, vote, to).await {
            return Ok(());
        }
        Err("no replica has taken over".to_owned())
    }

    /// Returns when nothing waits for its commit and `to` has all that there is. Polled only while nothing is accepted.
    async fn caught_up(&self, raft: &Raft, to: u64) {
        let partition = &self.spec.partition;
        loop {
            let waiter = Waiter::new();
            partition.wait(&waiter);
            if partition.in_flight() == 0 {
                break;
            }
            waiter.woken().await;
        }
        let mut metrics = raft.metrics();
        loop {
            let has_all = {
                let metrics = metrics.borrow_and_update();
                let matched = metrics.replication.as_ref().and_then(|all| all.get(&to));
                let matched = matched.and_then(|id| id.as_ref().map(|id| id.index));
                matched >= metrics.last_log_index
            };
            // The metrics end with openraft's core: then there is nothing to pass on.
            if has_all || metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks the other replicas one after the other to take over, `to` among them; whether one has.
    async fn ask_in_turn(&self, raft: &Raft, host: &GroupHost, vote: RaftVote, to: u64) -> bool {
        let Some(Members { voters, nodes, .. }) = self.members() else {
            // It leads no longer.
            return true;
        };
        let voters: Vec<u64> = voters.into_iter().collect();
        let mut candidates = self.in_order(&voters);
        candidates.retain(|node| *node != host.node);
        let draining = host.draining();
        candidates.sort_by_key(|node| (draining.contains(node), *node == to));
        for candidate in candidates {
            let (Ok(node), Some(voter)) = (u32::try_from(candidate), nodes.get(&candidate)) else {
                continue;
            };
            let request = TransferLeaderRequest::new(vote, candidate, None);
            let body = wire::encode_transfer(self.spec.id, voter, &request);
            let asked = host
                .links
                .call(node, Class::Control, 0, Kind::Transfer, body, HANDOVER);
            if let Err(error) = asked.await {
                tracing::warn!(partition = %self.spec.id, %error, "a replica does not take over");
            }
            if has_ended(raft, host).await {
                return true;
            }
        }
        false
    }

    /// Who is to lead next: the first of the other voters that is there and up to date. One that is being drained comes
    /// last.
    pub(crate) fn successor(&self, host: &GroupHost) -> Option<u64> {
        let members = self.members()?;
        let voters: Vec<u64> = members.voters.iter().copied().collect();
        let is_fit =
            |node: &u64| *node != host.node && members.up_to_date.contains(node) && host.is_present(*node);
        let draining = host.draining();
        let fit = self.in_order(&voters).into_iter().filter(is_fit);
        fit.min_by_key(|node| draining.contains(node))
    }

    /// Has another replica lead, for as long as it is polled, when this one's term is over while openraft leads on.
    pub(super) async fn retire(&self, host: &GroupHost) -> Infallible {
        loop {
            // Nobody is there to lead: neither does this replica know of a majority, so nothing is lost by waiting.
            if let Some(to) = self.successor(host)
                && let Err(reason) = self.pass_to(host, to).await
            {
                tracing::info!(partition = %self.spec.id, reason, "leadership not passed on");
            }
            host.env.clock.sleep(HANDOVER).await;
        }
    }
}

/// A partition that accepts nothing because its leadership is being passed on. Dropped, it accepts again, unless openraft
/// was told: then its term is over here, whether or not another replica takes over.
struct HandingOver<'a> {
    partition: &'a Partition,
    /// The term in which openraft was told to accept no more.
    told: Option<u64>,
}

impl<'a> HandingOver<'a> {
    fn begin(partition: &'a Partition, now: Instant) -> Self {
        partition.hand_over(now);
        Self {
            partition,
            told: None,
        }
    }
}

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        match self.told {
            Some(term) => self.partition.end_term(term),
            None => self.partition.take_again(),
        }
    }
}

/// Whether this replica's leadership ends within [`HANDOVER`].
async fn has_ended(raft: &Raft, host: &GroupHost) -> bool {
    let mut metrics = raft.server_metrics();
    let ended = async {
        while metrics.borrow_watched().state == ServerState::Leader {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    };
    host.env.clock.timeout(HANDOVER, ended).await.is_ok()
}
