//! Reading: what the last process has left, and what is to be written next.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use takhin_pika::Position;
use takhin_pika::legacy::LastRecord;
use takhin_runtime::{File, OpenMode};

use super::format::{BEFORE, Base, HeaderError, LONG_HEADER, claim, header_len, read};
use super::{END, Segment, Wal, WalError, last_record};
use crate::source::Received;

/// Bytes that are read together; one record may have more.
const TOGETHER: usize = 256 << 10;

/// The next record that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    segment: u64,
    at: u64,
}

impl Cursor {
    pub(super) fn new(segment: u64, at: u64) -> Self {
        Self { segment, at }
    }
}

impl Wal {
    /// The segments of the directory, in order; the torn end of the last one is cut.
    pub(super) fn scan(&self) -> Result<VecDeque<Segment>, WalError> {
        let listed = self.disk.read_dir(&self.dir);
        let listed = listed.map_err(|source| self.failed("list", &self.dir, source))?;
        let number = |name: &str| name.strip_suffix(END)?.parse::<u64>().ok();
        let mut numbers: Vec<u64> = listed.iter().filter_map(|entry| number(&entry.name)).collect();
        numbers.sort_unstable();
        let mut segments: VecDeque<Segment> = VecDeque::new();
        for (at, number) in numbers.iter().enumerate() {
            let is_last = at + 1 == numbers.len();
            let path = self.path(*number);
            let Some(segment) = self.segment(*number, is_last)? else {
                continue;
            };
            let follows = |before: &Segment| before.end == segment.base.end;
            if segments.back().is_some_and(|before| !follows(before)) {
                return Err(damaged(&path, "it does not begin where the one before ends"));
            }
            segments.push_back(segment);
        }
        Ok(segments)
    }

    /// Reads a segment; `None` for one that was being created.
    fn segment(&self, number: u64, is_last: bool) -> Result<Option<Segment>, WalError> {
        let path = self.path(number);
        let disk = |source| self.failed("read", &path, source);
        let file = self.disk.open(&path, OpenMode::Write).map_err(disk)?;
        let whole = file.len().map_err(disk)?;
        let mut header = vec![0; usize::try_from(whole).unwrap_or(LONG_HEADER).min(LONG_HEADER)];
        file.read_exact_at(&mut header, 0).map_err(disk)?;
        let base = match Base::decode(&header) {
            Ok(base) => base,
            Err(HeaderError::Newer(found)) => return Err(WalError::Newer { path, found }),
            // Nothing is written behind a header that is not synced.
            Err(HeaderError::Damaged) if is_last && whole <= header_len(&header) as u64 => {
                let removed = self
                    .disk
                    .remove_file(&path)
                    .and_then(|()| self.disk.sync_dir(&self.dir));
                removed.map_err(|source| self.failed("delete", &path, source))?;
                return Ok(None);
            }
            Err(HeaderError::Damaged) => return Err(damaged(&path, "its header makes no sense")),
        };
        let (mut at, mut end) = (base.len() as u64, base.end);
        while at < whole {
            match records(&file, at, whole).map_err(disk)? {
                Some((commands, next)) => {
                    (at, end) = (next, commands.last().map_or(end, |command| command.end));
                }
                None if is_last => {
                    let cut = file.set_len(at).and_then(|()| file.sync_data());
                    cut.map_err(|source| self.failed("cut", &path, source))?;
                    break;
                }
                None => return Err(damaged(&path, "a record makes no sense")),
            }
        }
        Ok(Some(Segment {
            number,
            base,
            file,
            len: at,
            end,
        }))
    }

    /// The last record of a segment, or before it.
    pub(super) fn last_of(&self, segment: &Segment) -> Result<Option<LastRecord>, WalError> {
        let path = self.path(segment.number);
        let (mut at, mut last) = (segment.base.len() as u64, segment.base.last);
        while at < segment.len {
            let read = records(&segment.file, at, segment.len);
            let read = read.map_err(|source| self.failed("read", &path, source))?;
            let (commands, next) = read.ok_or_else(|| damaged(&path, "a record makes no sense"))?;
            (at, last) = (next, commands.last().map(last_record).or(last));
        }
        Ok(last)
    }

