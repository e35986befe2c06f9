//! At most one replica leads in an epoch.

use std::collections::BTreeMap;

use super::Sighting;

#[derive(Debug, Default)]
pub(super) struct ElectionSafety {
    /// Who led in each epoch.
    leaders: BTreeMap<i32, usize>,
}

impl ElectionSafety {
    pub(super) fn see(&mut self, sighting: &Sighting) {
        let Some(epoch) = sighting.leads else { return };
        let leader = *self.leaders.entry(epoch).or_insert(sighting.node);
        assert_eq!(leader, sighting.node, "two replicas lead in epoch {epoch}");
    }

    pub(super) fn elections(&self) -> usize {
        self.leaders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::leader_completeness::tests::leader;

    #[test]
    #[should_panic(expected = "two replicas lead in epoch 2")]
    fn a_second_leader_is_found() {
        let mut safety = ElectionSafety::default();
        safety.see(&leader(0, 1, 0));
        safety.see(&leader(1, 2, 0));
        safety.see(&leader(0, 2, 0));
    }
}
