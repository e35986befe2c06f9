//! One controller decision per version: who knows the metadata up to some offset knows the same as everybody who does, and
//! no process goes back to what it knew before.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use takhin_cluster::{Cluster, Image};

#[derive(Debug, Default)]
pub(super) struct OneDecision {
    /// What the metadata were at each version.
    decided: BTreeMap<i64, String>,
    /// The process that each node was seen to be last, and the version that it had.
    seen: BTreeMap<usize, (Weak<Cluster>, i64)>,
}

impl OneDecision {
    pub(super) fn see(&mut self, node: usize, process: &Arc<Cluster>, image: &Image) {
        let version = image.end_offset;
        let seen = self.seen.insert(node, (Arc::downgrade(process), version));
        let before = seen.filter(|(before, _)| before.ptr_eq(&Arc::downgrade(process)));
        if let Some((_, before)) = before {
            assert!(
                before <= version,
                "node {node} went back from version {before} of the metadata to {version}"
            );
            if before == version {
                return;
            }
        }
        // What was decided, and not what each node makes of it (`settings`).
        let brokers = (
            &image.cluster_id,
            &image.brokers,
            &image.draining,
            &image.decommissioning,
        );
        let topics = (&image.topics, &image.reassigning, image.rebalance_due);
        let rest = (
            image.version,
            image.next_producer_id,
            &image.broker_configs,
            &image.group_configs,
        );
        let now = format!("{brokers:?} {topics:?} {rest:?}");
        self.compare(node, version, now);
    }

    fn compare(&mut self, node: usize, version: i64, now: String) {
        let decided = self.decided.entry(version).or_insert_with(|| now.clone());
        assert_eq!(
            *decided, now,
            "node {node} knows other metadata of version {version}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "node 1 knows other metadata of version 7")]
    fn another_decision_is_found() {
        let mut decisions = OneDecision::default();
        decisions.compare(0, 7, "a".to_owned());
        decisions.compare(1, 8, "b".to_owned());
        decisions.compare(1, 7, "b".to_owned());
    }
}
