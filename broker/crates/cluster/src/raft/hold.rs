//! Telling a partition how far each replica has got, where that decides on acknowledgements: `min.insync.replicas` asks for
//! more replicas than the majority that commits.
//!
//! Everywhere else this costs nothing. An end is told after the replica has answered for it, so that it has it as durably as
//! the topic asks.

use std::convert::Infallible;
use std::sync::Arc;

use openraft_rt::WatchReceiver as _;
use takhin_storage::Log;

use super::group::Raft;
use super::progress::end_after;
use crate::partition::Partition;

/// Tells the partition for as long as it is polled.
pub(super) async fn report(raft: Raft, log: Arc<Log>, partition: Arc<Partition>) -> Infallible {
    let mut metrics = raft.metrics();
    loop {
        if !partition.holds_acks() {
            partition.acks_changed().await;
            continue;
        }
        let matched: Option<Vec<Option<u64>>> = {
            let metrics = metrics.borrow_and_update();
            let membership = metrics.membership_config.membership();
            metrics.replication.as_ref().map(|replication| {
                let index = |voter| Some(replication.get(&voter)?.as_ref()?.index);
                membership.voter_ids().map(index).collect()
            })
        };
        if let Some(matched) = matched {
            let end = |index: Option<u64>| index.and_then(|index| end_after(&log, index));
            let ends = matched.into_iter().map(|index| end(index).unwrap_or(0));
            partition.replicated(ends.collect());
        }
        tokio::select! {
            biased;
            () = partition.acks_changed() => {}
            changed = metrics.changed() => if changed.is_err() {
                // openraft has ended, which the supervisor sees.
                return std::future::pending().await;
            },
        }
    }
}
