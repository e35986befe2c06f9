//! Following a master from 3.1 on through logs on the own disk, where `wal.enabled` wants them: what it sends is kept and
//! acknowledged, and written from there. Both go on without the other.
//!
//! All databases that are followed have logs, or none has. They begin where everything before was written, with a position
//! saved: an attempt without them takes data sets, and begins them. Where another data set is needed, or a log more, or the
//! master is of another version, nothing more is received; what is there is written, and only then they are forgotten, and
//! begun anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::select_all;
use takhin_pika::info::Family;
use takhin_runtime::{Env, Shutdown};
use tracing::{info, warn};

use super::kept::{Feed, Start, TRIM, is_of, keep};
use super::{Begun, Connected, Ended, Pauses, Runner, follows};
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::event::Source;
use crate::metrics::{self, Phase};
use crate::queue::queue;
use crate::sink::Master;
use crate::source::{Ack, Ends, Followed, Inlet, Message, Received, Redis, Session, SourceError};
use crate::trouble::Trouble;
use crate::wal::{Begin, Origin, Wal, WalError, version_kept};

/// Logs by database.
type ByDatabase = BTreeMap<String, Arc<Wal>>;

/// What all logs of a master have in common.
struct Kept {
    logs: ByDatabase,
    version: String,
    replication_id: String,
}

/// A log, and from where on it is to be written.
struct Reading<'a> {
    feed: Feed<'a>,
    start: Start,
    origin: Origin,
}

impl Kept {
    fn new(logs: ByDatabase) -> Self {
        let first = logs.values().next();
        let begun = first.and_then(|wal| wal.beginning());
        let origin = first.and_then(|wal| wal.origin());
        Self {
            version: begun.map(|(_, version)| version).unwrap_or_default(),
            replication_id: origin.map(|origin| origin.replication_id).unwrap_or_default(),
            logs,
        }
    }

    /// Whether everything that was received is before a saved position.
    fn is_written(&self, saved: impl Fn(&str) -> Option<Checkpoint>) -> bool {
        self.logs.iter().all(|(db, wal)| {
            let saved = saved(db).filter(|saved| wal.origin().is_some_and(|origin| is_of(saved, &origin)));
            saved.map(|saved| saved.position()) >= wal.position().map(|(end, _)| end)
        })
    }
}

