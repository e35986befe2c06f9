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

/// Bytes after which a piece of work ends.
const PIECE: usize = 256 << 10;

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
            let mut pieces = cut(&message.items).peekable();
            let mut left = message.len;
            while let Some(items) = pieces.next() {
                let mut piece = piece(source, (db, *epoch), items, false)?;
                let begun = || Progress::begin(db, (*end, *epoch));
                piece.progress.get_or_insert_with(begun);
                let len = match pieces.peek() {
                    Some(_) => items.iter().map(len).sum::<usize>().min(left),
                    None => {
                        piece.ack = Some(message.ack.clone());
                        left
                    }
                };
                left -= len;
                self.put(piece, len).await;
            }
        }
        Ok(Vec::new())
    }
}

/// What an item takes.
fn len(received: &Received) -> usize {
    received.item.content.len()
}

/// Items by pieces: a round of records ends between two of them, and one of a hundred large values would be as large as those. There
/// is one at least.
fn cut(mut items: &[Received]) -> impl Iterator<Item = &[Received]> {
    let mut is_first = true;
    std::iter::from_fn(move || {
        if items.is_empty() && !std::mem::take(&mut is_first) {
            return None;
        }
        is_first = false;
        let mut bytes = 0;
        let count = items.iter().take_while(|item| {
            let fits = bytes < PIECE;
            bytes += len(item);
            fits
        });
        let (piece, rest) = items.split_at(count.count());
        items = rest;
        Some(piece)
    })
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

#[cfg(test)]
mod tests {
    use takhin_pika::binlog::Item;

    use super::*;

    fn received(bytes: usize) -> Received {
        let item = Item {
            exec_time: 0,
            origin: 0,
            logic_id: 0,
            start: Position::default(),
            content: vec![0; bytes].into(),
        };
        let (index, end) = (0, Position::default());
        Received { item, index, end }
    }

    #[test]
    fn a_message_is_cut_between_its_items() {
        let lens = |bytes: &[usize]| -> Vec<usize> {
            let items: Vec<_> = bytes.iter().map(|bytes| received(*bytes)).collect();
            let pieces: Vec<_> = cut(&items).map(<[_]>::len).collect();
            assert_eq!(pieces.iter().sum::<usize>(), items.len());
            pieces
        };
        assert_eq!(lens(&[]), [0]);
        assert_eq!(lens(&[1; 1000]), [1000]);
        assert_eq!(lens(&[PIECE, PIECE, PIECE]), [1, 1, 1]);
        assert_eq!(lens(&[PIECE - 1, 1, 1]), [2, 1]);
        assert_eq!(lens(&[10 * PIECE, 1, PIECE / 2, PIECE / 2, 0]), [1, 3, 1]);
    }
}
