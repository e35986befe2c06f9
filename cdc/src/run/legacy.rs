//! Following a master before 3.1: what it sends is kept on the own disk, and written from there. Both go on without the other.

mod data_set;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use takhin_pika::Position;
use takhin_pika::info::{Family, legacy_binlog_end};
use takhin_pika::legacy::{Chain, LastRecord};
use takhin_runtime::{Env, Shutdown};
use tracing::{info, warn};

use super::kept::{Feed, keep};
use super::{Connected, Ended, LOOK, Pauses, Runner, file_size, follows, next_epoch};
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::metrics::{self, Phase};
use crate::queue::queue;
use crate::sink::Master;
use crate::source::{Followed, Legacy, Received, Redis, SourceError, Taker};
use crate::trouble::Trouble;
use crate::wal::{Before, Origin, Wal};

impl Runner<'_> {
    /// Begins to keep what the master sends, from the position that is known, or from now on.
    pub(super) async fn begin_log(
        &self,
        mut connected: Connected,
        mut checkpoints: Checkpoints,
    ) -> Result<Ended, Trouble> {
        metrics::set_phase(Legacy::DB, Phase::Connecting);
        Legacy::check(self.config)?;
        let (end, before) = match checkpoints.get(Legacy::DB) {
            Some(known) => (known.position(), Before::Record(known.last.map(LastRecord::from))),
            None if self.config.is_data_set_taken() => {
                let end = self.receive_data_set(&mut connected, "initial").await?;
                (end, Before::DataSet)
            }
            None => {
                let end = self.legacy_begin(&mut connected.redis).await?;
                let (id, now_ms) = (self.config.source_id(), self.env.clock.now_ms());
                // Whoever loses the log goes on there, and not behind what was not written.
                let begun = Checkpoint::new(&id, Legacy::DB, "", end, now_ms);
                checkpoints.insert(Legacy::DB.to_owned(), begun);
                let file = Arc::clone(&self.file);
                self.env.tasks.blocking(move || file.save(&checkpoints)).await?;
                (end, Before::Record(None))
            }
        };
        self.reset(end, before, connected.server.version).await?;
        Ok(Ended::Again)
    }

    /// Begins to keep from a position on.
    pub(super) async fn reset(&self, end: Position, before: Before, version: String) -> Result<(), Trouble> {
        let wal = Arc::clone(&self.wal);
        let begun = move || wal.reset(end, before, &version);
        Ok(self.env.tasks.blocking(begun).await?)
    }

    /// Where the changes from now on begin.
    async fn legacy_begin(&self, redis: &mut Redis) -> Result<Position, SourceError> {
        let size = file_size(redis).await;
        loop {
            let end = legacy_end(redis).await?;
            if end.offset <= size {
                return Ok(end);
            }
            // The master refuses the end of a file that is about to roll, and has no next file yet.
            info!(position = %end, "waiting for the master to begin its next file");
            self.env.clock.sleep(LOOK).await;
        }
    }

    /// Keeps what the master sends and writes what is kept, each with attempts of its own.
    pub(super) async fn with_log(&self, stop: &Shutdown) -> Result<Ended, Trouble> {
        let Some((begin, version)) = self.wal.beginning() else {
            return Ok(Ended::Again);
        };
        let followed = Legacy::followed(self.config, &version);
        // What was received and not written when the last process ended.
        self.kept_data_set(begin, &version).await?;
        if self.is_lacking.load(Ordering::Relaxed) {
            return Ok(Ended::Again);
        }
        let receiving = async {
            let mut pauses = Pauses::new(self.env);
            loop {
                let error = Box::pin(self.receive(&followed)).await;
                metrics::set_phase(Legacy::DB, Phase::Connecting);
                match self.of_lost(error, &followed).await {
                    Some(error) => self.rest(&error.into(), &mut pauses, stop).await,
                    None => break,
                }
            }
        };
        let writing = async {
            let mut pauses = Pauses::new(self.env);
            while !stop.is_triggered() {
                match Box::pin(self.write_log(begin, &followed, stop)).await {
                    Ok(ended) => return Ok(ended),
                    Err(Trouble::Sink(error)) if error.is_final() => return Err(error.into()),
                    Err(trouble) => self.rest(&trouble, &mut pauses, stop).await,
                }
                if self.is_lacking.load(Ordering::Relaxed) {
                    return Ok(Ended::Again);
                }
            }
            Ok(Ended::Stopped)
        };
        tokio::select! {
            biased;
            ended = writing => ended,
            () = receiving => Ok(Ended::Again),
        }
    }

    /// Writes what is kept, from the position that is known, until something is wrong with that.
    async fn write_log(
        &self,
        begin: Position,
        followed: &Arc<Followed>,
        stop: &Shutdown,
    ) -> Result<Ended, Trouble> {
        let prepared = tokio::select! {
            biased;
            () = stop.wait() => return Ok(Ended::Stopped),
            prepared = self.prepare() => prepared?,
        };
        let (topics, mut checkpoints) = prepared;
        let version = followed
            .source()
            .map(|source| source.version.clone())
            .unwrap_or_default();
        let kept = self.kept_data_set(begin, &version).await?;
        if self.is_lacking.load(Ordering::Relaxed) {
            return Ok(Ended::Again);
        }
        // What was known before the data set means nothing.
        let known = checkpoints.get(Legacy::DB);
        let epoch = match kept {
            Some(_) => next_epoch(known),
            None => known.map_or(0, |known| known.epoch),
        };
        let known = known.filter(|_| kept.is_none());
        let from = known.map_or(begin, Checkpoint::position);
        let last = known.and_then(|known| known.last).map(LastRecord::from);
        let Some(start) = self.start((Legacy::DB, &self.wal), (from, last)).await? else {
            // The positions are right: whoever has written them has had acknowledgements of everything before.
            warn!(position = %from, "what is kept does not go on at the position: the master is asked anew from there");
            self.reset(from, Before::Record(last), version).await?;
            return Ok(Ended::Again);
        };
        self.flags.sink.pass();
        followed.begin(Legacy::DB, start.from);
        followed.since(Legacy::DB, known.map_or(0, |known| known.ts_ms));
        let (queue, works) = queue(self.config.sink.queue_size.as_u32());
        let writer = self.writer(topics, &mut checkpoints);
        let master = Master {
            followed,
            session: None,
        };
        let feeding = async {
            if let Some(dump) = kept
                && let Err(error) = self.write_data_set((&dump, epoch), followed, &queue).await
            {
                return Trouble::from(error);
            }
            let feed = Feed {
                wal: &self.wal,
                db: Legacy::DB.into(),
                epoch,
                has_records: true,
            };
            let origin = Origin::unnamed(epoch);
            tokio::select! {
                error = self.feed(&feed, &start, followed, &queue) => error,
                error = self.trim(Legacy::DB, &self.wal, &origin) => error,
            }
        };
        let ended = tokio::select! {
            biased;
            written = writer.run(works, master, stop) => written.map(|()| Ended::Stopped),
            error = feeding => Err(error),
        };
        self.ended(followed);
        ended
    }

    /// Keeps what the master sends, and looks how far it is, until something is wrong with that.
    async fn receive(&self, followed: &Followed) -> SourceError {
        let mut connected = match self.connect().await {
            Ok(connected) => connected,
            Err(error) => return error,
        };
        let Some((end, last)) = self.wal.position() else {
            // Begun anew by whoever writes.
            return std::future::pending().await;
        };
        let size = file_size(&mut connected.redis).await;
        let chain = Chain::new(end, last, size);
        let asks_for = chain.asks_for();
        if let Err(error) = self.rolled(&mut connected.redis, asks_for, size).await {
            return error;
        }
        let ends = (connected.redis.local(), connected.redis.peer());
        let legacy = match self.may_ask(&connected, asks_for) {
            Ok(()) => Legacy::new(self.env, self.config, ends),
            Err(error) => Err(error),
        };
        let legacy = match legacy {
            Ok(legacy) => legacy,
            Err(error) => return error,
        };
        let taker = ToLog {
            env: self.env,
            wal: &self.wal,
        };
        let accepted = || {
            self.flags.source.pass();
            self.has_accepted.store(true, Ordering::Relaxed);
            if !self.is_taking.load(Ordering::Relaxed) {
                follows(Legacy::DB, end);
            }
        };
        let error = tokio::select! {
            error = legacy.follow(chain, connected.password.as_deref(), &taker, accepted) => error,
            error = self.look_legacy((&legacy, followed), &mut connected.redis, size) => error,
        };
        if matches!(error, SourceError::PositionLost { .. }) {
            *self.refused.lock() = Some(asks_for);
        }
        error
    }

    /// Whether the master is still of this kind, and has not refused the position before.
    fn may_ask(&self, connected: &Connected, position: Position) -> Result<(), SourceError> {
        if connected.server.family != Family::Legacy {
            return Err(SourceError::Upgraded {
                address: connected.redis.address().to_owned(),
                version: connected.server.version.clone(),
            });
        }
        // Whoever asks again has the master make a dump again, each time.
        if *self.refused.lock() == Some(position) {
            return Err(SourceError::PositionLost {
                db: Legacy::DB.to_owned(),
                position,
                why: "the master has said that it does not have it; it is not asked again".to_owned(),
            });
        }
        Ok(())
    }

    async fn look_legacy(
        &self,
        (legacy, followed): (&Legacy, &Followed),
        redis: &mut Redis,
        size: u64,
    ) -> SourceError {
        loop {
            self.env.clock.sleep(LOOK).await;
            // Not all of them say where it ends.
            let head = match redis.info("log").await {
                Ok(text) => legacy_binlog_end(&text),
                Err(error) => return error,
            };
            self.look(followed, Legacy::DB, head, size);
            if head.is_some_and(|head| legacy.is_stuck(head)) {
                return legacy.stuck();
            }
        }
    }
}

