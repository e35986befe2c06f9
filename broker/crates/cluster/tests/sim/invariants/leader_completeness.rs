//! Whoever begins to lead has all that was committed before.

use super::Sighting;

#[derive(Debug, Default)]
pub(super) struct LeaderCompleteness {
    /// The last epoch that was seen, 0 before.
    epoch: i32,
    /// Everything below was committed, as some replica has said.
    committed: i64,
}

impl LeaderCompleteness {
    /// Everything below `acknowledged` was acknowledged to a producer.
    pub(super) fn see(&mut self, sighting: &Sighting, acknowledged: i64) {
        let end = sighting.offsets.log_end_offset;
        // One that leads in an epoch that is over may well lack what came later.
        if let Some(epoch) = sighting.leads.filter(|epoch| *epoch > self.epoch) {
            self.epoch = epoch;
            let (committed, node) = (self.committed.max(acknowledged), sighting.node);
            assert!(
                end >= committed,
                "node {node} leads in epoch {epoch} with a log up to {end}: {committed} is committed"
            );
        }
        self.committed = self.committed.max(sighting.offsets.high_watermark);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use takhin_cluster::Offsets;

    use super::*;

    pub(in crate::invariants) fn leader(node: usize, epoch: i32, end: i64) -> Sighting {
        Sighting {
            node,
            leads: Some(epoch),
            offsets: Offsets {
                log_start_offset: 0,
                last_stable_offset: end,
                high_watermark: end,
                log_end_offset: end,
            },
        }
    }

    #[test]
    #[should_panic(expected = "node 1 leads in epoch 2 with a log up to 4: 5 is committed")]
    fn a_leader_that_lacks_something_is_found() {
        let mut completeness = LeaderCompleteness::default();
        completeness.see(&leader(0, 1, 5), 0);
        completeness.see(&leader(1, 2, 4), 0);
    }

    #[test]
    #[should_panic(expected = "7 is committed")]
    fn so_is_one_that_lacks_what_only_a_producer_knows() {
        LeaderCompleteness::default().see(&leader(0, 1, 5), 7);
    }

    #[test]
    fn a_leader_of_the_past_may_lack_something() {
        let mut completeness = LeaderCompleteness::default();
        completeness.see(&leader(0, 2, 5), 0);
        completeness.see(&leader(1, 1, 4), 0);
    }
}
