//! Where what a connection brings goes: to the brokers, or to logs on the own disk.

use std::sync::Arc;

use takhin_pika::Position;
use takhin_pika::message::BinlogOffset;

use super::error::SourceError;
use super::legacy::Received;
use super::link::Ack;
use crate::event::{Source, put_events};
use crate::queue::{Piece, Progress, Queue};
use crate::wal::last_record;

/// What a message says of a database.
#[derive(Debug)]
pub struct Message {
    /// The database.
    pub db: Arc<str>,
    /// Data sets by which a lost position was replaced.
    pub epoch: u32,
    /// What is new, in order.
    pub items: Vec<Received>,
    /// Where that ends.
    pub end: Position,
    /// What to tell the master once it is safe.
    pub ack: Ack,
    /// Bytes that were sent.
    pub len: usize,
}

impl Message {
    /// One that says nothing yet.
    pub(super) fn new((db, session): (&Arc<str>, i32), (end, epoch): (Position, u32)) -> Self {
        Self {
            db: Arc::clone(db),
            epoch,
            items: Vec::new(),
            end,
            ack: Ack {
                db: db.to_string(),
                session,
                first: BinlogOffset::default(),
                last: BinlogOffset::default(),
            },
            len: 0,
        }
    }
}

/// Whoever takes messages.
pub trait Inlet {
    /// Takes messages, in order. Returns what is to be acknowledged at once. Nothing more is read from the master before it
    /// returns.
    fn take(
        &self,
        source: Option<&Source>,
        messages: Vec<Message>,
    ) -> impl Future<Output = Result<Vec<Ack>, SourceError>>;
}

/// Acknowledged by whoever has written it.
impl Inlet for Queue {
    async fn take(&self, source: Option<&Source>, messages: Vec<Message>) -> Result<Vec<Ack>, SourceError> {
        for message in messages {
            let Message { db, epoch, end, .. } = &message;
            let mut piece = piece(source, (db, *epoch), &message.items, false)?;
            let begun = || Progress::begin(db, (*end, *epoch));
            piece.progress.get_or_insert_with(begun);
            piece.ack = Some(message.ack);
            self.put(piece, message.len).await;
        }
        Ok(Vec::new())
    }
}

/// The events of commands, and where to go on then. `has_records`: they are of a master before 3.1, which is asked for the last
/// record again.
///
/// # Errors
///
/// [`SourceError::Item`].
pub fn piece(
    source: Option<&Source>,
    (db, epoch): (&Arc<str>, u32),
    commands: &[Received],
    has_records: bool,
) -> Result<Piece, SourceError> {
    let mut events = Vec::with_capacity(source.map_or(0, |_| commands.len()));
    for Received { item, index, end } in commands {
        if let Some(source) = source {
            let put = put_events(source, db, item, (*index, *end, epoch), &mut events);
            put.map_err(|source| SourceError::Item {
                db: db.to_string(),
                end: *end,
                source,
            })?;
        }
    }
    let progress = commands.last().map(|received| Progress {
        db: Arc::clone(db),
        position: received.end,
        epoch,
        logic_id: received.item.logic_id,
        origin: received.item.origin,
        ts_ms: i64::from(received.item.exec_time) * 1000,
        last: has_records.then(|| last_record(received)),
    });
    Ok(Piece {
        events,
        progress,
        ..Piece::default()
    })
}
