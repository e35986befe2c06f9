//! How fast a leader sends to one replica of a group what that one lacks.
//!
//! Throttled is who is not in sync and whose replication is listed as throttled in the topic's settings: on the leader's
//! broker, on the replica's, or on both (KIP-73). What waits is the group's own sender to this one replica, before it hands
//! anything to the link: heartbeats, votes, other replicas and other groups go on as ever.
//!
//! Invariants
//! - A replica in sync is never throttled, nor is one without which the group has no majority in sync: what is acknowledged
//!   does not wait for a throttle.
//! - What is sent was let pass by the leader's bucket, and by that of the replica's node, which is asked each time. A node
//!   that cannot be asked lets pass: what is sent to it fails by itself.
//!
//! Bounded: one request of each sender waits, with the entries that it holds (a mebibyte, or one batch). With a rate of 0
//! it waits until the rate, the lists or what is in sync change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use openraft::metrics::RaftServerMetrics;
use parking_lot::{Mutex, RwLock};
use takhin_config::topic::ThrottledReplicas;
use takhin_runtime::Env;

use super::group::Group;
use super::hard_state::GroupId;
use super::types::TypeConfig;
use crate::links::{Class, Kind, Links};
use crate::metrics::MOVES;
use crate::partition::Partition;
use crate::throttle::Throttles;

/// How often who waits looks whether it still has to.
const LOOK: Duration = Duration::from_millis(100);

/// How long a node waits for room of its own before it answers that there is none yet.
const ROOM_WAIT: Duration = Duration::from_secs(2);

/// How long such an answer is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The most bytes that are asked for at a time: more than any request holds.
const MAX_ROOM: u64 = 1 << 30;

/// What a leader knows of the replicas that it sends to: who of them must not wait for a throttle, and who is being sent a
/// copy.
#[derive(Debug, Default)]
pub(super) struct Standing {
    known: RwLock<Option<Known>>,
    /// Bytes of the copy that a node has by now.
    copied: Mutex<BTreeMap<u32, u64>>,
}

#[derive(Debug)]
struct Known {
    voters: BTreeSet<u64>,
    urgent: BTreeSet<u64>,
}

impl Standing {
    /// `configs` are the sets of voters, two while they change. Without any this is not known, and nobody waits.
    pub(super) fn learn(&self, configs: &[BTreeSet<u64>], in_sync: impl Fn(u64) -> bool) {
        let voters: BTreeSet<u64> = configs.iter().flatten().copied().collect();
        let mut urgent: BTreeSet<u64> = voters.iter().copied().filter(|node| in_sync(*node)).collect();
        let in_need = configs.iter().filter(|config| {
            let there = config.iter().filter(|voter| in_sync(**voter)).count();
            there <= config.len() / 2
        });
        urgent.extend(in_need.flatten());
        *self.known.write() = (!voters.is_empty()).then_some(Known { voters, urgent });
    }

    /// These are about to vote.
    pub(super) fn hurry(&self, nodes: &BTreeSet<u64>) {
        if let Some(known) = &mut *self.known.write() {
            known.urgent.extend(nodes);
        }
    }

    /// This one is about to receive without a vote, whatever it was before.
    pub(super) fn demote(&self, node: u64) {
        if let Some(known) = &mut *self.known.write() {
            known.voters.remove(&node);
            known.urgent.remove(&node);
        }
    }

    pub(super) fn forget(&self) {
        *self.known.write() = None;
    }

    /// Whether a node must not wait, and whether it is known to have no vote.
    fn of(&self, node: u64) -> (bool, bool) {
        self.known.read().as_ref().map_or((true, false), |known| {
            (known.urgent.contains(&node), !known.voters.contains(&node))
        })
    }

    /// Begins to count what a node has of a copy, until what is returned is dropped.
    pub(super) fn copying(&self, node: u32) -> Copying<'_> {
        Copying { standing: self, node }
    }

    /// What a node has of the copy that it is being sent, in bytes.
    pub(super) fn copied(&self, node: u32) -> u64 {
        self.copied.lock().get(&node).copied().unwrap_or(0)
    }
}

/// A copy under way.
pub(super) struct Copying<'a> {
    standing: &'a Standing,
    node: u32,
}

impl Copying<'_> {
    pub(super) fn sent(&self, bytes: u64) {
        *self.standing.copied.lock().entry(self.node).or_default() += bytes;
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.standing.copied.lock().remove(&self.node);
    }
}

/// What the senders of a group share.
#[derive(Clone)]
pub(super) struct Pacing {
    pub(super) env: Env,
    pub(super) own: u64,
    pub(super) links: Arc<dyn Links>,
    pub(super) throttles: Arc<Throttles>,
    pub(super) partition: Arc<Partition>,
    pub(super) standing: Arc<Standing>,
}

/// Which buckets have to let something pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Throttled {
    by_leader: bool,
    by_follower: bool,
}

