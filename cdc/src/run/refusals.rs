//! Positions at which a master closes the connection.
//!
//! From 3.2.3 on a master says of some positions that it has none of that it goes on there, such as one behind the end of an
//! old file, and closes the connection when the changes are asked for. A connection that ends for another reason looks the same;
//! not so often in a row, at one position, with nothing sent.

use std::collections::BTreeMap;

use takhin_pika::Position;

use super::Runner;
use crate::source::{Session, SourceError};
use crate::trouble::Trouble;

/// How often in a row that is the position's fault.
const TIMES: u32 = 5;

/// How often any of several databases may have been it, before they are asked for one after the other.
const CAREFUL: u32 = 2;

/// What has ended so, in a row.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Connections after which it could be one of several positions.
    unclear: u32,
    /// By database: the only position that it could be. Whatever is found out of others meanwhile, it stays until something
    /// of the database has come.
    of: BTreeMap<String, Refusal>,
    /// Positions at which the master has another history than was followed, and what it has said. Found out again when the position is
    /// asked for again.
    other: BTreeMap<String, (Position, String)>,
}

/// A position that connections have ended at.
#[derive(Debug)]
struct Refusal {
    at: Position,
    /// Connections.
    times: u32,
    /// Whether it was not asked for, and no connection has ended since because of another one.
    is_spared: bool,
}

impl Refusals {
    /// Something has come of these databases.
    fn answered(&mut self, dbs: &[String]) {
        self.of.retain(|db, _| !dbs.contains(db));
    }

    /// Notes the end of a connection that nothing was sent over of these databases, from there on.
    fn closed(&mut self, unanswered: Vec<(String, Position)>) {
        if unanswered.is_empty() {
            self.unclear = 0;
            return;
        }
        // The others have not been tried over it: what is known of them holds the next time.
        for refusal in self.of.values_mut() {
            refusal.is_spared = false;
        }
        let mut unanswered = unanswered.into_iter();
        let (Some((db, at)), None) = (unanswered.next(), unanswered.next()) else {
            self.unclear += 1;
            return;
        };
        let known = self.of.get(&db).filter(|known| known.at == at);
        let times = known.map_or(1, |known| known.times + 1);
        let is_spared = false;
        self.of.insert(db, Refusal { at, times, is_spared });
    }

    /// Whether it is to be found out which database it is.
    fn is_careful(&self) -> bool {
        self.unclear >= CAREFUL || self.of.values().any(|refusal| refusal.times >= CAREFUL)
    }

    /// Whether a position is not to be asked for. The next time it is, unless a connection has ended at another one meanwhile, for
    /// the master may be another one by then.
    fn refuses(&mut self, db: &str, position: Position) -> bool {
        match self.of.get_mut(db) {
            Some(refusal) if refusal.at == position && refusal.times >= TIMES => {
                refusal.is_spared = !refusal.is_spared;
                refusal.is_spared
            }
            _ => false,
        }
    }
}

impl Runner<'_> {
    /// Why a position is lost, if that was found out when it was asked for last.
    fn lost(&self, db: &str, from: Position) -> Option<String> {
        let (at, why) = self.refusals.lock().other.remove(db)?;
        (at == from).then_some(why)
    }

    /// Has the changes of a database come, or only asks for them if they are to come through a log that has not begun.
    pub(super) async fn ask(
        &self,
        session: &Session,
        db: &str,
        (from, epoch): (Position, u32),
        is_taken: bool,
    ) -> Result<(), SourceError> {
        if self.refusals.lock().refuses(db, from) {
            return Err(SourceError::PositionLost {
                db: db.to_owned(),
                position: from,
                why: "the master closes the connection whenever it is asked for the changes from there on"
                    .to_owned(),
            });
        }
        if let Some(why) = self.lost(db, from) {
            return Err(SourceError::PositionLost {
                db: db.to_owned(),
                position: from,
                why,
            });
        }
        match is_taken {
            true => session.follow(db, (from, epoch)).await?,
            false => session.may_follow(db, from).await?,
        }
        if self.refusals.lock().is_careful() {
            session.first_sign(db).await;
        }
        Ok(())
    }

    /// Notes how a connection has ended.
    pub(super) fn note_end(&self, session: &Session, error: &SourceError) {
        self.note_answers(session);
        match error {
            // It has not even introduced itself.
            SourceError::Closed { .. } if session.followed().source().is_none() => self.forget_refusals(),
            // Whatever a part of a message was about, the master has begun to send.
            SourceError::Closed { .. } if session.is_amid_message() => {}
            SourceError::Closed { address, .. } if address == session.address() => {
                self.refusals.lock().closed(session.unanswered());
            }
            SourceError::History { db, position, .. } => {
                let other = &mut self.refusals.lock().other;
                other.insert(db.clone(), (*position, error.to_string()));
            }
            _ => {}
        }
    }

    /// The master was not there: what has ended so may have been its end.
    pub(super) fn forget_refusals(&self) {
        *self.refusals.lock() = Refusals::default();
    }

    /// As [`note_end`](Self::note_end), of an attempt.
    pub(super) fn note_trouble(&self, session: &Session, trouble: &Trouble) {
        match trouble {
            Trouble::Source(error) => self.note_end(session, error),
            _ => self.note_answers(session),
        }
    }

    /// Positions that something has come from are none that connections end at.
    fn note_answers(&self, session: &Session) {
        let answered = session.answered();
        self.refusals.lock().answered(&answered);
        self.useless.lock().answered(&answered);
    }
}

