//! How fit brokers are to take one more replica.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::metadata::Image;
use crate::survey::DiskReport;

/// Silence after which replicas on their way to a broker go elsewhere.
const GONE: Duration = Duration::from_secs(300);

/// How fit a broker is to take one more replica, the fittest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// It is there, has room and is to stay.
    Fit,
    /// More of its disk is in use than `cluster.rebalance.max_disk_usage`, or it refuses records.
    Full,
    /// It is to lead nothing, and is likely to be stopped soon.
    Draining,
    /// It is not heard of.
    Absent,
    /// It has been fenced for five minutes.
    Gone,
    /// It is being decommissioned: it takes none at all.
    Leaving,
}

/// The fitness of every registered broker.
pub type Fitnesses = BTreeMap<i32, Fitness>;

impl Fitness {
    /// Whether the broker may get replicas, even if others are better.
    pub fn is_usable(self) -> bool {
        self != Self::Leaving
    }

    /// Whether the broker is there to take its replicas at once.
    pub fn is_there(self) -> bool {
        self < Self::Absent
    }
}

/// How fit each broker is. `absent` says for how long a broker that is not heard of has been fenced, zero if it has not been
/// yet; `max_disk_usage` is in percent.
pub(crate) fn judge(
    image: &Image,
    disks: &BTreeMap<i32, DiskReport>,
    absent: impl Fn(i32) -> Option<Duration>,
    max_disk_usage: u16,
) -> Fitnesses {
    let of = |id: i32| {
        if image.decommissioning.contains(&id) {
            return Fitness::Leaving;
        }
        match absent(id) {
            Some(fenced) if fenced >= GONE => return Fitness::Gone,
            Some(_) => return Fitness::Absent,
            None => {}
        }
        if image.draining.contains(&id) {
            Fitness::Draining
        } else if disks.get(&id).is_some_and(|disk| is_full(*disk, max_disk_usage)) {
            Fitness::Full
        } else {
            Fitness::Fit
        }
    };
    image.brokers.keys().map(|id| (*id, of(*id))).collect()
}

fn is_full(disk: DiskReport, max_usage: u16) -> bool {
    let used = u128::from(disk.total.saturating_sub(disk.free));
    disk.is_full || used * 100 > u128::from(disk.total) * u128::from(max_usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn disk(total: u64, free: u64) -> DiskReport {
        DiskReport {
            total,
            free,
            floor: 0,
            is_full: false,
        }
    }

    #[test]
    fn a_disk_is_full_above_the_share_that_may_be_in_use() {
        let full = |free| is_full(disk(100 * GIB, free), 85);
        assert!(!full(16 * GIB));
        assert!(!full(15 * GIB), "as much as may be");
        assert!(full(15 * GIB - 1));
        assert!(full(0));
        assert!(
            !is_full(disk(100 * GIB, 0), 100),
            "100 percent is never more than all"
        );
    }

    #[test]
    fn one_that_refuses_records_is_full_whatever_is_free() {
        let refuses = DiskReport {
            is_full: true,
            ..disk(100 * GIB, 99 * GIB)
        };
        assert!(is_full(refuses, 100));
    }

    #[test]
    fn figures_that_cannot_be_are_no_reason() {
        assert!(!is_full(disk(0, 0), 85), "nothing is known of it");
        assert!(!is_full(disk(GIB, 2 * GIB), 85));
        assert!(is_full(disk(u64::MAX, 0), 85));
    }
}
