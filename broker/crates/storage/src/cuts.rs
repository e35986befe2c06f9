//! The truncations that an older checkpoint may not know of.

use bytes::{Buf, BufMut};

use crate::entry::Checkpoint;

/// Truncations remembered; of one more, the two oldest become one.
const MAX_CUTS: usize = 4;

/// What truncations of durable entries left, oldest first.
///
/// A checkpoint holds only up to the lowest of the cuts made after it: what it says about bytes above that was written
/// over, perhaps by more than there was. A cut that left less than an older one did makes the older one meaningless, so
/// what is kept ascends, and the first that is newer than a checkpoint is the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cuts([Option<Checkpoint>; MAX_CUTS]);

impl Cuts {
    /// One cut, and nothing of earlier ones: no byte from before it is left.
    pub(crate) fn only(cut: Checkpoint) -> Self {
        Self::default().with(cut)
    }

    /// Adds the newest cut.
    pub(crate) fn with(self, cut: Checkpoint) -> Self {
        let lower = self.iter().filter(|older| older.next_index() < cut.next_index());
        let mut all: Vec<Checkpoint> = lower.chain([cut]).collect();
        if all.len() > MAX_CUTS {
            // As low as the older, as new as the newer: recovery may have more to verify, never less.
            let newer = all.remove(1);
            all[0].generation = newer.generation;
        }
        let mut cuts = [None; MAX_CUTS];
        for (slot, cut) in cuts.iter_mut().zip(all) {
            *slot = Some(cut);
        }
        Self(cuts)
    }

    /// Up to where `checkpoint` holds.
    pub(crate) fn lower(&self, checkpoint: Checkpoint) -> Checkpoint {
        let unknown = self.iter().find(|cut| cut.generation > checkpoint.generation);
        unknown
            .filter(|cut| cut.next_index() < checkpoint.next_index())
            .unwrap_or(checkpoint)
    }

    /// The newest cut.
    pub(crate) fn newest(&self) -> Option<Checkpoint> {
        self.iter().last()
    }

    fn iter(&self) -> impl Iterator<Item = Checkpoint> {
        self.0.into_iter().flatten()
    }

    /// `count u8 * Checkpoint`
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::try_from(self.iter().count()).unwrap_or(u8::MAX));
        for cut in self.iter() {
            out.put_slice(&cut.encode());
        }
    }

    /// Decodes what lies at the beginning of `bytes` and takes it off.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let count = usize::from(bytes.try_get_u8().ok()?);
        if count > MAX_CUTS {
            return None;
        }
        let (encoded, rest) = bytes.split_at_checked(count * Checkpoint::LEN)?;
        *bytes = rest;
        let mut cuts = Self::default();
        for (slot, encoded) in cuts.0.iter_mut().zip(encoded.chunks_exact(Checkpoint::LEN)) {
            *slot = Some(Checkpoint::decode(encoded)?);
        }
        Some(cuts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryId;
    use crate::format::SegmentId;

    fn at(generation: u64, entries: u64) -> Checkpoint {
        Checkpoint {
            generation,
            last: entries.checked_sub(1).map(|index| EntryId { term: 1, index }),
            next_offset: i64::try_from(entries).unwrap(),
            segment: SegmentId {
                base_offset: 0,
                first_index: 0,
            },
            position: entries * 100,
        }
    }

    #[test]
    fn a_checkpoint_holds_up_to_the_lowest_cut_after_it() {
        let cuts = Cuts::default().with(at(1, 7)).with(at(2, 10));
        assert_eq!(
            cuts.lower(at(0, 8)),
            at(1, 7),
            "the newest cut alone would not say so"
        );
        assert_eq!(cuts.lower(at(0, 5)), at(0, 5));
        assert_eq!(cuts.lower(at(1, 12)), at(2, 10));
        assert_eq!(cuts.lower(at(2, 12)), at(2, 12));
        assert_eq!(cuts.with(at(3, 4)).lower(at(1, 9)), at(3, 4));
        let mut encoded = Vec::new();
        cuts.encode(&mut encoded);
        assert_eq!(Cuts::decode(&mut &encoded[..]), Some(cuts));
        assert_eq!(Cuts::decode(&mut &encoded[..encoded.len() - 1]), None);
    }

    #[test]
    fn many_cuts_lower_too_much_and_never_too_little() {
        let mut cuts = Cuts::default();
        for i in 1..=20 {
            cuts = cuts.with(at(i, i * 10));
        }
        for generation in 0..20 {
            let lowered = cuts.lower(at(generation, 1000));
            assert!(
                lowered.next_index() <= (generation + 1) * 10,
                "{generation}: {lowered:?}"
            );
        }
        assert_eq!(cuts.newest(), Some(at(20, 200)));
    }
}
