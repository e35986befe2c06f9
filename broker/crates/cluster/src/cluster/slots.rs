//! Which of the partitions that are moved and led here have replicas catch up at a time.
//!
//! Bounded by [`AT_A_TIME`], and as many that are throttled. Only replicas that are there and get on count: a broker that is
//! gone, or takes nothing because its disk is full, keeps no other moves waiting, however long it stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use takhin_runtime::clock::Instant;

use crate::partition::PartitionId;

/// Partitions of one leader whose new replicas catch up at a time.
pub(super) const AT_A_TIME: usize = 16;

/// How long replicas may get nowhere until they count no longer: longer than it takes until a copy that nobody goes on with
/// is given up.
const STALLED: Duration = Duration::from_secs(90);

/// How far one replica has come: the index of its last entry, and bytes of a copy that is under way.
pub(super) type Reached = (Option<u64>, u64);

/// What is remembered between two looks.
#[derive(Default)]
pub(super) struct Slots {
    /// How far the replicas that catch up were when one of them was last seen to get on, and when that was.
    reached: BTreeMap<PartitionId, (Vec<Reached>, Instant)>,
}

/// The slots that are free at one look: for partitions that are throttled, and for others.
pub(super) struct Free {
    throttled: usize,
    others: usize,
    counted: BTreeSet<PartitionId>,
}

/// A partition with replicas that lack something on brokers that are there.
pub(super) struct CatchingUp {
    pub(super) id: PartitionId,
    pub(super) is_throttled: bool,
    pub(super) reached: Vec<Reached>,
}

impl Slots {
    /// What those that are catching up leave free.
    pub(super) fn look(&mut self, catching_up: Vec<CatchingUp>, now: Instant) -> Free {
        let mut free = Free {
            throttled: AT_A_TIME,
            others: AT_A_TIME,
            counted: BTreeSet::new(),
        };
        let before = std::mem::take(&mut self.reached);
        for partition in catching_up {
            let known = before.get(&partition.id);
            let since = known
                .filter(|(reached, _)| *reached == partition.reached)
                .map_or(now, |(_, since)| *since);
            if now.duration_since(since) < STALLED {
                free.count(partition.id, partition.is_throttled);
            }
            self.reached.insert(partition.id, (partition.reached, since));
        }
        free
    }
}

impl Free {
    /// Whether one more replica of this partition may begin; it has its slot then.
    pub(super) fn take(&mut self, id: PartitionId, is_throttled: bool) -> bool {
        if self.counted.contains(&id) {
            return true;
        }
        let has_room = *self.slots(is_throttled) > 0;
        if has_room {
            self.count(id, is_throttled);
        }
        has_room
    }

    fn count(&mut self, id: PartitionId, is_throttled: bool) {
        let slots = self.slots(is_throttled);
        *slots = slots.saturating_sub(1);
        self.counted.insert(id);
    }

    fn slots(&mut self, is_throttled: bool) -> &mut usize {
        match is_throttled {
            true => &mut self.throttled,
            false => &mut self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(index: i32) -> PartitionId {
        PartitionId {
            topic_id: Uuid::nil(),
            index,
        }
    }

    /// The first `count` partitions, whose replicas have come so far.
    fn catching_up(count: usize, is_throttled: bool, reached: u64) -> Vec<CatchingUp> {
        let partitions = (0..).take(count).map(|index| CatchingUp {
            id: id(index),
            is_throttled,
            reached: vec![(Some(reached), 0)],
        });
        partitions.collect()
    }

    #[test]
    fn so_many_catch_up_and_no_more() {
        let mut free = Slots::default().look(catching_up(AT_A_TIME - 1, false, 7), Instant::now());
        assert!(free.take(id(50), false));
        assert!(!free.take(id(51), false));
        assert!(
            free.take(id(50), false) && free.take(id(3), false),
            "a second replica"
        );
    }

    #[test]
    fn what_is_throttled_stands_in_the_way_of_its_like_only() {
        let mut free = Slots::default().look(catching_up(AT_A_TIME, true, 7), Instant::now());
        assert!(!free.take(id(50), true));
        assert!(free.take(id(50), false));
    }

    #[test]
    fn replicas_that_get_nowhere_count_until_they_get_on_again() {
        let (begun, mut slots) = (Instant::now(), Slots::default());
        let mut has_room = |reached, after: Duration| {
            let mut free = slots.look(catching_up(AT_A_TIME, false, reached), begun + after);
            free.take(id(50), false)
        };
        let second = Duration::from_secs(1);
        assert!(!has_room(7, Duration::ZERO));
        assert!(!has_room(7, STALLED - second));
        assert!(has_room(7, STALLED));
        assert!(!has_room(8, STALLED + second));
        assert!(!has_room(8, STALLED * 2));
        assert!(has_room(8, STALLED * 2 + second));
    }
}
