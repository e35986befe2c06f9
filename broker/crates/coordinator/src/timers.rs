//! Deadlines of a shard, by group and purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use takhin_protocol::messages::StrBytes;

/// What a group waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Everybody to join a classic group.
    Join,
    /// Everybody to ask for the assignment of a classic group.
    Sync,
    /// A sign of life of this member.
    Session(StrBytes),
    /// This member of a consumer group to give up partitions.
    Revocation(StrBytes),
    /// This member of a consumer group, who speaks the classic protocol, to join again.
    MemberJoin(StrBytes),
    /// The same to ask for its assignment.
    MemberSync(StrBytes),
}

/// One deadline for each group and purpose.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: BTreeMap<(StrBytes, Timer), Duration>,
    order: BTreeSet<(Duration, StrBytes, Timer)>,
}

impl Timers {
    /// Arms a timer; a later deadline of the same purpose replaces the earlier one.
    pub(crate) fn arm(&mut self, group: &StrBytes, timer: Timer, deadline: Duration) {
        let key = (group.clone(), timer.clone());
        if let Some(old) = self.deadlines.insert(key, deadline) {
            self.order.remove(&(old, group.clone(), timer.clone()));
        }
        self.order.insert((deadline, group.clone(), timer));
    }

    /// Arms all timers of another table.
    pub(crate) fn adopt(&mut self, other: Self) {
        for ((group, timer), deadline) in other.deadlines {
            self.arm(&group, timer, deadline);
        }
    }

    pub(crate) fn is_armed(&self, group: &StrBytes, timer: Timer) -> bool {
        self.deadlines.contains_key(&(group.clone(), timer))
    }

    pub(crate) fn cancel(&mut self, group: &StrBytes, timer: Timer) {
        let key = (group.clone(), timer);
        if let Some(deadline) = self.deadlines.remove(&key) {
            self.order.remove(&(deadline, key.0, key.1));
        }
    }

    /// Cancels all timers of a group.
    pub(crate) fn cancel_group(&mut self, group: &StrBytes) {
        let first = (group.clone(), Timer::Join);
        let timers: Vec<Timer> = self
            .deadlines
            .range(first..)
            .take_while(|((other, _), _)| other == group)
            .map(|((_, timer), _)| timer.clone())
            .collect();
        for timer in timers {
            self.cancel(group, timer);
        }
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(deadline, _, _)| *deadline)
    }

    /// Takes out the earliest timer that is due.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<(StrBytes, Timer)> {
        if self.next()? > now {
            return None;
        }
        let (_, group, timer) = self.order.pop_first()?;
        self.deadlines.remove(&(group.clone(), timer.clone()));
        Some((group, timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_and_at_its_last_deadline() {
        let at = Duration::from_millis;
        let [a, b] = ["a", "b"].map(StrBytes::from_static_str);
        let session = || Timer::Session(StrBytes::from_static_str("m"));
        let mut timers = Timers::default();
        timers.arm(&a, Timer::Join, at(5));
        timers.arm(&a, session(), at(1));
        timers.arm(&b, Timer::Sync, at(6));
        timers.arm(&b, Timer::Join, at(2));
        timers.arm(&a, Timer::Join, at(3));
        timers.cancel(&b, Timer::Sync);
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop_due(at(0)), None);
        assert_eq!(timers.pop_due(at(9)), Some((a.clone(), session())));
        assert_eq!(timers.pop_due(at(9)), Some((b.clone(), Timer::Join)));
        timers.arm(&b, session(), at(4));
        timers.cancel_group(&a);
        assert_eq!(timers.pop_due(at(9)), Some((b, session())));
        assert_eq!((timers.pop_due(at(9)), timers.next()), (None, None));
    }
}