#[cfg(test)]
mod tests {
    use takhin_config::CdcConfig;
    use takhin_runtime::telemetry::health::Health;
    use takhin_runtime::{Env, Shutdown};

    use super::*;
    use crate::control::Pause;
    use crate::run::Flags;

    fn at(db: &str, offset: u64) -> (String, Position) {
        (db.to_owned(), Position::new(3, offset))
    }

    #[test]
    fn a_position_is_refused_when_nothing_else_can_be_the_reason() {
        let mut refusals = Refusals::default();
        for _ in 0..TIMES {
            assert!(!refusals.refuses("db1", Position::new(3, 7)));
            refusals.closed(vec![at("db1", 7)]);
        }
        assert!(!refusals.refuses("db0", Position::new(3, 7)));
        assert!(!refusals.refuses("db1", Position::new(3, 8)));
        assert!(refusals.refuses("db1", Position::new(3, 7)));
        // Then it is asked again, once.
        assert!(!refusals.refuses("db1", Position::new(3, 7)));
        refusals.closed(vec![at("db1", 7)]);
        assert!(refusals.refuses("db1", Position::new(3, 7)));
        // Something was sent meanwhile.
        refusals.answered(&["db1".to_owned()]);
        refusals.closed(Vec::new());
        assert!(!refusals.is_careful() && !refusals.refuses("db1", Position::new(3, 7)));
    }

    #[test]
    fn of_several_databases_none_is_blamed_before_it_is_the_only_one() {
        let mut refusals = Refusals::default();
        for _ in 0..TIMES {
            refusals.closed(vec![at("db0", 7), at("db1", 7)]);
        }
        assert!(refusals.is_careful());
        assert!(
            !refusals.refuses("db0", Position::new(3, 7)) && !refusals.refuses("db1", Position::new(3, 7))
        );
    }

    /// Asked for one after the other, the first one hides the second one until it is refused.
    #[test]
    fn of_two_positions_the_verdict_on_one_stays_while_the_other_is_found_out() {
        let mut refusals = Refusals::default();
        let dbs = ["db0", "db1"];
        let mut attempts = 0;
        let refused = loop {
            attempts += 1;
            assert!(attempts < 20, "the attempts do not end");
            let refused = dbs.map(|db| refusals.refuses(db, Position::new(3, 7)));
            match refused.iter().position(|refused| !refused) {
                Some(next) if refusals.is_careful() => refusals.closed(vec![at(dbs[next], 7)]),
                Some(next) => refusals.closed(dbs[next..].iter().map(|db| at(db, 7)).collect()),
                None => break refused,
            }
        };
        assert_eq!((refused, attempts), ([true, true], 2 * TIMES + CAREFUL + 1));
        // One of them is to be had meanwhile.
        refusals.answered(&["db0".to_owned()]);
        assert!(!refusals.refuses("db0", Position::new(3, 7)));
        assert!(refusals.is_careful());
    }

    /// A proxy takes connections for a master that is away.
    #[tokio::test]
    async fn a_connection_that_ends_before_the_master_has_said_anything_is_the_end_of_the_master() {
        let (dir, env) = (tempfile::tempdir().unwrap(), Env::real());
        let listener = env.net.listen("127.0.0.1:0", "proxy").await.unwrap();
        let mut config = CdcConfig::default();
        config.checkpoint.dir = dir.path().to_owned();
        config.source.host = "127.0.0.1".to_owned();
        config.source.port = listener.local_addr().unwrap().port();
        let stop = Shutdown::new();
        let (flags, pause) = (Flags::new(&Health::start(&env, &stop)), Pause::default());
        let runner = Runner::new(&config, &env, (&flags, &pause)).await.unwrap();
        for _ in 0..TIMES {
            runner.refusals.lock().closed(vec![at("db1", 7)]);
        }
        let ending = async { drop(listener.accept().await.unwrap()) };
        let (connected, ()) = tokio::join!(runner.connect(), ending);
        assert!(matches!(connected, Err(SourceError::Closed { .. })));
        assert!(!runner.refusals.lock().refuses("db1", Position::new(3, 7)));
    }
}