async fn legacy_end(redis: &mut Redis) -> Result<Position, SourceError> {
    let text = redis.info("log").await?;
    legacy_binlog_end(&text).ok_or_else(|| SourceError::Refused {
        address: redis.address().to_owned(),
        what: "INFO log",
        reply: "it has no binlog_offset".to_owned(),
    })
}

/// Keeps what is received.
struct ToLog<'a> {
    env: &'a Env,
    wal: &'a Arc<Wal>,
}

impl Taker for ToLog<'_> {
    async fn take(&self, commands: Vec<Received>) -> Result<(), SourceError> {
        keep(self.env, self.wal, commands).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use takhin_config::{ByteSize, CdcConfig};
    use takhin_pika::binlog::Item;
    use takhin_runtime::telemetry::health::Health;

    use super::*;
    use crate::checkpoint::Checkpoints;
    use crate::control::Pause;
    use crate::run::Flags;

    /// The master has deleted what it has sent: what no saved position has passed is nowhere else.
    #[tokio::test]
    async fn of_the_log_no_more_is_deleted_than_saved_positions_have_passed() {
        let (dir, env) = (tempfile::tempdir().unwrap(), Env::real());
        let mut config = CdcConfig::default();
        config.checkpoint.dir = dir.path().to_owned();
        config.wal.max_size = ByteSize::mib(1);
        let stop = Shutdown::new();
        let (flags, pause) = (Flags::new(&Health::start(&env, &stop)), Pause::default());
        let runner = Runner::new(&config, &env, (&flags, &pause)).await.unwrap();
        let at = |number: u32| Position::new(0, u64::from(number) * 100);
        runner
            .reset(at(0), Before::Record(None), "3.0.16".to_owned())
            .await
            .unwrap();
        let received = |number: u32| Received {
            item: Item {
                exec_time: 1,
                origin: 1,
                logic_id: 1,
                start: at(number),
                content: Bytes::from(vec![b'x'; 9000]),
            },
            index: 0,
            end: at(number + 1),
        };
        for number in 0..60 {
            runner.wal.append(&[received(number)]).unwrap();
        }
        let begin = || runner.wal.beginning().unwrap().0;
        let trim = async |epoch| {
            runner
                .trim_now(Legacy::DB, &runner.wal, &Origin::unnamed(epoch))
                .await
                .unwrap();
        };
        let read = |to: u32| {
            let mut cursor = runner.wal.cursor(at(0)).unwrap().unwrap();
            while runner.wal.read(&mut cursor).unwrap().last().unwrap().end < at(to) {}
        };
        read(60);
        trim(1).await;
        assert_eq!(begin(), at(0), "deleted although nothing is saved");
        let mut saved = Checkpoint::new("s", Legacy::DB, "", at(30), 1);
        saved.epoch = 1;
        let saved = Checkpoints::from([(Legacy::DB.to_owned(), saved)]);
        runner.file.save(&saved).unwrap();
        trim(2).await;
        assert_eq!(begin(), at(0), "what is saved is of before the data set");
        assert!(runner.wal.cursor(at(0)).unwrap().is_some());
        trim(1).await;
        assert_eq!(begin(), at(0), "nothing of it was read since");
        read(60);
        trim(1).await;
        assert!(begin() > at(0) && begin() <= at(30), "{}", begin());
        assert!(runner.wal.cursor(at(30)).unwrap().is_some());
        assert_eq!(runner.wal.position().unwrap().0, at(60));
    }
}
