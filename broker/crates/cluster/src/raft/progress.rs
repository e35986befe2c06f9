//! How far the replicas of a group have got, as its leader knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft_rt::WatchReceiver as _;
use takhin_storage::Log;

use super::group::Group;

/// All replicas of a group at one moment, the leader among them.
pub(crate) struct GroupProgress {
    log: Arc<Log>,
    /// Index of the last entry that each is known to have, by broker.
    pub(crate) matched: BTreeMap<u64, u64>,
}

impl GroupProgress {
    /// The offset after the entry at `index` of the leader's log; `None` if that has deleted the entry.
    pub(crate) fn end_after(&self, index: u64) -> Option<i64> {
        let end = self.log.end();
        if end.last.is_some_and(|last| last.index == index) {
            return Some(end.log_end_offset);
        }
        let heads = self.log.heads(index..index.checked_add(1)?).ok()?;
        heads.first().map(|head| head.next_offset)
    }
}

impl Group {
    /// How far all replicas have got; `None` unless this one leads.
    pub(crate) fn progress(&self) -> Option<GroupProgress> {
        let running = self.running.lock().clone()?;
        let metrics = running.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.iter();
        Some(GroupProgress {
            log: Arc::clone(&running.log),
            matched: matched
                .filter_map(|(node, id)| Some((*node, id.as_ref()?.index)))
                .collect(),
        })
    }
}
