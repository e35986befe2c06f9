//! Who asks for leaders while they are being elected.
//!
//! A client whose leader has died asks another broker for the next one within a millisecond. Told what was true before, it
//! comes back after its own pause, which is a second with librdkafka: several times as long as the election takes. So an
//! answer that would name a leader that is gone, or none, waits for the next one.
//!
//! Bounded: for [`HOLD`] from the request on, and only for so long after a leader was lost; a partition that stays without
//! one does not slow anybody down. What is behind the request on its connection waits with it.

use std::time::Duration;

use uuid::Uuid;

use super::Cluster;
use crate::partition::PartitionId;

/// As long as an election takes among a thousand others.
pub(crate) const HOLD: Duration = Duration::from_millis(500);

/// For how long a process that has begun may not have been told who leads what.
const NEW: Duration = Duration::from_secs(3);

/// How often links are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);

impl Cluster {
    /// Returns once every partition of these topics has a leader that can be reached, or is not about to have one.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn leaders_settle(&self, topics: &[Uuid]) {
        let arrived = self.env.clock.instant();
        let leaders = &self.exchange.leaders;
        loop {
            let left = HOLD.saturating_sub(self.env.clock.instant().duration_since(arrived));
            let seen = leaders.seen();
            if left.is_zero() || !self.is_unsettled() || !self.is_one_in_doubt(topics) {
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

    /// Whether anything has happened lately for which a partition may have no leader.
    fn is_unsettled(&self) -> bool {
        let links = &self.host.links;
        self.is_new()
            || self.has_lost_lately()
            || links.peers().into_iter().any(|node| !links.is_linked(node))
    }

    fn is_one_in_doubt(&self, topics: &[Uuid]) -> bool {
        let image = self.image();
        let topics = topics.iter().filter_map(|id| image.topic_by_id(*id));
        let mut partitions = topics.flat_map(|topic| {
            let indexes = (0..).take(topic.partitions.len());
            indexes.map(|index| PartitionId {
                topic_id: topic.id,
                index,
            })
        });
        partitions.any(|id| match self.exchange.leaders.leader_of(id) {
            None => self.is_new(),
            Some((-1, _)) => self.has_lost_lately(),
            Some((leader, _)) => leader != self.node_id() && self.has_just_been_cut_off(leader),
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

    fn has_just_been_cut_off(&self, broker: i32) -> bool {
        let links = &self.host.links;
        u32::try_from(broker).is_ok_and(|node| {
            !links.is_linked(node) && links.last_heard(node).is_some_and(|silence| silence < HOLD)
        })
    }
}