impl Pacing {
    /// Waits until `bytes` may be sent to the replica on `node`, and counts them.
    ///
    /// # Cancel safety
    /// Safe; room that was given for what is not sent is lost.
    pub(super) async fn wait(&self, node: u32, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let (is_urgent, is_receiver) = self.standing.of(node.into());
        let throttled = self.lists(node, is_urgent);
        if throttled.by_follower {
            self.until(node, |now| now.by_follower, self.ask(node, bytes))
                .await;
        }
        if throttled.by_leader {
            let taking = self.throttles.leader.take(bytes);
            self.until(node, |now| now.by_leader, taking).await;
        }
        if is_receiver {
            MOVES.bytes_out.add(bytes);
        }
    }

    /// Which buckets have to let pass what is sent to this node now.
    fn throttled(&self, node: u32) -> Throttled {
        self.lists(node, self.standing.of(node.into()).0)
    }

    fn lists(&self, node: u32, is_urgent: bool) -> Throttled {
        if is_urgent {
            return Throttled {
                by_leader: false,
                by_follower: false,
            };
        }
        let (config, GroupId { index, .. }) = (self.partition.config(), self.partition.id());
        let is_named = |list: &ThrottledReplicas, node: u64| {
            i32::try_from(node).is_ok_and(|broker| list.names(index, broker))
        };
        Throttled {
            by_leader: is_named(&config.leader_throttled, self.own),
            by_follower: is_named(&config.follower_throttled, node.into()),
        }
    }

    /// Drives `room` until it ends or is needed no longer.
    async fn until(&self, node: u32, is_needed: impl Fn(Throttled) -> bool, room: impl Future<Output = ()>) {
        let needless = async {
            while is_needed(self.throttled(node)) {
                self.env.clock.sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            () = room => {}
            () = needless => {}
        }
    }

    /// Returns once the other node has room, or cannot be asked.
    async fn ask(&self, node: u32, bytes: u64) {
        let body = Bytes::copy_from_slice(&bytes.to_be_bytes());
        loop {
            // The semaphore is never closed.
            let _turn = self.throttles.asking.acquire().await;
            let asked = self
                .links
                .call(node, Class::Bulk, 0, Kind::Room, vec![body.clone()], ANSWER_WAIT);
            if !matches!(asked.await.as_deref(), Ok([0])) {
                return;
            }
        }
    }
}

/// Answers another node that asks for room here.
///
/// # Errors
/// When the question cannot be understood.
pub(crate) async fn give_room(env: &Env, throttles: &Throttles, mut body: Bytes) -> Result<Bytes, String> {
    let bytes = body.try_get_u64().map_err(|e| e.to_string())?.min(MAX_ROOM);
    let taking = throttles.follower.take(bytes);
    let is_given = env.clock.timeout(ROOM_WAIT, taking).await.is_ok();
    Ok(Bytes::copy_from_slice(&[u8::from(is_given)]))
}

impl Group {
    /// Learns whether this replica has no vote, or none yet. A founder votes from the first entry on.
    pub(super) fn note_vote(&self, metrics: &RaftServerMetrics<TypeConfig>) {
        let spec = &self.spec;
        let mut voters = metrics.membership_config.membership().voter_ids();
        let receives = !spec.founders.values().any(|founder| *founder == spec.voter)
            && !voters.any(|voter| voter == metrics.id);
        self.receives.store(receives, Ordering::Relaxed);
    }

    /// Counts what this replica was sent while it does not vote.
    pub(super) fn count_received(&self, bytes: usize) {
        if self.receives.load(Ordering::Relaxed) {
            MOVES.bytes_in.add(bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_sync_or_needed_for_a_majority_never_waits() {
        let set = |nodes: &[u64]| nodes.iter().copied().collect::<BTreeSet<u64>>();
        let standing = Standing::default();
        let is_urgent = |node| standing.of(node).0;
        let is_receiver = |node| standing.of(node).1;
        assert!(is_urgent(7) && !is_receiver(7), "not known");
        let urgent = |configs: &[&[u64]], in_sync: &[u64]| {
            let configs: Vec<_> = configs.iter().map(|nodes| set(nodes)).collect();
            standing.learn(&configs, |node| in_sync.contains(&node));
            (1..=5).filter(|node| is_urgent(*node)).collect::<Vec<_>>()
        };
        assert_eq!(urgent(&[&[1, 2, 3]], &[1, 2]), [1, 2]);
        assert_eq!(urgent(&[&[1, 2, 3]], &[1]), [1, 2, 3], "no majority");
        assert_eq!(urgent(&[&[1]], &[1]), [1]);
        assert_eq!(urgent(&[&[1, 2, 3], &[1, 4, 5]], &[1, 2]), [1, 2, 4, 5]);
        assert!(!is_receiver(4) && is_receiver(6));
        standing.hurry(&set(&[6]));
        assert!(is_urgent(6) && !is_urgent(7));
        standing.demote(2);
        assert!(!is_urgent(2) && is_receiver(2));
        standing.forget();
        assert!(is_urgent(7));
    }
}
