//! Who asks for a partition while it is not certain that this broker leads it: because its leadership is being passed on, or
//! because the answer must not be one that a later leader has made untrue.
//!
//! Told at once that this broker does not lead, a client would be told by the metadata that it does, and come back after its
//! own pause, once or twice. So whoever is to be refused waits until the next leader is known, which the refusal names then
//! (KIP-951).
//!
//! Bounded: a request waits for [`HOLD`] at most from when the partition took nothing more, and what is behind it on its
//! connection with it.

use std::time::Duration;

use super::Cluster;
use crate::partition::Partition;

/// As long as passing leadership on takes, with several syncs in it, on a busy machine.
pub(crate) const HOLD: Duration = Duration::from_millis(500);

impl Cluster {
    /// Whether a majority of the partition's replicas confirms, after the call, that this broker leads in this epoch: then
    /// all that was committed before the call is known here. Takes two seconds at most.
    ///
    /// Whoever refuses a client for good by what this broker knows of its log asks first: a leader that others have replaced,
    /// and that nobody has told so, does not know what they have.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn confirms_leadership(&self, partition: &Partition, epoch: i32) -> bool {
        match (self.group(&partition.id()), u64::try_from(epoch)) {
            (Some(group), Ok(term)) => group.is_confirmed(term).await,
            _ => false,
        }
    }

    /// Returns once it is known who leads the partition next; at once where its leadership is not being passed on.
    ///
    /// # Cancel safety
    /// Safe; nothing is lost.
    pub async fn passed_on(&self, partition: &Partition) {
        let leaders = &self.exchange.leaders;
        while let Some(since) = partition.passing_since() {
            let left = HOLD.saturating_sub(since.elapsed());
            let seen = leaders.seen();
            let is_known = leaders
                .leader_of(partition.id())
                .is_some_and(|(leader, _)| leader >= 0 && leader != self.node_id());
            if is_known || left.is_zero() {
                return;
            }
            // A time that has passed is seen at the top.
            let _ = self.env.clock.timeout(left, leaders.seen_after(seen)).await;
        }
    }
}
