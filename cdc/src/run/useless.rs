//! Data sets that are of no use, since the changes behind them cannot be had.
//!
//! The next one is of another dump, and is not taken before a pause. Others are followed meanwhile, over the same connection.

use std::collections::BTreeMap;
use std::time::Duration;

use takhin_pika::Position;
use takhin_runtime::clock::Instant;

use super::Runner;
use super::pauses::in_vain;
use crate::source::SourceError;
use crate::trouble::Trouble;

/// What is known of the last data sets of databases, until something has come of the changes behind them.
#[derive(Debug, Default)]
pub(super) struct Useless(BTreeMap<String, Last>);

/// The last data set of a database.
#[derive(Debug, Default)]
struct Last {
    /// Where its changes go on; `None` where they are known not to.
    at: Option<Position>,
    /// Data sets in a row that were of no use.
    times: u32,
    /// When the next one may be taken.
    due: Option<Instant>,
}

impl Useless {
    /// A data set was taken, and its changes are to go on there.
    fn taken(&mut self, db: &str, at: Position) {
        self.0.entry(db.to_owned()).or_default().at = Some(at);
    }

    /// Something has come of these databases.
    pub(super) fn answered(&mut self, dbs: &[String]) {
        self.0.retain(|db, _| !dbs.contains(db));
    }

    /// Notes that a position is lost. Returns the pause before the next data set if it is that of the last one.
    fn lost(&mut self, db: &str, at: Position, now: Instant) -> Option<Duration> {
        let last = self.0.get_mut(db).filter(|last| last.at == Some(at))?;
        let wait = in_vain(last.times);
        *last = Last {
            at: None,
            times: last.times + 1,
            due: Some(now + wait),
        };
        Some(wait)
    }

    /// When the next data set may be taken; `None` is at once.
    pub(super) fn due(&self, db: &str) -> Option<Instant> {
        self.0.get(db)?.due
    }
}

impl Runner<'_> {
    /// Notes where the changes behind a data set are to go on.
    pub(super) fn note_taken(&self, db: &str, at: Position) {
        self.useless.lock().taken(db, at);
    }

    /// Notes that a position is lost, which may be that of a data set that was just taken.
    pub(super) fn note_lost(&self, lost: &SourceError) {
        let SourceError::PositionLost { db, position, .. } = lost else {
            return;
        };
        let now = self.env.clock.instant();
        if self.useless.lock().lost(db, *position, now).is_some() {
            self.needs_fresh_dump.lock().insert(db.clone());
        }
    }

    /// Waits until the data set of a database may be taken, and says why until then.
    pub(super) async fn until_due(&self, db: &str, why: Option<SourceError>) {
        let due = self.useless.lock().due(db);
        let Some(due) = due else {
            return;
        };
        if let Some(why) = why {
            self.say(&Trouble::from(why));
        }
        self.env.clock.sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use takhin_runtime::Env;

    use super::*;

    /// The master gives the dump that it has, or has deleted what is behind it by the time that it is written.
    #[test]
    fn data_sets_without_changes_are_taken_ever_more_rarely() {
        let (mut useless, now) = (Useless::default(), Env::real().clock.instant());
        let at = |offset| Position::new(3, offset);
        assert_eq!(useless.lost("db0", at(7), now), None, "it is of no data set");
        let waits = (0..8_u64).map(|number| {
            useless.taken("db0", at(number));
            assert_eq!(useless.lost("db1", at(number), now), None);
            let wait = useless.lost("db0", at(number), now).unwrap();
            assert_eq!(useless.due("db0"), Some(now + wait));
            assert_eq!(useless.lost("db0", at(number), now), None, "counted twice");
            wait.as_secs()
        });
        assert_eq!(waits.collect::<Vec<_>>(), [10, 20, 40, 80, 160, 320, 600, 600]);
        useless.answered(&["db0".to_owned()]);
        useless.taken("db0", at(9));
        assert_eq!(
            (useless.due("db0"), useless.lost("db0", at(8), now)),
            (None, None)
        );
        assert_eq!(useless.lost("db0", at(9), now).unwrap().as_secs(), 10);
    }
}
