//! No acknowledged record is lost: each is at the offset that was acknowledged, unless it was deleted.

use std::collections::BTreeMap;

use crate::oracle::Value;

/// Compares what was acknowledged with where a reader found it, from the log's `start` on.
pub(crate) fn check(acknowledged: &BTreeMap<Value, i64>, found: &BTreeMap<Value, i64>, start: i64) {
    for (value, offset) in acknowledged.iter().filter(|(_, offset)| **offset >= start) {
        match found.get(value) {
            Some(found) => assert_eq!(found, offset, "V-DUR: {value:?} was acknowledged elsewhere"),
            None => panic!("V-DUR: {value:?} was acknowledged at {offset} and is lost"),
        }
    }
}
