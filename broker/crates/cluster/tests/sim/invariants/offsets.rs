//! Offsets are dense from the log start, and stable: what once was read at one, below the high watermark, is there for
//! everybody and for ever.

use std::collections::BTreeMap;

use super::Sighting;
use crate::oracle::Value;

/// Checks what a reader found from the log start on.
pub(crate) fn check_dense(found: &[(i64, Value)]) {
    let start = found.first().map_or(0, |(offset, _)| *offset);
    for (expected, (offset, _)) in (start..).zip(found) {
        assert_eq!(*offset, expected, "V-OFF: offsets have a gap");
    }
}

#[derive(Debug, Default)]
pub(super) struct Stable {
    known: BTreeMap<i64, Value>,
    /// From where each node is to be read next.
    next: BTreeMap<usize, i64>,
}

impl Stable {
    /// Where a replica is to be read now: all of it in turn, and then from the start again.
    pub(super) fn next(&self, sighting: &Sighting) -> i64 {
        let (offsets, next) = (&sighting.offsets, self.next.get(&sighting.node).copied());
        let readable = offsets.log_start_offset..offsets.high_watermark;
        let next = next.filter(|next| readable.contains(next));
        next.unwrap_or(offsets.log_start_offset)
    }

    pub(super) fn see(&mut self, node: usize, found: &[(i64, Value)]) {
        if let Some((last, _)) = found.last() {
            self.next.insert(node, last + 1);
        }
        for (offset, value) in found {
            let known = *self.known.entry(*offset).or_insert(*value);
            assert_eq!(known, *value, "V-OFF: node {node} has another record at {offset}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "V-OFF: offsets have a gap")]
    fn a_gap_is_found() {
        check_dense(&[(0, (1, 0)), (2, (1, 1))]);
    }

    #[test]
    #[should_panic(expected = "V-OFF: node 1 has another record at 4")]
    fn another_record_is_found() {
        let mut stable = Stable::default();
        stable.see(0, &[(3, (1, 3)), (4, (1, 4))]);
        stable.see(1, &[(4, (2, 0))]);
    }
}
