//! Following a master from 3.1 on: where each database goes on, which of them need their data set, and in what order that comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use takhin_config::cdc::SnapshotMode;
use takhin_pika::Position;
use takhin_pika::info::binlog_end;
use takhin_runtime::Shutdown;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::pauses::{LASTED, in_vain};
use super::{Connected, Ended, Runner};
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::metrics::{self, Phase};
use crate::queue::{Piece, Progress, Queue, Work};
use crate::sink::{Master, SinkError, Writer};
use crate::snapshot;
use crate::source::{Ends, Redis, Session, SourceError};
use crate::trace::{traced, work_span};
use crate::trouble::Trouble;

/// A database, where its changes go on, and how many data sets have replaced a lost position.
pub(super) type Begun = (String, Position, u32);

/// What writes, and what it is to write.
pub(super) type Writing<'a> = (Writer<'a>, mpsc::Receiver<Work>);

impl Runner<'_> {
    /// An attempt with a master that takes acknowledgements.
    pub(super) async fn with_session(
        &self,
        connected: Connected,
        (writer, works): Writing<'_>,
        (queue, known): (&Queue, &Checkpoints),
        stop: &Shutdown,
    ) -> Result<Ended, Trouble> {
        let Connected {
            mut redis,
            server,
            password,
        } = connected;
        let ends = Ends {
            local: redis.local(),
            peer: redis.peer(),
            password,
        };
        let begin = self.env.clock.instant();
        let (session, driver) = Session::open(self.env, self.config, ends).await?;
        let session = Arc::new(session);
        let master = Master {
            followed: session.followed(),
            session: Some(&session),
        };
        let is_held = AtomicBool::new(false);
        let working = async {
            // What it has written is noted everywhere, also where it was not told to stop.
            let over = Shutdown::new();
            let mut writing = Box::pin(writer.run(works, master, &over));
            let ended = tokio::select! {
                biased;
                () = stop.wait() => Ended::Stopped,
                written = &mut writing => match written {
                    Err(Trouble::Sink(error)) if error.needs_settings() => {
                        self.say(&error.into());
                        is_held.store(true, Ordering::Relaxed);
                        return self.hold((&session, &mut redis), None, stop).await;
                    }
                    Err(Trouble::Sink(error)) if error.is_refused() => {
                        let wait = Some(self.refused(error, begin.elapsed()));
                        return self.hold((&session, &mut redis), wait, stop).await;
                    }
                    written => return written.map(|()| Ended::Stopped),
                },
                followed = self.follow((&session, queue), &mut redis, &server.version, known) => followed?,
            };
            over.trigger();
            writing.await?;
            let _ = self.env.clock.timeout(Session::LEAVE, session.leave()).await;
            Ok(ended)
        };
        // What it sends is read on another thread than records are made on.
        let mut driving = driver.spawn(&session, queue.clone());
        let ended = tokio::select! {
            biased;
            worked = working => worked,
            error = driving.ended() => Err(error.into()),
        };
        driving.end().await;
        self.ended(session.followed());
        if let Err(trouble) = &ended {
            self.note_trouble(&session, trouble);
        }
        self.after_hold(ended, is_held.into_inner(), stop).await
    }

    /// How an attempt ends behind which nothing may be asked for again if it `is_held`: that waits for other settings.
    async fn after_hold(
        &self,
        ended: Result<Ended, Trouble>,
        is_held: bool,
        stop: &Shutdown,
    ) -> Result<Ended, Trouble> {
        match ended {
            Err(trouble) if is_held && self.is_amid.load(Ordering::Relaxed) => {
                warn!("{trouble}; the data set is not asked for again before a start with other settings");
                stop.wait().await;
                Ok(Ended::Stopped)
            }
            ended => ended,
        }
    }

    /// Says that brokers have refused a batch, in an attempt that has lasted so long. Returns how long to wait.
    fn refused(&self, error: SinkError, lasted: Duration) -> Duration {
        self.say(&error.into());
        // A data set is written anew from its beginning, which may take long before it is refused again.
        if lasted >= LASTED && !self.is_amid.load(Ordering::Relaxed) {
            self.refused_batches.store(0, Ordering::Relaxed);
        }
        in_vain(self.refused_batches.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits so long, or for a start with other settings. The master keeps its binlog meanwhile, as for any slave that is there.
    async fn hold(
        &self,
        (session, redis): (&Session, &mut Redis),
        wait: Option<Duration>,
        stop: &Shutdown,
    ) -> Result<Ended, Trouble> {
        let followed = session.followed();
        let waiting = async {
            match wait {
                Some(wait) => self.env.clock.sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.wait() => {}
            () = waiting => return Ok(Ended::Again),
            error = self.look_on(followed, redis, followed.databases()) => return Err(error.into()),
        }
        let _ = self.env.clock.timeout(Session::LEAVE, session.leave()).await;
        Ok(Ended::Stopped)
    }

    /// Has the changes of all databases come, and looks how far the master is, until something is wrong; or has logs begin that
    /// they are to come through.
    pub(super) async fn follow(
        &self,
        (session, queue): (&Session, &Queue),
        redis: &mut Redis,
        version: &str,
        known: &Checkpoints,
    ) -> Result<Ended, Trouble> {
        let begun = self.begin((session, queue), redis, version, known).await?;
        self.flags.source.pass();
        if self.is_over() {
            return Ok(Ended::Complete);
        }
        if self.config.wal.enabled {
            self.begin_logs(session, version, begun).await?;
            return Ok(Ended::Again);
        }
        let dbs = begun.into_iter().map(|(db, ..)| db).collect();
        Err(self.look_on(session.followed(), redis, dbs).await.into())
    }

    /// Has the changes of a database come, or asks only whether they would if they are to come through a log.
    /// `last` is the number of the last item that was written, 0 if none is known.
    async fn go_on(
        &self,
        session: &Session,
        db: &str,
        (from, last): ((Position, u32), u64),
    ) -> Result<(), SourceError> {
        session.expect(db, last);
        let is_taken = !self.config.wal.enabled;
        self.ask(session, db, from, is_taken).await?;
        if is_taken {
            follows(db, from.0);
        }
        Ok(())
    }

    async fn begin(
        &self,
        (session, queue): (&Session, &Queue),
        redis: &mut Redis,
        version: &str,
        known: &Checkpoints,
    ) -> Result<Vec<Begun>, Trouble> {
        let dbs = session.introduce(self.config, version).await?;
        self.check_databases(&dbs, known.keys())?;
        let ends = redis.info("replication").await?;
        let now_ms = self.env.clock.now_ms();
        let (mut begun, mut lacking) = (Vec::new(), Vec::new());
        for db in &dbs {
            metrics::set_phase(db, Phase::Connecting);
            let from = match known.get(db) {
                Some(checkpoint) if self.is_over() => {
                    begun.push((db.clone(), checkpoint.position(), checkpoint.epoch));
                    continue;
                }
                Some(_) if self.is_due(db) => {
                    lacking.push((db, "always"));
                    continue;
                }
                Some(checkpoint) => {
                    let position = checkpoint.position();
                    let checked = session.check_origin(db, position, &checkpoint.replication_id);
                    match checked.map(|()| (position, checkpoint.epoch)) {
                        Err(lost) => {
                            self.resync(lost)?;
                            lacking.push((db, "position_lost"));
                            continue;
                        }
                        position => position?,
                    }
                }
                None if self.config.is_data_set_taken() => {
                    lacking.push((db, "initial"));
                    continue;
                }
                None => {
                    let end = binlog_end(&ends, db).ok_or_else(|| session.without_end(db))?;
                    note(queue, db, end).await;
                    (end, 0)
                }
            };
            let last = known.get(db).map_or(0, |known| known.logic_id);
            match self.go_on(session, db, (from, last)).await {
                Err(lost @ SourceError::PositionLost { .. }) => {
                    self.note_lost(&lost);
                    self.resync(lost)?;
                    lacking.push((db, "position_lost"));
                }
                followed => {
                    followed?;
                    let noted_ms = known.get(db).map_or(now_ms, |known| known.ts_ms);
                    session.followed().since(db, noted_ms);
                    begun.push((db.clone(), from.0, from.1));
                }
            }
        }
        self.take_data_sets((session, queue), (lacking, known), &mut begun)
            .await?;
        Ok(begun)
    }

    /// Takes the data sets that are lacking, one after the other, until there are all of them. Others go on meanwhile.
    async fn take_data_sets(
        &self,
        (session, queue): (&Session, &Queue),
        (lacking, known): (Vec<(&String, &'static str)>, &Checkpoints),
        begun: &mut Vec<Begun>,
    ) -> Result<(), Trouble> {
        let mut lacking: VecDeque<_> = lacking
            .into_iter()
            .map(|(db, reason)| (db, reason, next_epoch(known.get(db)), None))
            .collect();
        while !lacking.is_empty() {
            // Those that need no pause first.
            let due = |db: &str| self.useless.lock().due(db);
            lacking.make_contiguous().sort_by_key(|(db, ..)| due(db));
            let Some((db, reason, epoch, why)) = lacking.pop_front() else {
                break;
            };
            self.until_due(db, why).await;
            match self.take_data_set((session, queue), (db, reason), epoch).await {
                Err(Trouble::Source(gone @ SourceError::ChangesGone { .. })) => {
                    lacking.push_back((db, "position_lost", epoch.saturating_add(1), Some(gone)));
                }
                taken => begun.push((db.clone(), taken?, epoch)),
            }
        }
        Ok(())
    }

    /// Takes the data set of a database, and has its changes come.
    async fn take_data_set(
        &self,
        (session, queue): (&Session, &Queue),
        (db, reason): (&str, &'static str),
        epoch: u32,
    ) -> Result<Position, Trouble> {
        self.flags.source.pass();
        self.is_amid.store(true, Ordering::Relaxed);
        metrics::set_phase(db, Phase::Snapshot);
        metrics::RESYNCS.with([reason]).inc();
        info!(db, reason, "taking the data set");
        let now_ms = self.env.clock.now_ms();
        let is_fresh = self.needs_fresh_dump.lock().remove(db);
        let wanted = (db, is_fresh, epoch, reason);
        let of = (session, &self.transfers);
        let taking = snapshot::take(self.env, self.config, of, queue, wanted);
        let taken = traced(work_span!("take data set", db, reason), taking).await;
        if matches!(&taken, Err(SourceError::Snapshot { .. })) {
            // The dump that the master has may be the fault.
            self.needs_fresh_dump.lock().insert(db.to_owned());
        }
        let from = taken?;
        self.taken.lock().insert(db.to_owned());
        self.is_amid.store(false, Ordering::Relaxed);
        if !self.is_over() {
            self.note_taken(db, from);
            let followed = self.go_on(session, db, ((from, epoch), 0)).await;
            followed.map_err(|error| self.of_new(error))?;
            session.followed().since(db, now_ms);
        }
        Ok(from)
    }

    /// The error for changes behind a data set that was just taken, which are not to be had.
    fn of_new(&self, error: SourceError) -> SourceError {
        self.note_lost(&error);
        match error {
            SourceError::PositionLost { db, position, why } if self.config.is_resynced() => {
                SourceError::ChangesGone { db, position, why }
            }
            other => other,
        }
    }

    /// Whether nothing is to be done once there is a position.
    pub(super) fn is_over(&self) -> bool {
        self.config.snapshot.mode == SnapshotMode::InitialOnly
    }

    /// Whether the data set of a database is to be taken although there is a position.
    pub(super) fn is_due(&self, db: &str) -> bool {
        self.config.snapshot.mode == SnapshotMode::Always && !self.taken.lock().contains(db)
    }

    /// Whether the master has all databases of which there are positions; whoever names some wants no others.
    pub(super) fn check_databases<'k>(
        &self,
        found: &[String],
        mut known: impl Iterator<Item = &'k String>,
    ) -> Result<(), SourceError> {
        match known.find(|db| !found.contains(db)) {
            Some(gone) if self.config.filters.databases.is_empty() => Err(SourceError::DatabaseGone {
                gone: gone.clone(),
                found: found.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the data set is to be taken where a position is lost; otherwise that is the trouble.
    fn resync(&self, lost: SourceError) -> Result<(), SourceError> {
        match self.config.is_resynced() {
            false => Err(lost),
            true => {
                warn!("{lost}; source.on_position_lost is resync");
                Ok(())
            }
        }
    }
}

/// Of a data set that is taken where there is this position, or none.
pub(super) fn next_epoch(known: Option<&Checkpoint>) -> u32 {
    known.map_or(0, |known| known.epoch.saturating_add(1))
}

pub(super) fn follows(db: &str, from: Position) {
    info!(db, position = %from, "following the binlog");
    metrics::set_phase(db, Phase::Streaming);
}

/// Has a position noted before anything after it is asked for: whoever begins again goes on there, and not behind what it
/// has not written.
async fn note(queue: &Queue, db: &str, position: Position) {
    let (done, noted) = oneshot::channel();
    let piece = Piece {
        progress: Some(Progress::begin(&db.into(), (position, 0))),
        done: Some(done),
        ..Piece::default()
    };
    queue.put(piece, 1).await;
    // If it cannot be noted, whoever could not says so.
    if noted.await.is_err() {
        std::future::pending::<()>().await;
    }
}