    /// Where to read what follows a position; `None` if no record ends there.
    ///
    /// # Errors
    ///
    /// [`WalError`].
    pub fn cursor(&self, after: Position) -> Result<Option<Cursor>, WalError> {
        let mut state = self.state.lock();
        let is_before = |segment: &&Segment| segment.base.end <= after;
        let Some(segment) = state.segments.iter().rfind(is_before) else {
            return Ok(None);
        };
        let path = self.path(segment.number);
        let (mut at, mut end) = (segment.base.len() as u64, segment.base.end);
        while end < after && at < segment.len {
            let read = record(&segment.file, at, segment.len);
            let read = read.map_err(|source| self.failed("read", &path, source))?;
            let (received, next) = read.ok_or_else(|| damaged(&path, "a record makes no sense"))?;
            (at, end) = (next, received.end);
        }
        let number = segment.number;
        state.read = (end == after).then_some(after);
        Ok((end == after).then_some(Cursor { segment: number, at }))
    }

    /// Reads what comes next, as far as it is kept, and moves the cursor behind it.
    ///
    /// # Errors
    ///
    /// [`WalError`].
    pub fn read(&self, cursor: &mut Cursor) -> Result<Vec<Received>, WalError> {
        let mut found = Vec::new();
        loop {
            let (file, len, next) = {
                let state = self.state.lock();
                // What is deleted was read to its end.
                let at = cursor.segment;
                let mut of = state.segments.iter().skip_while(|segment| segment.number < at);
                let Some(segment) = of.next() else {
                    return Ok(found);
                };
                if segment.number > cursor.segment {
                    *cursor = segment.begin();
                }
                (
                    Arc::clone(&segment.file),
                    segment.len,
                    of.next().map(Segment::begin),
                )
            };
            let path = self.path(cursor.segment);
            if cursor.at < len {
                let read = records(&file, cursor.at, len);
                let read = read.map_err(|source| self.failed("read", &path, source))?;
                (found, cursor.at) = read.ok_or_else(|| damaged(&path, "a record makes no sense"))?;
                if let Some(last) = found.last() {
                    self.state.lock().read = Some(last.end);
                }
            }
            match next {
                Some(next) if found.is_empty() => *cursor = next,
                _ => return Ok(found),
            }
        }
    }
}

/// The records from a place on that are read together, and where the next one is; `None` if the first is not whole.
fn records(file: &Arc<dyn File>, at: u64, whole: u64) -> std::io::Result<Option<(Vec<Received>, u64)>> {
    let left = usize::try_from(whole.saturating_sub(at)).unwrap_or(TOGETHER);
    let mut block = vec![0; left.min(TOGETHER)];
    file.read_exact_at(&mut block, at)?;
    // The commands keep it.
    let block = Bytes::from(block);
    let (mut found, mut begin) = (Vec::new(), 0);
    while let Some((len, sum)) = claim(&block[begin..]) {
        let end = begin + BEFORE + len;
        if end > block.len() {
            break;
        }
        let Some(received) = read(block.slice(begin + BEFORE..end), sum) else {
            break;
        };
        found.push(received);
        begin = end;
    }
    match found.is_empty() {
        false => Ok(Some((found, at + begin as u64))),
        // It is longer, or makes no sense.
        true => Ok(record(file, at, whole)?.map(|(received, next)| (vec![received], next))),
    }
}

/// The record at a place, and where the next one is; `None` if it is not whole.
fn record(file: &Arc<dyn File>, at: u64, whole: u64) -> std::io::Result<Option<(Received, u64)>> {
    let left = whole.saturating_sub(at);
    if left < BEFORE as u64 {
        return Ok(None);
    }
    let mut before = [0; BEFORE];
    file.read_exact_at(&mut before, at)?;
    let Some((len, sum)) = claim(&before).filter(|(len, _)| *len as u64 <= left - BEFORE as u64) else {
        return Ok(None);
    };
    let mut body = vec![0; len];
    file.read_exact_at(&mut body, at + BEFORE as u64)?;
    let next = at + (BEFORE + len) as u64;
    Ok(read(Bytes::from(body), sum).map(|received| (received, next)))
}

fn damaged(path: &Path, why: &'static str) -> WalError {
    WalError::Damaged {
        path: path.to_owned(),
        why,
    }
}
