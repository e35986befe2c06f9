//! Whether this replica leads now, and not only as far as it has heard.
//!
//! A leader that was cut off goes on leading until somebody tells it of a later term. What it reads may be out of date then,
//! so whoever must not answer with that has a majority confirm the leadership after it has read (Raft section 6.4, ReadIndex).
//! The clock is not relied upon.

use std::time::Duration;

use openraft::LinearizerOption;

use super::group::Group;

/// How long a majority has to answer: a broker that is silent for as long counts as gone (see `in_sync`).
const PATIENCE: Duration = Duration::from_secs(2);

impl Group {
    /// Whether a majority of the replicas confirms, after this was called, that this one leads in `term`.
    ///
    /// Those who ask at the same time share one round of heartbeats. A parked group is woken.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn is_confirmed(&self, term: u64) -> bool {
        let Some(running) = self.awake().await else {
            return false;
        };
        // An acknowledgement of any age from before the call proves nothing.
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(PATIENCE);
        let confirmed = running.raft.get_read_linearizer(option).await;
        // It may have lost the leadership and got another one meanwhile.
        confirmed.is_ok_and(|confirmed| **confirmed.read_log_id().committed_leader_id() == term)
    }
}
