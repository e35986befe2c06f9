//! What the master has sent of a database and brokers have not acknowledged, on the own disk. Masters before 3.1 send nothing
//! twice for long, and take no acknowledgements; those from 3.1 on are acknowledged what is here, if that is wanted.
//!
//! Segments follow one another without a gap. What holds of them, each with a test that fails without it (`tests`):
//!
//! 1. What [`Wal::append`] has returned for outlives a loss of power: the records are synced before they are told of, and the
//!    name of a segment is before its first record is written.
//! 2. The end of the last segment may be torn: it is cut there, and what comes next is written at the cut.
//! 3. What could not be written or synced is cut off before anything else is written, and the master is asked again from there.
//! 4. Anything else that is not what was written is an error, never passed over.
//! 5. Segments are deleted from the oldest on, each durably before the next, so that what is left has no gap; and only those
//!    that the saved position has passed, and that this process has read: whoever gives a position of something else loses nothing.
//! 6. No more than `max` bytes are kept, and one piece more: then nothing is read from the master. What is full and written is
//!    deleted, also where it is one segment.

mod error;
mod format;
mod logs;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use takhin_pika::Position;
use takhin_pika::legacy::LastRecord;
use takhin_runtime::{Disk, File, OpenMode, Published};

pub use error::WalError;
use format::{Base, REPLICATION, put};
pub use format::{Origin, checksum, version_kept};
pub use logs::{Begin, Logs, is_database};
pub use scan::Cursor;

use crate::metrics;
use crate::source::Received;

/// Held by the process that uses the directory.
const LOCK: &str = "lock";

/// There while a data set is to be written before what is kept.
const AWAITED: &str = "data-set-awaited";

/// What names of segments end with.
const END: &str = ".wal";

/// Parts of the bound that a segment is at most, and the largest segment in bytes, unless there were more segments than this
/// then: each is an open file.
const PARTS: u64 = 16;
const LARGEST: u64 = 64 << 20;
const SEGMENTS: u64 = 64;

/// The log of a source.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    db: String,
    max: u64,
    segment: u64,
    state: Mutex<State>,
    /// Told of after each change.
    changed: Published<Marks>,
}

#[derive(Debug, Default)]
struct State {
    segments: VecDeque<Segment>,
    last: Option<LastRecord>,
    /// Where what was read ends, since it was last said where to begin.
    read: Option<Position>,
    /// Something could not be written: the last segment may have more than its `len`.
    is_torn: bool,
    /// Whether a deletion failed: what is gone by name may come back with the next loss of power, so nothing behind it is
    /// deleted by this process any more. The log fills up then, and nothing more is read from the master.
    is_stuck: bool,
    /// Whether a data set is to be written first.
    awaits_data_set: bool,
    lock: Option<Lock>,
}

/// What comes before the beginning of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// What was written, with this record last if it is known.
    Record(Option<LastRecord>),
    /// A data set that is to be written yet.
    DataSet,
}

/// Kept until the log is dropped.
struct Lock(#[expect(dead_code, reason = "it is held")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

#[derive(Debug)]
struct Segment {
    number: u64,
    base: Base,
    file: Arc<dyn File>,
    /// Bytes that are on the medium.
    len: u64,
    /// Where what is in it ends.
    end: Position,
}

impl Segment {
    /// Its first record.
    fn begin(&self) -> Cursor {
        Cursor::new(self.number, self.base.len() as u64)
    }

    /// Whether a command comes next. Those of masters before 3.1 do not say where they begin.
    fn is_followed_by(&self, next: &Received) -> bool {
        next.end > self.end && (self.base.origin.is_none() || next.item.follows(self.end))
    }
}

/// What those who wait look at.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    /// Bytes of all segments.
    len: u64,
    /// Where what was received ends.
    end: Position,
    /// Whether nothing is deleted any more.
    is_stuck: bool,
}

