//! What a log on the own disk is filled with, and written from; whatever kind of master it is of.

use std::sync::Arc;
use std::time::Duration;

use takhin_pika::Position;
use takhin_pika::legacy::LastRecord;
use takhin_runtime::Env;
use tracing::warn;

use super::Runner;
use crate::checkpoint::Checkpoint;
use crate::queue::{Piece, Progress, Queue};
use crate::source::{Followed, Received, SourceError, is_same_binlog, piece};
use crate::trouble::Trouble;
use crate::wal::{Cursor, Origin, Wal, WalError};

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

/// Where a log is written from.
pub(super) struct Start {
    pub(super) cursor: Cursor,
    pub(super) from: Position,
    /// Of a master before 3.1, the record before it.
    pub(super) last: Option<LastRecord>,
}

/// Keeps what was received: it is on the medium when this returns. Waits while the log is full.
pub(super) async fn keep(env: &Env, wal: &Arc<Wal>, commands: Vec<Received>) -> Result<(), SourceError> {
    if wal.is_full() {
        warn!(
            "wal.max_size is reached: nothing more is read from the master until brokers have taken some of it"
        );
        wal.room().await?;
    }
    let wal = Arc::clone(wal);
    let kept = env.tasks.blocking(move || wal.append(&commands));
    Ok(kept.await?)
}

/// Whether a position is one of the binlog that is kept.
pub(super) fn is_of(known: &Checkpoint, origin: &Origin) -> bool {
    known.epoch == origin.epoch && is_same_binlog(&known.replication_id, &origin.replication_id)
}

impl Runner<'_> {
    /// Where to go on in the log of a database behind what is known to be written; `None` if it does not go on there.
    ///
    /// What is before its beginning was deleted when a saved position had passed it. A position that is behind that is an older
    /// one, of the topic or of another copy of the file: the log counts.
    pub(super) async fn start(
        &self,
        (db, wal): (&str, &Arc<Wal>),
        (known, last): (Position, Option<LastRecord>),
    ) -> Result<Option<Start>, WalError> {
        let (mut from, mut last) = (known, last);
        if let Some((begin, before)) = wal.first()
            && known < begin
        {
            warn!(
                db,
                position = %known,
                "what is kept begins behind the position, at {begin}, and so what is between was written: it goes on there"
            );
            (from, last) = (begin, before);
        }
        let wal = Arc::clone(wal);
        let cursor = self.env.tasks.blocking(move || wal.cursor(from)).await?;
        Ok(cursor.map(|cursor| Start { cursor, from, last }))
    }

    /// Puts what is kept into the queue, as it comes.
    pub(super) async fn feed(
        &self,
        feed: &Feed<'_>,
        start: &Start,
        followed: &Followed,
        queue: &Queue,
    ) -> Trouble {
        let (mut cursor, mut end) = (start.cursor, start.from);
        // The topic is to have a position as soon as there is one.
        let begun = Piece {
            progress: Some(Progress {
                last: start.last,
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
    pub(super) async fn trim(&self, db: &str, wal: &Arc<Wal>, origin: &Origin) -> Trouble {
        loop {
            self.env.clock.sleep(TRIM).await;
            if let Err(error) = self.trim_now(db, wal, origin).await {
                return error.into();
            }
        }
    }

    pub(super) async fn trim_now(&self, db: &str, wal: &Arc<Wal>, origin: &Origin) -> Result<(), WalError> {
        // Not what was written, or received: what was saved. A file that is behind the topic may have a position of before
        // another data set, which is beyond all of the log.
        let Some(saved) = self.file.saved(db).filter(|saved| is_of(saved, origin)) else {
            return Ok(());
        };
        let (wal, saved) = (Arc::clone(wal), saved.position());
        self.env.tasks.blocking(move || wal.trim(saved)).await
    }
}
