//! Who asks for leaders while they are being elected.
//!
//! A client whose leader has died asks another broker for the next one within a millisecond. Told what was true before, it
//! comes back after its own pause, which is a second with librdkafka: several times as long as the election takes. So before
//! a leader is named it is asked for a sign of life, and an answer that would name one that gives none, or no leader at all,
//! waits for the next one.
//!
//! Bounded: for [`HOLD`] from the request on, and only for so long after a leader was lost; a partition that stays without
//! one does not slow anybody down. What is behind the request on its connection waits with it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use takhin_runtime::clock::Instant;
use uuid::Uuid;

use super::Cluster;
use crate::partition::PartitionId;

/// As long as an election takes among a thousand others.
pub(crate) const HOLD: Duration = Duration::from_millis(500);

/// How long a leader that is there takes to say so, at most.
const ECHO: Duration = Duration::from_millis(100);

/// For how long a process that has begun may not have been told who leads what.
const NEW: Duration = Duration::from_secs(3);

/// How often links are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// Leaders that gave no sign of life when they were asked for one.
struct Mute {
    brokers: BTreeSet<i32>,
    /// When they should have.
    by: Instant,
}

impl Cluster {
    /// Returns once every partition of these topics has a leader that can be reached, or is not about to have one.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn leaders_settle(&self, topics: &[Uuid]) {
        let arrived = self.env.clock.instant();
        let leaders = &self.exchange.leaders;
        let mute = self.mute_leaders(topics).await;
        loop {
            let left = HOLD.saturating_sub(self.env.clock.instant().duration_since(arrived));
            let seen = leaders.seen();
            if left.is_zero() || !self.is_unsettled(&mute) || !self.is_one_in_doubt(topics, &mute) {
                return;
            }
            // A time that has passed is seen at the top.
            let _ = self
                .env
                .clock
                .timeout(left.min(LOOK), leaders.seen_after(seen))
                .await;
        }
    }

    /// The other brokers that lead partitions of these topics, as far as is known, and do not answer.
    async fn mute_leaders(&self, topics: &[Uuid]) -> Mute {
        let known = self.led_by(topics).flatten();
        let others = known.map(|(leader, _)| leader).filter(|id| *id != self.node_id());
        let others: BTreeSet<i32> = others.collect();
        let asked = others.into_iter().map(async |id| {
            let node = u32::try_from(id).ok()?;
            self.host.links.is_mute(node, ECHO).await.then_some(id)
        });
        Mute {
            brokers: join_all(asked).await.into_iter().flatten().collect(),
            by: self.env.clock.instant(),
        }
    }

    /// Leader, -1 if there is none, and epoch of each partition of these topics, where they are known.
    fn led_by(&self, topics: &[Uuid]) -> impl Iterator<Item = Option<(i32, i32)>> {
        let image = self.image();
        let topics = topics
            .iter()
            .filter_map(move |id| image.topic_by_id(*id).cloned());
        let partitions = topics.flat_map(|topic| {
            let indexes = (0..).take(topic.partitions.len());
            indexes.map(move |index| PartitionId {
                topic_id: topic.id,
                index,
            })
        });
        partitions.map(|id| self.exchange.leaders.leader_of(id))
    }

    /// Whether anything has happened lately for which a partition may have no leader.
    fn is_unsettled(&self, mute: &Mute) -> bool {
        let links = &self.host.links;
        !mute.brokers.is_empty()
            || self.is_new()
            || self.has_lost_lately()
            || links.peers().into_iter().any(|node| !links.is_linked(node))
    }

    fn is_one_in_doubt(&self, topics: &[Uuid], mute: &Mute) -> bool {
        self.led_by(topics).any(|leadership| match leadership {
            None => self.is_new(),
            Some((-1, _)) => self.has_lost_lately(),
            Some((leader, _)) => leader != self.node_id() && self.has_just_been_lost(leader, mute),
        })
    }

    /// Whether this process has begun just now, and may not have been told yet.
    fn is_new(&self) -> bool {
        self.env.clock.instant().duration_since(self.begun) < NEW
    }

    fn has_lost_lately(&self) -> bool {
        let lost_at = self.exchange.leaders.lost_at();
        lost_at.is_some_and(|at| self.env.clock.instant().duration_since(at) < HOLD)
    }

    /// Whether a broker was there a moment ago and is not now.
    fn has_just_been_lost(&self, broker: i32, mute: &Mute) -> bool {
        let links = &self.host.links;
        let Ok(node) = u32::try_from(broker) else {
            return false;
        };
        let Some(silence) = links.last_heard(node) else {
            return false;
        };
        let asked_ago = self.env.clock.instant().duration_since(mute.by);
        let is_mute = mute.brokers.contains(&broker) && silence >= asked_ago;
        silence < HOLD && (is_mute || !links.is_linked(node))
    }
}
