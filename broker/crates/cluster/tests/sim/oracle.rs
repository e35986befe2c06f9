//! What producers were told, and what a reader may find.
//!
//! - V-DUR: an acknowledged record is at its acknowledged offset, bytes identical (`invariants/acknowledged.rs`).
//! - V-DUP: no value stands at two offsets.
//! - V-ORD: one producer's values stand in the order in which they were sent.
//! - V-PHANTOM: every value read was sent.
//! - V-OFF: offsets are dense from the log start (`invariants/offsets.rs`).
//!
//! A send without an answer is unknown: it may be there, once.

use std::collections::{BTreeMap, BTreeSet};

use crate::invariants::{acknowledged, offsets};

/// Names a value: which producer sent it, and its how-manieth it was.
pub(crate) type Value = (u64, u64);

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    sent: BTreeSet<Value>,
    acknowledged: BTreeMap<Value, i64>,
    /// The offset after the last acknowledged record.
    acknowledged_end: i64,
    /// Everything below was to be deleted, whether or not it has been.
    deleted_to: i64,
}

impl Oracle {
    pub(crate) fn sent(&mut self, values: impl IntoIterator<Item = Value>) {
        self.sent.extend(values);
    }

    pub(crate) fn acknowledged(&mut self, first: Value, count: u64, base_offset: i64) {
        for i in 0..count {
            let offset = base_offset + i64::try_from(i).unwrap();
            self.acknowledged_end = self.acknowledged_end.max(offset + 1);
            let earlier = self.acknowledged.insert((first.0, first.1 + i), offset);
            assert!(
                earlier.is_none_or(|earlier| earlier == offset),
                "acknowledged at two offsets: {first:?}"
            );
        }
    }

    /// Somebody is about to ask that everything below `offset` be deleted.
    pub(crate) fn deletes(&mut self, offset: i64) {
        self.deleted_to = self.deleted_to.max(offset);
    }

    pub(crate) fn acknowledgements(&self) -> u64 {
        u64::try_from(self.acknowledged.len()).unwrap()
    }

    /// Everything below was acknowledged, or committed before it.
    pub(crate) fn acknowledged_end(&self) -> i64 {
        self.acknowledged_end
    }

    /// Checks everything that a reader found, in offset order.
    pub(crate) fn check(&self, found: &[(i64, Value)]) {
        let mut at = BTreeMap::new();
        let mut last = BTreeMap::new();
        let start = found.first().map_or(self.deleted_to, |(offset, _)| *offset);
        assert!(
            start <= self.deleted_to,
            "V-DUR: records begin at {start}, nobody has deleted any from {} on",
            self.deleted_to
        );
        offsets::check_dense(found);
        for (offset, value) in found {
            assert!(
                self.sent.contains(value),
                "V-PHANTOM: {value:?} at {offset} was never sent"
            );
            if let Some(earlier) = at.insert(*value, *offset) {
                panic!("V-DUP: {value:?} at {earlier} and {offset}");
            }
            if let Some(previous) = last.insert(value.0, value.1) {
                assert!(
                    previous < value.1,
                    "V-ORD: {value:?} at {offset} after {previous}"
                );
            }
        }
        acknowledged::check(&self.acknowledged, &at, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oracle() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.sent([(1, 0), (1, 1), (1, 2)]);
        oracle.acknowledged((1, 0), 2, 0);
        oracle
    }

    #[test]
    fn an_unanswered_send_may_be_there_or_not() {
        oracle().check(&[(0, (1, 0)), (1, (1, 1))]);
        oracle().check(&[(0, (1, 0)), (1, (1, 1)), (2, (1, 2))]);
    }

    #[test]
    #[should_panic(expected = "V-DUR")]
    fn loss_is_found() {
        oracle().check(&[(0, (1, 0))]);
    }

    #[test]
    fn what_was_to_be_deleted_may_be_there_or_not() {
        let mut oracle = oracle();
        oracle.deletes(1);
        oracle.check(&[(0, (1, 0)), (1, (1, 1))]);
        oracle.check(&[(1, (1, 1))]);
    }

    #[test]
    #[should_panic(expected = "V-DUR: records begin at 1")]
    fn a_log_that_begins_too_late_is_found() {
        oracle().check(&[(1, (1, 1))]);
    }

    #[test]
    #[should_panic(expected = "V-DUP")]
    fn a_duplicate_is_found() {
        oracle().check(&[(0, (1, 0)), (1, (1, 1)), (2, (1, 1))]);
    }

    #[test]
    #[should_panic(expected = "V-ORD")]
    fn reordering_is_found() {
        oracle().check(&[(0, (1, 1)), (1, (1, 0))]);
    }

    #[test]
    #[should_panic(expected = "V-PHANTOM")]
    fn an_invented_record_is_found() {
        oracle().check(&[(0, (1, 0)), (1, (1, 1)), (2, (9, 9))]);
    }
}