impl Runner<'_> {
    /// Has logs begin where databases go on.
    pub(super) async fn begin_logs(
        &self,
        session: &Session,
        version: &str,
        begun: Vec<Begun>,
    ) -> Result<(), Trouble> {
        let source = session.followed().source();
        let replication_id = source.map(|source| source.replication_id.clone());
        let replication_id = replication_id.unwrap_or_default();
        let begins = begun.into_iter().map(|(db, at, epoch)| Begin {
            db,
            at,
            origin: Origin {
                replication_id: replication_id.clone(),
                epoch,
            },
        });
        let begins: Vec<Begin> = begins.collect();
        if begins.iter().any(|begin| !begin.origin.fits()) {
            return Err(session.odd_replication().into());
        }
        self.is_leaving_logs.store(false, Ordering::Relaxed);
        let (logs, version) = (Arc::clone(&self.logs), version.to_owned());
        let begun = self.env.tasks.blocking(move || logs.begin(&version, begins));
        Ok(begun.await?)
    }

    /// Keeps what the master sends and writes what is kept, each with attempts of its own.
    pub(super) async fn with_logs(&self, stop: &Shutdown) -> Result<Ended, Trouble> {
        let kept = Kept::new(self.logs.begun());
        let followed = Followed::of(self.config, &kept.version, kept.replication_id.clone());
        if !self.config.wal.enabled || self.is_over() || kept.logs.keys().any(|db| self.is_due(db)) {
            info!("what is in wal.dir is written first");
            self.is_leaving_logs.store(true, Ordering::Relaxed);
        }
        let receiving = async {
            let mut pauses = Pauses::new(self.env);
            while !self.is_leaving_logs.load(Ordering::Relaxed) && !stop.is_triggered() {
                let ended = Box::pin(self.receive_all(&kept, &followed, stop)).await;
                for db in kept.logs.keys() {
                    metrics::set_phase(db, Phase::Connecting);
                }
                match ended {
                    Ok(()) if stop.is_triggered() => {}
                    Ok(()) => self.is_leaving_logs.store(true, Ordering::Relaxed),
                    Err(error) => self.rest(&error.into(), &mut pauses, stop).await,
                }
            }
        };
        let writing = async {
            let mut pauses = Pauses::new(self.env);
            while !stop.is_triggered() {
                match Box::pin(self.write_all(&kept, &followed, stop)).await {
                    Ok(ended) => return Ok(ended),
                    Err(Trouble::Sink(error)) if error.is_final() => return Err(error.into()),
                    Err(trouble) => self.rest(&trouble, &mut pauses, stop).await,
                }
            }
            Ok(Ended::Stopped)
        };
        tokio::pin!(receiving, writing);
        let mut has_left = false;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut writing => break ended,
                () = &mut receiving, if !has_left => has_left = true,
            }
        };
        if matches!(ended, Ok(Ended::Stopped)) && !has_left {
            let _ = self.env.clock.timeout(Session::LEAVE, receiving).await;
        }
        ended
    }

    /// Writes what is kept, from the positions that are known, until something is wrong with that, or the logs are to be begun
    /// anew and everything is written.
    async fn write_all(&self, kept: &Kept, followed: &Followed, stop: &Shutdown) -> Result<Ended, Trouble> {
        let prepared = tokio::select! {
            biased;
            () = stop.wait() => return Ok(Ended::Stopped),
            prepared = self.prepare() => prepared?,
        };
        let (topics, mut checkpoints) = prepared;
        let Some(readings) = self.readings(kept, &checkpoints).await? else {
            return Ok(Ended::Again);
        };
        self.flags.sink.pass();
        for reading in &readings {
            followed.begin(&reading.feed.db, reading.start.from);
            if let Some(known) = checkpoints.get(&*reading.feed.db) {
                followed.since(&reading.feed.db, known.ts_ms);
            }
        }
        let (queue, works) = queue(self.config.sink.queue_size.as_u32());
        let writer = self.writer(topics, &mut checkpoints);
        let master = Master {
            followed,
            session: None,
        };
        let feeding = readings
            .iter()
            .map(|reading| Box::pin(self.feed(&reading.feed, &reading.start, followed, &queue)));
        let trimming = readings.iter().map(|reading| {
            let Feed { wal, db, .. } = &reading.feed;
            Box::pin(self.trim(db, wal, &reading.origin))
        });
        let ended = tokio::select! {
            biased;
            written = writer.run(works, master, stop) => written.map(|()| Ended::Stopped),
            (error, ..) = select_all(feeding) => Err(error),
            (error, ..) = select_all(trimming) => Err(error),
            () = self.written_all(kept) => Ok(Ended::Again),
        };
        if matches!(ended, Ok(Ended::Again)) {
            let logs = Arc::clone(&self.logs);
            self.env.tasks.blocking(move || logs.clear()).await?;
        }
        self.ended(followed);
        ended
    }

    /// Where to read each log; `None` if one of them does not go on at the position, and was forgotten.
    async fn readings<'a>(
        &self,
        kept: &'a Kept,
        checkpoints: &Checkpoints,
    ) -> Result<Option<Vec<Reading<'a>>>, WalError> {
        let mut readings = Vec::new();
        for (db, wal) in &kept.logs {
            let (Some(origin), Some((begin, _))) = (wal.origin(), wal.beginning()) else {
                return Ok(None);
            };
            let known = checkpoints.get(db);
            let is_of_log = known.is_none_or(|known| is_of(known, &origin));
            let from = known.map_or(begin, |known| known.position());
            let start = match is_of_log && origin.replication_id == kept.replication_id {
                true => self.start((db, wal), (from, None)).await?,
                false => None,
            };
            let Some(start) = start else {
                // The positions are right: whoever has written them has had acknowledgements of everything before.
                warn!(
                    db,
                    position = %from,
                    "what is kept does not go on at the position: the master is asked anew from there"
                );
                let log = Arc::clone(wal);
                self.env.tasks.blocking(move || log.clear()).await?;
                return Ok(None);
            };
            readings.push(Reading {
                feed: Feed {
                    wal,
                    db: db.as_str().into(),
                    epoch: origin.epoch,
                    has_records: false,
                },
                start,
                origin,
            });
        }
        Ok(Some(readings))
    }

    /// Returns when the logs are to be begun anew, and everything in them was written.
    async fn written_all(&self, kept: &Kept) {
        let is_done =
            || self.is_leaving_logs.load(Ordering::Relaxed) && kept.is_written(|db| self.file.saved(db));
        while !is_done() {
            self.env.clock.sleep(TRIM).await;
        }
    }

    /// Keeps what the master sends of all databases, until something is wrong with that, or the logs are to be begun anew.
    async fn receive_all(
        &self,
        kept: &Kept,
        followed: &Followed,
        stop: &Shutdown,
    ) -> Result<(), SourceError> {
        let connected = tokio::select! {
            biased;
            () = stop.wait() => return Ok(()),
            connected = self.connect() => connected?,
        };
        let Connected {
            mut redis,
            server,
            password,
        } = connected;
        if server.family == Family::Legacy {
            return Err(SourceError::Downgraded {
                address: redis.address().to_owned(),
                version: server.version,
            });
        }
        let ends = Ends {
            local: redis.local(),
            peer: redis.peer(),
            password,
        };
        let (session, driver) = Session::open(self.env, self.config, ends).await?;
        let inlet = ToLogs {
            env: self.env,
            logs: &kept.logs,
        };
        let working = async {
            let ended = tokio::select! {
                biased;
                () = stop.wait() => Ok(()),
                ended = self.follow_all(&session, (&mut redis, &server.version), (kept, followed)) => ended,
            };
            if ended.is_ok() {
                let _ = self.env.clock.timeout(Session::LEAVE, session.leave()).await;
            }
            ended
        };
        let ended = tokio::select! {
            biased;
            ended = working => ended,
            error = driver.run(&session, &inlet) => Err(error),
        };
        if let Err(error) = &ended {
            self.note_end(&session, error);
        }
        match ended {
            Err(lost @ SourceError::PositionLost { .. }) if self.config.is_resynced() => {
                warn!("{lost}; source.on_position_lost is resync");
                Ok(())
            }
            ended => ended,
        }
    }

    /// Has the changes of all databases come, and looks how far the master is, until something is wrong, or it is not as it was.
    async fn follow_all(
        &self,
        session: &Session,
        (redis, version): (&mut Redis, &str),
        (kept, followed): (&Kept, &Followed),
    ) -> Result<(), SourceError> {
        let dbs = session.introduce(self.config, version).await?;
        self.check_databases(&dbs, kept.logs.keys())?;
        let has_all = dbs.iter().all(|db| kept.logs.contains_key(db));
        if !has_all || version_kept(version) != kept.version {
            info!(
                version,
                "the master is not as it was: what is kept of it is written first"
            );
            return Ok(());
        }
        for (db, wal) in kept.logs.iter().filter(|(db, _)| dbs.contains(db)) {
            let (Some((end, _)), Some(origin)) = (wal.position(), wal.origin()) else {
                return Ok(());
            };
            session.check_origin(db, end, &origin.replication_id)?;
            self.ask(session, db, (end, origin.epoch), true).await?;
            follows(db, end);
        }
        self.flags.source.pass();
        Err(self.look_on(followed, redis, dbs).await)
    }
}

/// Keeps what is received; it is acknowledged then.
struct ToLogs<'a> {
    env: &'a Env,
    logs: &'a ByDatabase,
}

impl Inlet for ToLogs<'_> {
    async fn take(&self, _: Option<&Source>, messages: Vec<Message>) -> Result<Vec<Ack>, SourceError> {
        let mut items: BTreeMap<Arc<str>, Vec<Received>> = BTreeMap::new();
        let mut acks = Vec::with_capacity(messages.len());
        for message in messages {
            items.entry(message.db).or_default().extend(message.items);
            acks.push(message.ack);
        }
        for (db, items) in items {
            // What is acknowledged is in a log.
            let missing = || WalError::Elsewhere((&*db).into());
            keep(self.env, self.logs.get(&*db).ok_or_else(missing)?, items).await?;
        }
        Ok(acks)
    }
}
