//! Log matching: in the end all replicas have the same entries, byte for byte, terms and hidden ones included.

use std::fmt::Debug;
use std::sync::Arc;

use takhin_storage::{Entry, Log};

/// The logs of all replicas up to the last entry with records before the offset `end`, from where none has deleted any: what
/// follows is not committed everywhere, and may yet be replaced.
pub(crate) fn check(logs: &[Arc<Log>], end: i64) {
    let first = |log: &Arc<Log>| {
        log.stats()
            .segments
            .first()
            .map_or(0, |segment| segment.id.first_index)
    };
    let first = logs.iter().map(first).max().unwrap_or(0);
    let entries = |log: &Arc<Log>| {
        let last = log.end().last.map_or(0, |id| id.index + 1).max(first);
        let mut entries = log.entries(first..last, usize::MAX).unwrap();
        let is_committed =
            |entry: &Entry| !entry.batch.header.is_hidden() && entry.batch.header.next_offset() <= end;
        let known = entries.iter().rposition(is_committed).map_or(0, |at| at + 1);
        entries.truncate(known);
        entries
    };
    compare(&logs.iter().map(entries).collect::<Vec<_>>());
}

fn compare<T: PartialEq + Debug>(replicas: &[Vec<T>]) {
    for replica in replicas {
        let differs = replica.iter().zip(&replicas[0]).find(|(one, other)| one != other);
        assert_eq!(differs, None, "replicas differ");
        assert_eq!(replica.len(), replicas[0].len(), "replicas differ in length");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "replicas differ")]
    fn a_difference_is_found() {
        compare(&[vec![(0, 1)], vec![(0, 1)], vec![(0, 2)]]);
    }

    #[test]
    #[should_panic(expected = "replicas differ in length")]
    fn what_is_missing_is_found() {
        compare(&[vec![1, 2], vec![1]]);
    }
}
