//! The data set of a master before 3.1. Nothing protects its binlog from being deleted meanwhile, so that its changes are
//! received, and kept, while the data set is written; they are written after it.
//!
//! A dump that is whole, and where the log of changes begins, has not been written yet: it is deleted before the first change
//! is. Whoever finds it there writes it from its beginning, as another data set.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use takhin_pika::Position;
use takhin_pika::info::{Family, legacy_binlog_end};
use takhin_runtime::Shutdown;
use tracing::{info, warn};

use super::super::kept::TRIM;
use super::super::{Connected, Ended, LONG_PAUSE, LOOK, Runner, file_size, follows};
use crate::metrics::{self, Phase};
use crate::queue::Queue;
use crate::snapshot;
use crate::source::{Dump, Followed, Legacy, Redis, SourceError};
use crate::trouble::Trouble;
use crate::wal::Before;

impl Runner<'_> {
    /// Receives the master's dump. Returns where its changes go on.
    pub(super) async fn receive_data_set(
        &self,
        connected: &mut Connected,
        reason: &'static str,
    ) -> Result<Position, SourceError> {
        metrics::set_phase(Legacy::DB, Phase::Snapshot);
        metrics::RESYNCS.with([reason]).inc();
        info!(db = Legacy::DB, reason, "taking the data set");
        let size = file_size(&mut connected.redis).await;
        let ends = (connected.redis.local(), connected.redis.peer());
        let legacy = Legacy::new(self.env, self.config, ends)?;
        let asking = (connected.server.version.as_str(), connected.password.as_deref());
        let accepted = || self.flags.source.pass();
        let dump = legacy.receive_dump(self.config, asking, accepted).await?;
        *self.refused.lock() = None;
        self.has_accepted.store(false, Ordering::Relaxed);
        let end = dump.info.position;
        // The end of a file that is about to roll is refused; the next record is in the next file.
        Ok(match end.offset > size {
            true => Position::new(end.filenum.saturating_add(1), 0),
            false => end,
        })
    }

    /// The dump that was received and is not written yet, if the log of changes goes on behind it.
    pub(super) async fn kept_data_set(
        &self,
        begin: Position,
        version: &str,
    ) -> Result<Option<Dump>, SourceError> {
        let mut kept = match Legacy::kept_dump(self.env, self.config, version).await {
            // Whoever received it has not looked at it any more.
            Err(SourceError::Snapshot { .. }) => None,
            kept => kept?,
        };
        kept = kept.filter(|dump| {
            let end = dump.info.position;
            end == begin || begin == Position::new(end.filenum.saturating_add(1), 0)
        });
        if let Some(dump) = &mut kept {
            dump.info.position = begin;
            metrics::set_phase(Legacy::DB, Phase::Snapshot);
        } else if self.wal.awaits_data_set() {
            warn!(
                "the dump is gone whose data set was to be written before the changes that are kept: it is taken again"
            );
            self.is_lacking.store(true, Ordering::Relaxed);
        }
        self.is_taking.store(kept.is_some(), Ordering::Relaxed);
        Ok(kept)
    }

    /// Writes the data set, and deletes the dump.
    pub(super) async fn write_data_set(
        &self,
        (dump, epoch): (&Dump, u32),
        followed: &Followed,
        queue: &Queue,
    ) -> Result<(), SourceError> {
        self.is_amid.store(true, Ordering::Relaxed);
        let written = snapshot::write(
            (self.env, self.config),
            followed,
            queue,
            (
                Legacy::DB,
                epoch,
                if epoch > 0 { "position_lost" } else { "initial" },
            ),
            dump,
        )
        .await;
        let version = followed.source().map_or("", |source| &source.version);
        if matches!(&written, Err(SourceError::Snapshot { .. })) {
            // It cannot be read.
            self.is_lacking.store(true, Ordering::Relaxed);
        }
        written?;
        self.is_amid.store(false, Ordering::Relaxed);
        // Without the changes after it the data set means nothing, and is taken again.
        let has_changes = || {
            let end = self.wal.position().map(|(end, _)| end);
            self.has_accepted.load(Ordering::Relaxed) || end > Some(dump.info.position)
        };
        while !has_changes() {
            self.env.clock.sleep(TRIM).await;
        }
        let wal = Arc::clone(&self.wal);
        self.env.tasks.blocking(move || wal.has_data_set()).await?;
        Legacy::remove_dump(self.env, self.config, version).await?;
        self.is_taking.store(false, Ordering::Relaxed);
        follows(Legacy::DB, dump.info.position);
        Ok(())
    }

    /// What is to be said of an error; `None` if the data set is to be taken again because of it.
    pub(super) async fn of_lost(&self, error: SourceError, followed: &Followed) -> Option<SourceError> {
        let SourceError::PositionLost { position, .. } = &error else {
            return Some(error);
        };
        if self.is_held.load(Ordering::Relaxed) {
            // Nobody writes another data set, nor what was received before it.
            return Some(error);
        }
        if self.is_taking.load(Ordering::Relaxed) {
            warn!(
                "the master has deleted its binlog at {position} while its data set was taken, which is taken again: raise \
                 its expire-logs-nums"
            );
            self.env.clock.sleep(LONG_PAUSE).await;
        } else if !self.config.is_resynced() {
            return Some(error);
        } else {
            warn!("{error}; source.on_position_lost is resync");
            // What was received before is written first.
            let is_written = || {
                let end = self.wal.position().map(|(end, _)| end);
                // The file may have a position of before another data set.
                followed.written(Legacy::DB).map(|(written, _)| written) >= end
            };
            while !is_written() {
                self.env.clock.sleep(TRIM).await;
                if self.is_held.load(Ordering::Relaxed) {
                    return Some(error);
                }
            }
        }
        self.is_lacking.store(true, Ordering::Relaxed);
        None
    }

    /// Takes the data set anew, whatever was known.
    pub(in crate::run) async fn take_again(&self, stop: &Shutdown) -> Result<Ended, Trouble> {
        let taking = async {
            let mut connected = self.connect().await?;
            if connected.server.family != Family::Legacy {
                return Err(SourceError::Upgraded {
                    address: connected.redis.address().to_owned(),
                    version: connected.server.version,
                }
                .into());
            }
            // What is kept means nothing without a data set before it. It is gone before the dump is: whoever begins again finds both, or
            // none.
            let wal = Arc::clone(&self.wal);
            self.env.tasks.blocking(move || wal.clear()).await?;
            let begin = self.receive_data_set(&mut connected, "position_lost").await?;
            self.reset(begin, Before::DataSet, connected.server.version)
                .await?;
            self.is_lacking.store(false, Ordering::Relaxed);
            Ok(Ended::Again)
        };
        tokio::select! {
            biased;
            () = stop.wait() => Ok(Ended::Stopped),
            taken = taking => taken,
        }
    }

    /// Waits until the master has begun the file in which its next record will be.
    pub(super) async fn rolled(
        &self,
        redis: &mut Redis,
        asks_for: Position,
        size: u64,
    ) -> Result<(), SourceError> {
        let is_behind = |head: Position| {
            let next = Position::new(head.filenum.saturating_add(1), 0);
            head.offset > size && asks_for == next
        };
        // Not all of them say where it ends.
        while legacy_binlog_end(&redis.info("log").await?).is_some_and(is_behind) {
            self.flags.source.pass();
            self.env.clock.sleep(LOOK).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use takhin_config::CdcConfig;
    use takhin_runtime::Env;
    use takhin_runtime::telemetry::health::Health;

    use super::*;
    use crate::control::Pause;
    use crate::run::Flags;

    /// A record of it is too large, say, and the master deletes the changes behind it meanwhile: a dump more helps nobody.
    #[tokio::test]
    async fn no_data_set_is_taken_again_while_nothing_can_be_written() {
        let (dir, env) = (tempfile::tempdir().unwrap(), Env::real());
        let mut config = CdcConfig::default();
        config.checkpoint.dir = dir.path().to_owned();
        let stop = Shutdown::new();
        let (flags, pause) = (Flags::new(&Health::start(&env, &stop)), Pause::default());
        let runner = Runner::new(&config, &env, (&flags, &pause)).await.unwrap();
        let followed = Legacy::followed(&config, "3.0.16");
        runner.is_held.store(true, Ordering::Relaxed);
        for is_taking in [true, false] {
            runner.is_taking.store(is_taking, Ordering::Relaxed);
            let lost = SourceError::PositionLost {
                db: Legacy::DB.to_owned(),
                position: Position::new(3, 7),
                why: "it is gone".to_owned(),
            };
            let said = runner.of_lost(lost, &followed).await;
            assert!(matches!(said, Some(SourceError::PositionLost { .. })), "{said:?}");
            assert!(!runner.is_lacking.load(Ordering::Relaxed));
        }
    }
}
