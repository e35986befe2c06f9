//! One controller decision per version: who knows the metadata up to some offset knows the same as everybody who does.

use std::collections::BTreeMap;

use takhin_cluster::Image;

#[derive(Debug, Default)]
pub(super) struct OneDecision {
    /// What the metadata were at each version.
    decided: BTreeMap<i64, String>,
    /// The version that each node was seen to have last.
    seen: BTreeMap<usize, i64>,
}

impl OneDecision {
    pub(super) fn see(&mut self, node: usize, image: &Image) {
        let version = image.end_offset;
        if self.seen.insert(node, version) == Some(version) {
            return;
        }
        // What stands in it, and not what was made of it.
        let now = format!("{:?} {:?} {:?}", image.cluster_id, image.brokers, image.topics);
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
