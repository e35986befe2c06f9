//! An attempt with a master before 3.1.

use std::sync::Arc;

use takhin_config::cdc::{OnPositionLost, SnapshotMode};
use takhin_pika::Position;
use takhin_pika::info::legacy_binlog_end;
use takhin_pika::legacy::{Chain, LastRecord};
use takhin_runtime::Shutdown;
use tracing::info;

use super::{Connected, LOOK, Runner, Writing, file_size, follows, note};
use crate::checkpoint::Checkpoints;
use crate::event::events_of_item;
use crate::metrics::{self, Phase};
use crate::queue::{Piece, Progress, Queue};
use crate::sink::Master;
use crate::source::{Followed, Legacy, Received, Redis, SourceError, Taker};
use crate::trouble::Trouble;

impl Runner<'_> {
    pub(super) async fn with_legacy(
        &self,
        mut connected: Connected,
        (writer, works): Writing<'_>,
        (queue, known): (&Queue, &Checkpoints),
        stop: &Shutdown,
    ) -> Result<(), Trouble> {
        let ends = (connected.redis.local(), connected.redis.peer());
        let legacy = Legacy::new(self.env, self.config, &connected.server.version, ends)?;
        let master = Master {
            followed: legacy.followed(),
            session: None,
        };
        let ended = tokio::select! {
            biased;
            written = writer.run(works, master, stop) => written,
            error = self.follow_legacy(&legacy, &mut connected, queue, known) => Err(error.into()),
        };
        self.ended(legacy.followed());
        ended
    }

    /// Has the changes come, and looks how far the master is, until something is wrong.
    async fn follow_legacy(
        &self,
        legacy: &Legacy,
        connected: &mut Connected,
        queue: &Queue,
        known: &Checkpoints,
    ) -> SourceError {
        metrics::set_phase(Legacy::DB, Phase::Connecting);
        let size = file_size(&mut connected.redis).await;
        let chain = match self.begin_legacy(connected, (queue, known), size).await {
            Ok(chain) => chain,
            Err(error) => return error,
        };
        let (from, asks_for) = (chain.end(), chain.asks_for());
        let taker = ToQueue {
            queue,
            followed: legacy.followed(),
            db: Legacy::DB.into(),
        };
        let password = connected.password.as_deref();
        let accepted = || {
            self.flags.source.pass();
            follows(Legacy::DB, from);
        };
        let error = tokio::select! {
            error = legacy.follow(chain, password, &taker, accepted) => error,
            error = self.look_legacy(legacy, &mut connected.redis, size) => error,
        };
        match error {
            lost @ SourceError::PositionLost { .. } => {
                *self.refused.lock() = Some(asks_for);
                self.without_data_set(connected, lost)
            }
            error => error,
        }
    }

    /// Where to begin.
    async fn begin_legacy(
        &self,
        connected: &mut Connected,
        (queue, known): (&Queue, &Checkpoints),
        size: u64,
    ) -> Result<Chain, SourceError> {
        if let Some(checkpoint) = known.get(Legacy::DB) {
            let last = checkpoint.last.map(LastRecord::from);
            let chain = Chain::new(checkpoint.position(), last, size);
            // Whoever asks again has the master make a dump again, each time.
            if *self.refused.lock() == Some(chain.asks_for()) {
                let lost = SourceError::PositionLost {
                    db: Legacy::DB.to_owned(),
                    position: chain.asks_for(),
                    why: "the master has said that it does not have it; it is not asked again".to_owned(),
                };
                return Err(self.without_data_set(connected, lost));
            }
            return Ok(chain);
        }
        if self.config.snapshot.mode == SnapshotMode::Initial {
            return Err(no_data_set(connected));
        }
        let mut end = legacy_end(&mut connected.redis).await?;
        // The master refuses ends of files that are about to roll, and has no next file yet.
        while end.offset > size {
            info!(position = %end, "waiting for the master to begin its next file");
            self.env.clock.sleep(LOOK).await;
            end = legacy_end(&mut connected.redis).await?;
        }
        note(queue, Legacy::DB, end).await;
        Ok(Chain::new(end, None, size))
    }

    /// What a lost position is where the data set is to be taken again and cannot be.
    fn without_data_set(&self, connected: &Connected, lost: SourceError) -> SourceError {
        match self.config.source.on_position_lost {
            OnPositionLost::Stop => lost,
            OnPositionLost::Resync => no_data_set(connected),
        }
    }

    async fn look_legacy(&self, legacy: &Legacy, redis: &mut Redis, size: u64) -> SourceError {
        loop {
            self.env.clock.sleep(LOOK).await;
            // Not all of them say where it ends.
            let head = match redis.info("log").await {
                Ok(text) => legacy_binlog_end(&text),
                Err(error) => return error,
            };
            self.look(legacy.followed(), Legacy::DB, head, size);
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

fn no_data_set(connected: &Connected) -> SourceError {
    SourceError::NoDataSet {
        address: connected.redis.address().to_owned(),
        version: connected.server.version.clone(),
    }
}

/// Puts what is received into the queue.
struct ToQueue<'a> {
    queue: &'a Queue,
    followed: &'a Followed,
    db: Arc<str>,
}

impl Taker for ToQueue<'_> {
    async fn take(&self, commands: Vec<Received>, last: Option<LastRecord>) -> Result<(), SourceError> {
        let Some(source) = self.followed.source() else {
            return Ok(());
        };
        let (mut events, mut progress, mut len) = (Vec::new(), None, 0);
        for Received { item, index, end } in &commands {
            let made = events_of_item(source, &self.db, item, (*index, *end));
            events.extend(made.map_err(|source| SourceError::Item {
                db: self.db.to_string(),
                end: *end,
                source,
            })?);
            len += item.content.len();
            progress = Some(Progress {
                db: Arc::clone(&self.db),
                position: *end,
                logic_id: item.logic_id,
                term: item.origin,
                ts_ms: i64::from(item.exec_time) * 1000,
                last,
            });
        }
        let piece = Piece {
            events,
            progress,
            ..Piece::default()
        };
        self.queue.put(piece, len).await;
        Ok(())
    }
}
