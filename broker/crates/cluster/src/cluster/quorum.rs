//! The controller's quorum as clients may see it, on whichever broker they ask.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Cluster;
use crate::links::{Class, Kind, LinkError};
use crate::raft::ReplicaProgress;

/// How long an answer may take, with the search for a controller.
const SEARCH: Duration = Duration::from_secs(5);

/// Pause before a controller is looked for again.
const SEARCH_PAUSE: Duration = Duration::from_millis(50);

/// Who keeps the cluster's metadata, and how far each has got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Broker id of the leader, the controller.
    pub leader: i32,
    /// Its epoch.
    pub leader_epoch: i32,
    /// First offset of the metadata log that is not committed.
    pub high_watermark: i64,
    /// The voters by id, the leader among them.
    pub voters: Vec<QuorumReplica>,
    /// The brokers by id that receive the log and have no vote.
    pub observers: Vec<QuorumReplica>,
}

/// A broker that receives the log of the cluster's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumReplica {
    /// Broker id.
    pub id: i32,
    /// The directory that holds its vote.
    pub directory: Uuid,
    /// Offset after the last record that the leader knows it to have; -1 when nothing is known.
    pub log_end_offset: i64,
    /// The controller's wall time, in milliseconds, when it sent the newest request that this one has answered; -1 before
    /// the first. The leader itself has its present time. While nothing changes a request comes every five seconds.
    pub last_fetch_ms: i64,
    /// The same clock when this one was last known to lack nothing; -1 if it never was since the controller began to lead.
    pub last_caught_up_ms: i64,
}

impl Cluster {
    /// The controller's quorum, as the controller says; `None` if no controller answers within five seconds.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn quorum(&self) -> Option<Quorum> {
        let asking = async {
            loop {
                if let Some(quorum) = self.led_quorum() {
                    return quorum;
                }
                if let Ok(controller) = u32::try_from(self.controller_id()) {
                    match self.ask_for_quorum(controller).await {
                        Ok(quorum) => return quorum,
                        Err(error) => tracing::debug!(%error, "the controller does not describe its quorum"),
                    }
                }
                self.env.clock.sleep(SEARCH_PAUSE).await;
            }
        };
        self.env.clock.timeout(SEARCH, asking).await.ok()
    }

    async fn ask_for_quorum(&self, node: u32) -> Result<Quorum, LinkError> {
        let links = &self.host.links;
        let answer = links.call(node, Class::Control, 0, Kind::Quorum, Vec::new(), SEARCH);
        serde_json::from_slice(&answer.await?).map_err(|error| LinkError::Refused {
            node,
            reason: error.to_string(),
        })
    }

    /// The quorum, if this broker leads it.
    pub(super) fn led_quorum(&self) -> Option<Quorum> {
        let partition = &self.metadata_group.spec.partition;
        let leader_epoch = partition.leadership()?;
        let offsets = partition.offsets();
        let progress = self.metadata_group.progress()?;
        let now_ms = self.env.clock.now_ms();
        let at = |age: Option<Duration>| age.map_or(-1, |age| now_ms.saturating_sub(as_ms(age)));
        let describe = |(node, replica): (&u64, &ReplicaProgress)| {
            let is_leader = *node == self.host.node;
            let end = replica.matched.and_then(|index| progress.end_after(index));
            let silence = u32::try_from(*node)
                .ok()
                .and_then(|node| self.host.links.silence(node));
            let replica = QuorumReplica {
                id: i32::try_from(*node).ok()?,
                directory: replica.directory,
                log_end_offset: match is_leader {
                    true => offsets.log_end_offset,
                    false => end.unwrap_or(-1),
                },
                last_fetch_ms: at(if is_leader {
                    Some(Duration::ZERO)
                } else {
                    replica.answered
                }),
                last_caught_up_ms: at(match is_leader {
                    true => Some(Duration::ZERO),
                    false => caught_up(replica, progress.last, silence),
                }),
            };
            Some(replica)
        };
        let all = |votes: bool| {
            let replicas = progress.replicas.iter();
            let replicas = replicas.filter(move |(_, replica)| replica.is_voter == votes);
            replicas.filter_map(describe).collect()
        };
        Some(Quorum {
            leader: self.node_id(),
            leader_epoch,
            high_watermark: offsets.high_watermark,
            voters: all(true),
            observers: all(false),
        })
    }
}

/// How long ago a follower was last known to lack nothing, when the leader's last entry is `last` and its broker was heard
/// of `silence` ago. One that has died may lack nothing for long; it is known no longer than it was heard of.
fn caught_up(replica: &ReplicaProgress, last: u64, silence: Option<Duration>) -> Option<Duration> {
    let heard = silence.into_iter().chain(replica.answered).min()?;
    if replica.matched? >= last {
        return Some(heard);
    }
    Some(replica.caught_up?.elapsed().max(heard))
}

fn as_ms(age: Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}
