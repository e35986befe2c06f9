//! A database that the master has this slave on its list for: what is expected of it, and when anybody was heard last.

use std::sync::Arc;
use std::time::Duration;

use takhin_pika::Position;
use takhin_runtime::clock::Instant;

/// A database that has a session.
#[derive(Debug)]
pub(super) struct Db {
    pub(super) name: Arc<str>,
    pub(super) session: i32,
    /// Where the last item ended; `None` while no changes are to be taken.
    pub(super) end: Option<Position>,
    /// Data sets by which a lost position was replaced.
    pub(super) epoch: u32,
    /// When the master heard of it last.
    pub(super) heard: Instant,
    /// Messages without an acknowledgement.
    pub(super) outstanding: usize,
    /// When anything of it arrived last, or was to begin to.
    arrived: Instant,
    /// Where the changes were asked for from, as long as nothing has arrived since.
    unanswered: Option<Position>,
    /// Whether something has arrived since they were.
    has_answered: bool,
}

impl Db {
    pub(super) fn new(name: &str, session: i32, from: Option<(Position, u32)>, now: Instant) -> Self {
        Self {
            name: name.into(),
            session,
            end: from.map(|from| from.0),
            epoch: from.map_or(0, |from| from.1),
            heard: now,
            outstanding: 0,
            arrived: now,
            unanswered: None,
            has_answered: false,
        }
    }

    /// The changes were asked for.
    pub(super) fn asked(&mut self, from: Position, now: Instant) {
        (self.arrived, self.unanswered, self.has_answered) = (now, Some(from), false);
    }

    /// Changes arrived, or a sign of life.
    pub(super) fn arrived(&mut self, now: Instant) {
        self.arrived = now;
        self.has_answered |= self.unanswered.take().is_some();
    }

    /// A message is acknowledged: with the last one signs of life begin to come again.
    pub(super) fn acknowledged(&mut self, now: Instant) {
        self.outstanding = self.outstanding.saturating_sub(1);
        (self.heard, self.arrived) = (now, now);
    }

    /// Nobody has read for so long; what may have been sent is no silence.
    pub(super) fn unread(&mut self, pause: Duration, now: Instant) {
        self.arrived = (self.arrived + pause).min(now);
    }

    /// Where the changes were asked for from, if nothing has come of it.
    pub(super) fn unanswered(&self) -> Option<Position> {
        self.unanswered
    }

    /// Whether something has come since the changes were asked for.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether the master, which sends nothing while it is owed acknowledgements or nobody has asked for changes, has been silent
    /// for so long.
    pub(super) fn is_silent(&self, limit: Duration, now: Instant) -> bool {
        let is_due = self.end.is_some() && self.outstanding == 0;
        is_due && now.saturating_duration_since(self.arrived) > limit
    }
}

#[cfg(test)]
mod tests {
    use takhin_runtime::Env;

    use super::*;

    /// Whoever owes acknowledgements, or does not read, hears nothing.
    #[test]
    fn silence_is_told_from_having_waited_oneself() {
        let begin = Env::real().clock.instant();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let limit = Duration::from_secs(20);
        let mut db = Db::new("db0", 1, Some((Position::default(), 0)), begin);
        db.arrived(at(1));
        assert!(!db.is_silent(limit, at(21)) && db.is_silent(limit, at(22)));
        db.unread(Duration::from_secs(15), at(22));
        assert!(!db.is_silent(limit, at(36)) && db.is_silent(limit, at(37)));
        db.outstanding = 1;
        assert!(!db.is_silent(limit, at(900)));
        db.acknowledged(at(900));
        assert!(!db.is_silent(limit, at(920)) && db.is_silent(limit, at(921)));
        let waiting = Db::new("db1", 2, None, begin);
        assert!(!waiting.is_silent(limit, at(900)), "nobody has asked for changes");
    }
}
