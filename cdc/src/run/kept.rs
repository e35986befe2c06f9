//! What a log on the own disk is filled with, and written from; whatever kind of master it is of.

use std::sync::Arc;
use std::time::Duration;

use takhin_pika::Position;
use takhin_pika::legacy::LastRecord;
use takhin_runtime::Env;
use tracing::warn;

use super::Runner;
use crate::queue::{Piece, Progress, Queue};
use crate::source::{Followed, Received, SourceError, piece};
use crate::trouble::Trouble;
use crate::wal::{Cursor, Wal, WalError};

/// Pause between two looks for what is kept and was written.
pub(super) const TRIM: Duration = Duration::from_millis(200);

/// A log that is written from.
pub(super) struct Feed<'a> {
    pub(super) wal: &'a Arc<Wal>,
    pub(super) db: Arc<str>,
    /// Data sets by which a lost position was replaced.
    pub(super) epoch: u32,
    /// It is of a master before 3.1.
    pub(super) has_records: bool,
}

/// Keeps what was received: it is on the medium when this returns. Waits while the log is full.
pub(super) async fn keep(env: &Env, wal: &Arc<Wal>, commands: Vec<Received>) -> Result<(), SourceError> {
    if wal.is_full() {
        warn!(
            "wal.max_size is reached: nothing more is read from the master until brokers have taken some of it"
        );
        wal.room().await;
    }
    let wal = Arc::clone(wal);
    let kept = env.tasks.blocking(move || wal.append(&commands));
    Ok(kept.await?)
}

impl Runner<'_> {
    /// Puts what is kept into the queue, as it comes.
    pub(super) async fn feed(
        &self,
        feed: &Feed<'_>,
        (mut cursor, mut end, last): (Cursor, Position, Option<LastRecord>),
        followed: &Followed,
        queue: &Queue,
    ) -> Trouble {
        // The topic is to have a position as soon as there is one.
        let begun = Piece {
            progress: Some(Progress {
                last,
                ..Progress::begin(&feed.db, (end, feed.epoch))
            }),
            ..Piece::default()
        };
        queue.put(begun, 1).await;
        loop {
            feed.wal.beyond(end).await;
            let wal = Arc::clone(feed.wal);
            let read = self.env.tasks.blocking(move || {
                let commands = wal.read(&mut cursor)?;
                Ok::<_, Trouble>((commands, cursor))
            });
            let (commands, next) = match read.await {
                Ok(read) => read,
                Err(trouble) => return trouble,
            };
            cursor = next;
            end = commands.last().map_or(end, |command| command.end);
            let len = commands.iter().map(|command| command.item.content.len()).sum();
            let place = (&feed.db, feed.epoch);
            match piece(followed.source(), place, &commands, feed.has_records) {
                Ok(piece) => drop(queue.put(piece, len).await),
                Err(error) => return error.into(),
            }
        }
    }

    /// Deletes what is kept of a database and saved positions have passed, now and then.
    pub(super) async fn trim(&self, db: &str, wal: &Arc<Wal>) -> Trouble {
        loop {
            self.env.clock.sleep(TRIM).await;
            if let Err(error) = self.trim_now(db, wal).await {
                return error.into();
            }
        }
    }

    pub(super) async fn trim_now(&self, db: &str, wal: &Arc<Wal>) -> Result<(), WalError> {
        // Not what was written, or received: what was saved.
        let Some(saved) = self.file.saved(db) else {
            return Ok(());
        };
        let wal = Arc::clone(wal);
        self.env.tasks.blocking(move || wal.trim(saved)).await
    }
}
