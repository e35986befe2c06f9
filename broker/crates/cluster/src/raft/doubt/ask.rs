//! What replicas in doubt ask the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use openraft_rt::WatchReceiver as _;
use takhin_runtime::Shutdown;

use super::answer::{Answer, Of, decode_answer};
use super::farthest::farthest;
use crate::links::{Class, Kind};
use crate::raft::group::Group;
use crate::raft::host::GroupHost;
use crate::raft::types::{RaftLogId, RaftStoredMembership, Voter};
use crate::raft::wire::{self, WireError};

/// How often replicas in doubt ask.
const PAUSE: Duration = Duration::from_millis(500);

/// How long another replica has to answer; a leader has a majority confirm it before.
const ANSWER: Duration = Duration::from_secs(3);

/// Replicas that ask at a time; the others wait.
const AT_A_TIME: usize = 32;

impl Group {
    /// Asks the other replicas, if this one is in doubt and open.
    async fn ask_others(&self, host: &GroupHost) {
        let (Some(raft), Some(number)) = (self.raft(), self.doubt.number()) else {
            return;
        };
        if self.overcome(host).await {
            return;
        }
        let Ok(own) = self.last() else { return };
        let effective = raft.server_metrics().borrow_watched().membership_config.clone();
        let members = self.doubt.newest(&effective);
        let (configs, nodes) = self.whom_to_ask(&members);
        // Who is silent would only make the others wait.
        let others = nodes
            .into_iter()
            .filter(|(node, _)| *node != host.node && host.is_present(*node));
        let asked = others.map(|(node, voter)| self.ask_one(host, node, voter, own));
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut ends = Vec::new();
        while let Some(answer) = answers.next().await {
            let Some((node, Answer { end, members })) = answer else {
                continue;
            };
            self.doubt.hear_of(number, members);
            ends.push((node, end));
            if end.of == Of::Leader {
                break;
            }
        }
        drop(answers);
        let has_leader = ends.iter().any(|(_, end)| end.of == Of::Leader);
        if !has_leader && self.doubt.newest(&members).log_id() != members.log_id() {
            // There are others to ask.
            return;
        }
        let is_unclean = self.spec.partition.config().unclean_leader_election;
        let may_give_up = is_unclean && !host.hears_leader(self.spec.id);
        if let Some(end) = farthest(host.node, own, &configs, &ends, may_give_up) {
            self.doubt.learn(number, end);
            self.overcome(host).await;
        }
    }

    /// Who has a vote, and all replicas; as founded where the entry that says so is lost.
    fn whom_to_ask(&self, members: &RaftStoredMembership) -> (Vec<BTreeSet<u64>>, Vec<(u64, Voter)>) {
        let membership = members.membership();
        let configs = membership.get_joint_config().clone();
        let nodes: Vec<_> = membership
            .nodes()
            .map(|(id, voter)| (*id, voter.clone()))
            .collect();
        if !nodes.is_empty() {
            return (configs, nodes);
        }
        let founders = &self.spec.founders;
        let nodes = founders.iter().map(|(id, voter)| (*id, voter.clone()));
        (vec![founders.keys().copied().collect()], nodes.collect())
    }

    async fn ask_one(
        &self,
        host: &GroupHost,
        node: u64,
        voter: Voter,
        own: Option<RaftLogId>,
    ) -> Option<(u64, Answer)> {
        let target = u32::try_from(node).ok()?;
        let body = encode_question(self, &voter, own);
        let answer = host
            .links
            .call(target, Class::Control, 0, Kind::Recall, body, ANSWER);
        let answer = answer.await.map_err(|e| e.to_string());
        let answer = answer.and_then(|body| decode_answer(body).map_err(|e| e.to_string()));
        if let Err(reason) = &answer {
            tracing::debug!(partition = %self.spec.id, node, reason, "no word of where its log ends");
        }
        Some((node, answer.ok()?))
    }
}

/// Has the replicas in doubt ask until `stop`.
pub(crate) async fn watch(host: Arc<GroupHost>, groups: impl Fn() -> Vec<Arc<Group>>, stop: Shutdown) {
    loop {
        let mut asking = groups();
        asking.retain(|group| group.doubt.is_any());
        let asking = stream::iter(asking);
        let asking = asking.for_each_concurrent(AT_A_TIME, async |group| group.ask_others(&host).await);
        tokio::select! {
            biased;
            () = stop.wait() => return,
            () = async {
                asking.await;
                host.env.clock.sleep(PAUSE).await;
            } => {}
        }
    }
}

/// Group and voter as of every request | the asker's last entry: see [`wire`].
fn encode_question(group: &Group, voter: &Voter, last: Option<RaftLogId>) -> Vec<Bytes> {
    let mut out = wire::addressed(group.spec.id, voter);
    wire::put_log_id(&mut out, last.as_ref());
    vec![out.freeze()]
}

pub(super) fn decode_question(mut body: Bytes) -> Result<Option<RaftLogId>, WireError> {
    wire::take_log_id(&mut body)
}
