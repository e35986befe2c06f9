//! Passing leadership on without waiting for anybody to miss the leader.

use std::time::Duration;

use openraft::ServerState;
use openraft::raft::TransferLeaderRequest;
use openraft_rt::WatchReceiver as _;

use super::group::{Group, Raft};
use super::host::GroupHost;
use super::wire;
use crate::links::{Class, Kind};

/// How long one replica has to take over: a vote of a majority, with a sync each.
const HANDOVER: Duration = Duration::from_secs(1);

impl Group {
    /// Passes leadership to node `to`; returns once some other replica leads.
    ///
    /// openraft accepts no more entries from the moment that it is told, and would wait for ever for a replica that does
    /// not come: then the others are asked in turn.
    ///
    /// # Errors
    /// Why this replica still leads, or never did.
    pub(crate) async fn pass_to(&self, host: &GroupHost, to: u64) -> Result<(), String> {
        let raft = self.raft().ok_or("the partition is not open")?;
        let members = self.members().ok_or("this broker does not lead the partition")?;
        if !members.voters.contains(&to) || !members.up_to_date.contains(&to) {
            return Err(format!("the replica on broker {to} is not up to date"));
        }
        let vote = raft.server_metrics().borrow_watched().vote;
        raft.trigger()
            .transfer_leader(to)
            .await
            .map_err(|e| e.to_string())?;
        let voters: Vec<u64> = members.voters.into_iter().collect();
        let mut candidates = self.in_order(&voters);
        candidates.retain(|node| *node != host.node);
        candidates.sort_by_key(|node| *node != to);
        for candidate in candidates {
            if has_ended(&raft, host).await {
                return Ok(());
            }
            let Ok(node) = u32::try_from(candidate) else {
                continue;
            };
            let request = TransferLeaderRequest::new(vote, candidate, None);
            let body = wire::encode_transfer(self.spec.id, &request);
            let asked = host
                .links
                .call(node, Class::Control, 0, Kind::Transfer, body, HANDOVER);
            if let Err(error) = asked.await {
                tracing::warn!(partition = %self.spec.id, %error, "a replica does not take over");
            }
        }
        match has_ended(&raft, host).await {
            true => Ok(()),
            false => Err("no replica has taken over".to_owned()),
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