impl Wal {
    /// The log of a database in a directory, as the last process has left it; nothing is created before there is something to
    /// keep.
    ///
    /// # Errors
    ///
    /// [`WalError`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, (db, max): (&str, u64)) -> Result<Self, WalError> {
        let wal = Self {
            disk,
            dir: dir.to_owned(),
            db: db.to_owned(),
            max,
            segment: segment_len(max),
            state: Mutex::default(),
            changed: Published::default(),
        };
        let exists = wal.disk.exists(dir);
        if exists.map_err(|source| wal.failed("look for", dir, source))? {
            let mut state = wal.state.lock();
            state.lock = Some(wal.take()?);
            let awaited = wal.awaited();
            let awaits = wal.disk.exists(&awaited);
            state.awaits_data_set = awaits.map_err(|source| wal.failed("look for", &awaited, source))?;
            state.segments = wal.scan()?;
            if let Some(segment) = state.segments.back() {
                state.last = wal.last_of(segment)?;
            }
            wal.tell(&state);
        }
        Ok(wal)
    }

    fn take(&self) -> Result<Lock, WalError> {
        let path = self.dir.join(LOCK);
        match self.disk.lock(&path) {
            Ok(lock) => Ok(Lock(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(WalError::Locked(self.dir.clone()))
            }
            Err(error) => Err(self.failed("lock", &path, error)),
        }
    }

    /// Where what was received ends, and the last record of it; `None` if nothing was begun.
    pub fn position(&self) -> Option<(Position, Option<LastRecord>)> {
        let state = self.state.lock();
        state.segments.back().map(|segment| (segment.end, state.last))
    }

    /// Where what is kept begins, and the version of the master that has sent it.
    pub fn beginning(&self) -> Option<(Position, String)> {
        let state = self.state.lock();
        let first = state.segments.front()?;
        Some((first.base.end, first.base.master.clone()))
    }

    /// Where what is kept begins, and the record before it if that is known.
    pub fn first(&self) -> Option<(Position, Option<LastRecord>)> {
        let state = self.state.lock();
        state
            .segments
            .front()
            .map(|first| (first.base.end, first.base.last))
    }

    /// Whether a data set is to be written before what is kept, and was not yet.
    pub fn awaits_data_set(&self) -> bool {
        self.state.lock().awaits_data_set
    }

    /// Notes that the data set before what is kept was written.
    ///
    /// # Errors
    ///
    /// [`WalError::Disk`].
    pub fn has_data_set(&self) -> Result<(), WalError> {
        self.await_data_set(&mut self.state.lock(), false)
    }

    /// Whose binlog is kept, where that is known.
    pub fn origin(&self) -> Option<Origin> {
        let state = self.state.lock();
        state.segments.back()?.base.origin.clone()
    }

    /// Begins anew at a position, with nothing kept. Such a master does not say whose binlog it is.
    ///
    /// # Errors
    ///
    /// [`WalError::Disk`].
    pub fn reset(&self, end: Position, before: Before, master: &str) -> Result<(), WalError> {
        let base = Base {
            end,
            last: match before {
                Before::Record(last) => last,
                Before::DataSet => None,
            },
            master: master.to_owned(),
            origin: None,
        };
        self.begin(base, before == Before::DataSet)
    }

    fn begin(&self, base: Base, awaits_data_set: bool) -> Result<(), WalError> {
        let mut state = self.state.lock();
        let made = self.disk.create_dir_all(&self.dir);
        made.map_err(|source| self.failed("create", &self.dir, source))?;
        if state.lock.is_none() {
            state.lock = Some(self.take()?);
        }
        let next = state.segments.back().map_or(1, |segment| segment.number + 1);
        // What is kept of before means nothing without the data set: it is gone after this is noted, and begins anew before it is
        // not any more.
        if awaits_data_set {
            self.await_data_set(&mut state, true)?;
        }
        self.delete_all(&mut state)?;
        (state.last, state.read, state.is_torn) = (base.last, None, false);
        let segment = self.create(next, base)?;
        state.segments.push_back(segment);
        self.tell(&state);
        match awaits_data_set {
            true => Ok(()),
            false => self.await_data_set(&mut state, false),
        }
    }

    /// Notes on the medium whether a data set is to be written first.
    fn await_data_set(&self, state: &mut State, awaits: bool) -> Result<(), WalError> {
        let path = self.awaited();
        let noted = match awaits {
            true => self.disk.open(&path, OpenMode::CreateOrWrite).map(drop),
            false if !state.awaits_data_set => return Ok(()),
            false => match self.disk.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        let noted = noted.and_then(|()| self.disk.sync_dir(&self.dir));
        noted.map_err(|source| self.failed("note in", &path, source))?;
        state.awaits_data_set = awaits;
        Ok(())
    }

    fn awaited(&self) -> PathBuf {
        self.dir.join(AWAITED)
    }

    /// Forgets all of it.
    ///
    /// # Errors
    ///
    /// [`WalError::Disk`].
    pub fn clear(&self) -> Result<(), WalError> {
        let mut state = self.state.lock();
        let cleared = self.delete_all(&mut state);
        self.tell(&state);
        cleared
    }

    fn delete_all(&self, state: &mut State) -> Result<(), WalError> {
        while let Some(segment) = state.segments.front() {
            self.delete(segment)?;
            state.segments.pop_front();
        }
        Ok(())
    }

    /// Keeps what was received. On the medium when it returns.
    ///
    /// # Errors
    ///
    /// [`WalError::Disk`], [`WalError::Elsewhere`]; what was kept before is there still, and nothing of this.
    pub fn append(&self, commands: &[Received]) -> Result<(), WalError> {
        let mut state = self.state.lock();
        let (Some(first), Some(received)) = (commands.first(), commands.last()) else {
            return Ok(());
        };
        let elsewhere = || WalError::Elsewhere(self.dir.clone());
        // Whoever has received it may be gone, and another one may have kept it, or begun anew.
        if !state
            .segments
            .back()
            .is_some_and(|last| last.is_followed_by(first))
        {
            return Err(elsewhere());
        }
        self.mend(&mut state)?;
        self.roll(&mut state)?;
        let state = &mut *state;
        let segment = state.segments.back_mut().ok_or_else(elsewhere)?;
        let mut bytes = Vec::new();
        for command in commands {
            put(&mut bytes, command);
        }
        state.is_torn = true;
        let written = segment
            .file
            .write_at(&mut [IoSlice::new(&bytes)], segment.len)
            .and_then(|()| segment.file.sync_data());
        let path = self.path(segment.number);
        written.map_err(|source| self.failed("write", &path, source))?;
        state.is_torn = false;
        segment.len += bytes.len() as u64;
        segment.end = received.end;
        state.last = Some(last_record(received));
        self.tell(state);
        Ok(())
    }

    /// Cuts off what could not be written whole: after a sync that failed nobody knows what of it is on the medium.
    fn mend(&self, state: &mut State) -> Result<(), WalError> {
        let Some(segment) = state.segments.back().filter(|_| state.is_torn) else {
            return Ok(());
        };
        let cut = segment
            .file
            .set_len(segment.len)
            .and_then(|()| segment.file.sync_data());
        let path = self.path(segment.number);
        cut.map_err(|source| self.failed("cut", &path, source))?;
        state.is_torn = false;
        Ok(())
    }

    /// Begins the next segment where the last one is long enough.
    fn roll(&self, state: &mut State) -> Result<(), WalError> {
        match state.segments.back() {
            Some(last) if last.len >= self.segment => self.next_segment(state),
            _ => Ok(()),
        }
    }

    fn next_segment(&self, state: &mut State) -> Result<(), WalError> {
        let Some(segment) = state.segments.back() else {
            return Ok(());
        };
        let base = Base {
            end: segment.end,
            last: state.last,
            ..segment.base.clone()
        };
        let next = self.create(segment.number + 1, base)?;
        state.segments.push_back(next);
        Ok(())
    }

    fn create(&self, number: u64, base: Base) -> Result<Segment, WalError> {
        let path = self.path(number);
        let write = || {
            let file = self.disk.open(&path, OpenMode::CreateOrWrite)?;
            file.set_len(0)?;
            file.write_at(&mut [IoSlice::new(&base.encode())], 0)?;
            file.sync_data()?;
            self.disk.sync_dir(&self.dir)?;
            Ok(file)
        };
        let file = write().map_err(|source| self.failed("create", &path, source))?;
        Ok(Segment {
            number,
            end: base.end,
            file,
            len: base.len() as u64,
            base,
        })
    }

    /// Deletes segments that were read, and that a saved position has passed.
    ///
    /// # Errors
    ///
    /// [`WalError::Disk`].
    pub fn trim(&self, saved: Position) -> Result<(), WalError> {
        let mut state = self.state.lock();
        let Some(read) = state.read else {
            return Ok(());
        };
        let saved = saved.min(read);
        self.make_room(&mut state, saved)?;
        while !state.is_stuck
            && state.segments.len() > 1
            && let Some(first) = state.segments.front().filter(|first| first.end <= saved)
        {
            if let Err(error) = self.delete(first) {
                state.is_stuck = true;
                self.tell(&state);
                return Err(error);
            }
            state.segments.pop_front();
            self.tell(&state);
        }
        Ok(())
    }

    /// Begins another segment where there is one, which fills the log and was written: nothing would ever be kept again.
    fn make_room(&self, state: &mut State, saved: Position) -> Result<(), WalError> {
        let is_full = |only: &Segment| only.len >= self.max && only.end <= saved;
        if state.segments.len() == 1 && !state.is_stuck && state.segments.back().is_some_and(is_full) {
            self.mend(state)?;
            self.next_segment(state)?;
        }
        Ok(())
    }

    fn delete(&self, segment: &Segment) -> Result<(), WalError> {
        let path = self.path(segment.number);
        let deleted = match self.disk.remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.disk.sync_dir(&self.dir)),
        };
        deleted.map_err(|source| self.failed("delete", &path, source))
    }

    /// Returns when less is kept than the bound.
    ///
    /// # Errors
    ///
    /// [`WalError::Stuck`]: that will not be.
    pub async fn room(&self) -> Result<(), WalError> {
        let has_room = |marks: &Marks| marks.len < self.max;
        self.changed
            .wait_for(|marks| has_room(marks) || marks.is_stuck)
            .await;
        match has_room(&self.changed.get()) {
            true => Ok(()),
            false => Err(WalError::Stuck(self.dir.clone())),
        }
    }

    /// Whether as much is kept as may be.
    pub fn is_full(&self) -> bool {
        self.changed.get().len >= self.max
    }

    /// Returns when something is kept that goes beyond `end`.
    pub async fn beyond(&self, end: Position) {
        self.changed.wait_for(|marks| marks.end > end).await;
    }

    fn tell(&self, state: &State) {
        let len = state.segments.iter().map(|segment| segment.len).sum();
        let end = state
            .segments
            .back()
            .map(|segment| segment.end)
            .unwrap_or_default();
        self.show(len, end, state);
        let is_stuck = state.is_stuck;
        self.changed.update(|marks| *marks = Marks { len, end, is_stuck });
    }

    fn show(&self, len: u64, end: Position, state: &State) {
        let number = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
        // Other databases have logs too.
        metrics::WAL_BYTES.add(number(len) - number(self.changed.get().len));
        let (file, offset) = (i64::from(end.filenum), number(end.offset));
        metrics::KEPT_FILE.with([&self.db]).set(file);
        metrics::KEPT_OFFSET.with([&self.db]).set(offset);
        if state
            .segments
            .back()
            .is_some_and(|last| last.base.origin.is_none())
        {
            metrics::WAL_END.0.set(file);
            metrics::WAL_END.1.set(offset);
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}{END}"))
    }

    #[expect(clippy::unused_self, reason = "as the others")]
    fn failed(&self, what: &'static str, path: &Path, source: io::Error) -> WalError {
        WalError::Disk {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        metrics::WAL_BYTES.add(-i64::try_from(self.changed.get().len).unwrap_or(i64::MAX));
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wal({})", self.dir.display())
    }
}

/// After how many bytes another segment begins in a log of at most `max`.
fn segment_len(max: u64) -> u64 {
    (max / PARTS).clamp(64 << 10, LARGEST.max(max / SEGMENTS))
}

/// The record of a command, as far as it has come.
pub fn last_record(received: &Received) -> LastRecord {
    LastRecord {
        header: received.item.start,
        commands: received.index + 1,
    }
}
