//! What lies between the master and the brokers: bounded in bytes, so that the one waits for the other.

use std::sync::Arc;

use takhin_pika::Position;
use takhin_pika::legacy::LastRecord;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::event::Event;
use crate::metrics;
use crate::source::Ack;

/// Pieces of work that may wait, whatever their size.
const PIECES: usize = 10_000;

/// Memory of an event beside the bytes that came from the master: itself, its id, and what the allocator adds to each part.
const EVENT: usize = 512;

/// Where to go on once everything before has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The database.
    pub db: Arc<str>,
    /// The changes go on there.
    pub position: Position,
    /// Data sets by which a lost position was replaced.
    pub epoch: u32,
    /// Number of the last item, if there was one.
    pub logic_id: u64,
    /// The master's term; before 3.3 the id of the server that has executed it.
    pub origin: u32,
    /// When the last change happened, in milliseconds since 1970; 0 if there was none.
    pub ts_ms: i64,
    /// Of masters before 3.1, the last record.
    pub last: Option<LastRecord>,
}

impl Progress {
    /// Where a database begins, after so many data sets that have replaced a lost position.
    pub fn begin(db: &Arc<str>, (position, epoch): (Position, u32)) -> Self {
        Self {
            db: Arc::clone(db),
            position,
            epoch,
            logic_id: 0,
            origin: 0,
            ts_ms: 0,
            last: None,
        }
    }
}

/// Events that are to be written, and what is to be done then.
#[derive(Debug)]
pub struct Work {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Where to go on then.
    pub progress: Option<Progress>,
    /// What to tell the master then.
    pub ack: Option<Ack>,
    /// Whom to wake then.
    pub done: Option<oneshot::Sender<()>>,
    /// The memory that it takes.
    permit: Permit,
}

/// Memory of a piece of work, given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _bytes: OwnedSemaphorePermit,
    len: i64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        metrics::QUEUE_BYTES.add(-self.len);
    }
}

/// The end where work is put in; clones share the bound.
#[derive(Debug, Clone)]
pub struct Queue {
    works: mpsc::Sender<Work>,
    bytes: Arc<Semaphore>,
    size: u32,
}

/// Work before it has its memory.
#[derive(Debug, Default)]
pub struct Piece {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Where to go on then.
    pub progress: Option<Progress>,
    /// What to tell the master then.
    pub ack: Option<Ack>,
    /// Whom to wake then.
    pub done: Option<oneshot::Sender<()>>,
}

/// A queue with room for `size` bytes.
pub fn queue(size: u32) -> (Queue, mpsc::Receiver<Work>) {
    let (works, received) = mpsc::channel(PIECES);
    let queue = Queue {
        works,
        bytes: Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(usize::MAX))),
        size,
    };
    (queue, received)
}

impl Queue {
    /// Puts in what the master has sent in `len` bytes, when there is room for the events. What is larger than the queue takes
    /// all of it. Returns `false` when nobody takes work out any more.
    pub async fn put(&self, piece: Piece, len: usize) -> bool {
        let memory = len.saturating_add(piece.events.len().saturating_mul(EVENT));
        let wanted = u32::try_from(memory).unwrap_or(u32::MAX).clamp(1, self.size);
        let Ok(bytes) = Arc::clone(&self.bytes).acquire_many_owned(wanted).await else {
            return false;
        };
        metrics::QUEUE_BYTES.add(i64::from(wanted));
        let work = Work {
            events: piece.events,
            progress: piece.progress,
            ack: piece.ack,
            done: piece.done,
            permit: Permit {
                _bytes: bytes,
                len: i64::from(wanted),
            },
        };
        self.works.send(work).await.is_ok()
    }
}

impl Work {
    /// Its memory, to be kept until it is written.
    pub fn into_permit(self) -> Permit {
        self.permit
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::event::Kind;

    fn events(count: usize) -> Piece {
        let event = Event {
            kind: Kind::Binlog,
            op: "set".into(),
            data_type: None,
            db: "db0".into(),
            key: None,
            args: Vec::new(),
            ts_ms: 0,
            event_id: String::new(),
            expire_at_ms: None,
            place: None,
            part: None,
            snapshot: None,
            is_random: false,
            has_more_keys: false,
            is_known: true,
        };
        Piece {
            events: vec![event; count],
            ..Piece::default()
        }
    }

    /// Two million keys of 15 bytes once took eight times what the queue was said to hold.
    #[test]
    fn small_events_take_more_than_their_bytes() {
        let (queue, mut works) = queue(1 << 20);
        let mut waiting = 0;
        while queue.put(events(100), 100).now_or_never() == Some(true) {
            waiting += 100 * size_of::<Event>();
        }
        assert!(waiting > 0 && waiting <= 1 << 20, "{waiting}");
        // What is larger than the queue finds room when nothing else is there.
        while let Ok(work) = works.try_recv() {
            drop(work.into_permit());
        }
        assert_eq!(queue.put(events(5000), 5000).now_or_never(), Some(true));
        assert_eq!(queue.put(events(1), 1).now_or_never(), None);
    }
}
