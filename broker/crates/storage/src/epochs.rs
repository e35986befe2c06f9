//! Which leader epoch began where.

use bytes::{Buf, BufMut};

/// The beginning of one leader epoch (raft term).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// Leader epoch.
    pub epoch: u32,
    /// Raft index of its first entry.
    pub first_index: u64,
    /// Offset of its first record (of the next record, where it has none).
    pub first_offset: i64,
}

/// All epochs of a log, ascending in all three fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochHistory {
    starts: Vec<EpochStart>,
}

impl EpochHistory {
    /// Records that an entry of `epoch` was appended.
    pub(crate) fn note(&mut self, epoch: u32, index: u64, offset: i64) {
        if self.starts.last().is_none_or(|last| last.epoch < epoch) {
            self.starts.push(EpochStart {
                epoch,
                first_index: index,
                first_offset: offset,
            });
        }
    }

    /// Forgets epochs that begin at or after `next_index`.
    pub(crate) fn truncate(&mut self, next_index: u64) {
        let keep = self.starts.partition_point(|s| s.first_index < next_index);
        self.starts.truncate(keep);
    }

    /// Forgets epochs that end at or below both bounds; the one that covers them stays.
    pub(crate) fn drop_before(&mut self, first_index: u64, log_start_offset: i64) {
        let past = self
            .starts
            .partition_point(|s| s.first_index <= first_index && s.first_offset <= log_start_offset);
        self.starts.drain(..past.saturating_sub(1));
    }

    /// The epoch of the entry at `index`; `None` below the first known epoch.
    pub fn epoch_at(&self, index: u64) -> Option<u32> {
        let n = self.starts.partition_point(|s| s.first_index <= index);
        n.checked_sub(1).map(|i| self.starts[i].epoch)
    }

    /// The newest epoch.
    pub fn last(&self) -> Option<u32> {
        self.starts.last().map(|s| s.epoch)
    }

    /// All epochs, ascending.
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// The largest epoch at or below `epoch` and the offset at which it ends, exclusive.
    ///
    /// As OffsetForLeaderEpoch answers (KIP-320): the newest epoch ends at `log_end_offset`; an epoch below all
    /// known ones is returned itself with the start of the first known one; above all known ones: `None`.
    pub fn end_offset_for(&self, epoch: u32, log_end_offset: i64) -> Option<(u32, i64)> {
        let after = self.starts.partition_point(|s| s.epoch <= epoch);
        let floor = after.checked_sub(1).map(|i| self.starts[i].epoch);
        match (floor, self.starts.get(after)) {
            (Some(floor), None) if floor == epoch => Some((epoch, log_end_offset)),
            (_, None) => None,
            (None, Some(next)) => Some((epoch, next.first_offset)),
            (Some(floor), Some(next)) => Some((floor, next.first_offset)),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(crate::format::len_u32(self.starts.len()));
        for s in &self.starts {
            out.put_u32(s.epoch);
            out.put_u64(s.first_index);
            out.put_i64(s.first_offset);
        }
    }

    pub(crate) fn decode(body: &mut &[u8]) -> Option<Self> {
        let n = body.try_get_u32().ok()? as usize;
        if n.checked_mul(20)? > body.remaining() {
            return None;
        }
        let mut starts = Vec::with_capacity(n);
        for _ in 0..n {
            starts.push(EpochStart {
                epoch: body.try_get_u32().ok()?,
                first_index: body.try_get_u64().ok()?,
                first_offset: body.try_get_i64().ok()?,
            });
        }
        let ascending = starts.is_sorted_by(|a, b| {
            a.epoch < b.epoch && a.first_index < b.first_index && a.first_offset <= b.first_offset
        });
        ascending.then_some(Self { starts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> EpochHistory {
        let mut h = EpochHistory::default();
        for (epoch, index, offset) in [(1, 0, 0), (1, 1, 10), (3, 5, 40), (4, 9, 40), (4, 10, 50)] {
            h.note(epoch, index, offset);
        }
        h
    }

    #[test]
    fn end_offsets_are_answered_as_kafka_does() {
        let h = history();
        assert_eq!(h.end_offset_for(0, 60), Some((0, 0)), "below all known epochs");
        assert_eq!(h.end_offset_for(1, 60), Some((1, 40)));
        assert_eq!(
            h.end_offset_for(2, 60),
            Some((1, 40)),
            "the largest epoch not above"
        );
        assert_eq!(h.end_offset_for(3, 60), Some((3, 40)));
        assert_eq!(h.end_offset_for(4, 60), Some((4, 60)));
        assert_eq!(h.end_offset_for(5, 60), None);
        assert_eq!(EpochHistory::default().end_offset_for(0, 0), None);
    }

    #[test]
    fn truncation_and_log_start_keep_the_covering_epoch() {
        let mut h = history();
        assert_eq!(h.epoch_at(8), Some(3));
        h.truncate(9);
        assert_eq!(h.last(), Some(3));
        h.drop_before(7, 45);
        assert_eq!(
            h.starts(),
            &[EpochStart {
                epoch: 3,
                first_index: 5,
                first_offset: 40
            }]
        );
        h.truncate(5);
        assert_eq!(h.last(), None);
    }

    #[test]
    fn the_encoding_refuses_what_is_not_ascending() {
        let mut bytes = Vec::new();
        history().encode(&mut bytes);
        assert_eq!(EpochHistory::decode(&mut &bytes[..]), Some(history()));
        assert_eq!(EpochHistory::decode(&mut &bytes[..bytes.len() - 1]), None);
        bytes[7] = 9;
        assert_eq!(EpochHistory::decode(&mut &bytes[..]), None);
    }
}
