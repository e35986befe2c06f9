//! Log matching: in the end all replicas hold the same records at the same offsets.

use crate::oracle::Value;

pub(crate) fn check(replicas: &[Vec<(i64, Value)>]) {
    for replica in replicas {
        assert_eq!(*replica, replicas[0], "replicas differ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "replicas differ")]
    fn a_difference_is_found() {
        check(&[vec![(0, (1, 0))], vec![(0, (1, 0))], vec![(0, (2, 0))]]);
    }
}
