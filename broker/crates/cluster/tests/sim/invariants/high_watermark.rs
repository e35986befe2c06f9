//! The high watermark that clients are shown never goes back: neither within an epoch nor from one to the next.

use std::collections::BTreeMap;

use super::Sighting;

#[derive(Debug, Default)]
pub(super) struct HighWatermark {
    /// The highest of each epoch.
    shown: BTreeMap<i32, i64>,
}

impl HighWatermark {
    /// Followers count for nothing here: one that rebuilds its log has to learn again how far it is committed.
    pub(super) fn see(&mut self, sighting: &Sighting) {
        let Some(epoch) = sighting.leads else { return };
        let now = sighting.offsets.high_watermark;
        if let Some((before, shown)) = self.shown.range(..=epoch).next_back()
            // What an earlier leader, which may not know that it is one, shows later is not to be expected of this one.
            && (*before == epoch || !self.shown.contains_key(&epoch))
        {
            assert!(
                now >= *shown,
                "the high watermark went from {shown} in epoch {before} to {now} in {epoch}"
            );
        }
        self.shown.insert(epoch, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::leader_completeness::tests::leader;

    #[test]
    #[should_panic(expected = "went from 5 in epoch 1 to 4 in 1")]
    fn a_step_back_is_found() {
        let mut watermark = HighWatermark::default();
        watermark.see(&leader(0, 1, 5));
        watermark.see(&leader(0, 1, 4));
    }

    #[test]
    #[should_panic(expected = "went from 5 in epoch 1 to 4 in 3")]
    fn so_is_one_at_an_election() {
        let mut watermark = HighWatermark::default();
        watermark.see(&leader(0, 1, 5));
        watermark.see(&leader(1, 3, 4));
    }
}
