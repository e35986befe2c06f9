//! Reading by raft index: entries with their bodies, heads without, hidden entries.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use takhin_protocol::record::{Batch, BatchHeader, HEADER_LEN};
use takhin_runtime::disk::File;

use super::{Log, View};
use crate::entry::{Entry, EntryHead};
use crate::error::{Damage, LogError};
use crate::format::{LOG, SegmentId, crc32c, to_usize};
use crate::index::Anchor;
use crate::walk::Walk;

/// Entries are read from disk in pieces of at most this size, or one entry if that is larger.
const READ_PIECE: u64 = 1 << 20;

impl Log {
    /// Entries with their bodies, from `range.start` on, at most `max_bytes` of them but at least one.
    ///
    /// Checksums are verified: what a leader sends to followers is what it once received.
    ///
    /// # Errors
    ///
    /// `IndexOutOfRange` if the range begins below the first index held or ends above the last; `Corrupt`.
    pub fn entries(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        self.check_range(&range)?;
        let mut out: Vec<Entry> = Vec::new();
        let mut budget = max_bytes as u64;
        for id in self.segments_from_index(range.start) {
            let next = out.last().map_or(range.start, |e| e.index + 1);
            if next >= range.end || (budget == 0 && !out.is_empty()) {
                break;
            }
            if !self.segment_entries(id, next..range.end, &mut budget, &mut out)? {
                break;
            }
        }
        Ok(out)
    }

    /// Reads entries of one segment; returns whether its end was reached within the budget.
    fn segment_entries(
        &self,
        id: SegmentId,
        range: Range<u64>,
        budget: &mut u64,
        out: &mut Vec<Entry>,
    ) -> Result<bool, LogError> {
        let Some((file, anchor, ceiling, next_index)) = self.with_segment(id, |view| {
            (
                view.file.clone(),
                locate(&view, range.start),
                ceiling(&view, range.end),
                view.index.next_index,
            )
        })?
        else {
            return Ok(false);
        };
        let reader = EntryReader {
            log: self,
            id,
            file,
            ceiling,
        };
        let mut at = reader.skip_to(anchor, range.start)?;
        let end = range.end.min(next_index);
        while at.index < end {
            let want = (*budget).clamp(1, READ_PIECE).max(HEADER_LEN as u64);
            let piece = reader.piece(at.pos, want)?;
            let mut used = 0;
            while at.index < end {
                let Some((entry, len)) = reader.parse(&piece, used, at)? else {
                    break;
                };
                if len as u64 > *budget && !out.is_empty() {
                    return Ok(false);
                }
                *budget = budget.saturating_sub(len as u64);
                out.push(entry);
                used += len;
                at = Anchor {
                    pos: at.pos + len as u64,
                    index: at.index + 1,
                };
            }
        }
        Ok(true)
    }

    /// Heads of the entries in `range`; from memory for the newest [`crate::LogOptions::head_ring`] of them.
    ///
    /// # Errors
    ///
    /// As [`Log::entries`], except that bodies are not read and checksums not verified.
    pub fn heads(&self, range: Range<u64>) -> Result<Vec<EntryHead>, LogError> {
        self.check_range(&range)?;
        let mut out = Vec::new();
        if let Some(heads) = self.heads_in_memory(&range) {
            return Ok(heads);
        }
        let options = self.options();
        for id in self.segments_from_index(range.start) {
            let next = out.last().map_or(range.start, |h: &EntryHead| h.index + 1);
            if next >= range.end {
                break;
            }
            let Some((file, anchor, bytes)) = self.with_segment(id, |view| {
                (view.file.clone(), locate(&view, next), view.index.bytes)
            })?
            else {
                break;
            };
            let path = id.path(&self.dir, LOG);
            let mut walk = Walk::new(&*file, &path, anchor.pos..bytes, options.max_batch_bytes);
            let mut index = anchor.index;
            while index < range.end {
                let Some(found) = walk.next()? else { break };
                if index >= next {
                    out.push(head_of(&found.header, index));
                }
                index += 1;
            }
        }
        Ok(out)
    }

    fn heads_in_memory(&self, range: &Range<u64>) -> Option<Vec<EntryHead>> {
        let state = self.state.read();
        if range.is_empty() {
            return Some(Vec::new());
        }
        state.heads.at_index(range.start)?;
        let count = to_usize(range.end - range.start);
        Some(
            state
                .heads
                .starting_at(range.start)
                .take(count)
                .map(|h| h.head)
                .collect(),
        )
    }

    /// Hidden entries with their bodies whose raft index lies in `range` (cut to what the log holds), ascending.
    ///
    /// Finds memberships at start; opens every segment that the range touches.
    pub fn hidden(&self, range: Range<u64>) -> Result<Vec<Entry>, LogError> {
        let mut out = Vec::new();
        let range = range.start.max(self.end().first_index)..range.end;
        for id in self.segments_from_index(range.start) {
            if id.first_index >= range.end {
                break;
            }
            let Some((file, found, bytes)) = self.with_segment(id, |view| {
                (
                    view.file.clone(),
                    view.index.hidden_by_index(range.start, range.end),
                    view.index.bytes,
                )
            })?
            else {
                continue;
            };
            let reader = EntryReader {
                log: self,
                id,
                file,
                ceiling: bytes,
            };
            for (index, pos) in found {
                let piece = reader.piece(pos, HEADER_LEN as u64)?;
                if let Some((entry, _)) = reader.parse(&piece, 0, Anchor { pos, index })? {
                    out.push(entry);
                }
            }
        }
        Ok(out)
    }

    /// Refuses ranges that the log does not hold; an empty range is always fine.
    fn check_range(&self, range: &Range<u64>) -> Result<(), LogError> {
        let state = self.state.read();
        let (first, end) = (state.first_entry(), state.next_index());
        if range.is_empty() || (range.start >= first && range.end <= end) {
            return Ok(());
        }
        let requested = if range.start < first {
            range.start
        } else {
            range.end
        };
        Err(LogError::IndexOutOfRange {
            requested,
            first,
            end,
        })
    }
}

/// The best known boundary at or before the entry at `index`.
fn locate(view: &View<'_>, index: u64) -> Anchor {
    let recent = view.heads.and_then(|h| h.at_index(index));
    match recent.filter(|h| h.head.index >= view.index.id.first_index) {
        Some(h) => Anchor { pos: h.pos, index },
        None => view.index.floor_index(index),
    }
}

/// The best known boundary at or after the entry at `index`.
fn ceiling(view: &View<'_>, index: u64) -> u64 {
    let recent = view.heads.and_then(|h| h.at_index(index));
    match recent.filter(|h| h.head.index >= view.index.id.first_index) {
        Some(h) => h.pos,
        None => view.index.ceiling_index(index),
    }
}

pub(super) fn head_of(header: &BatchHeader, index: u64) -> EntryHead {
    EntryHead {
        term: u32::try_from(header.partition_leader_epoch).unwrap_or(0),
        index,
        base_offset: header.base_offset,
        next_offset: header.next_offset(),
        hidden: header.is_hidden(),
    }
}

/// Reads whole entries from one segment.
struct EntryReader<'a> {
    log: &'a Log,
    id: SegmentId,
    file: Arc<dyn File>,
    /// Nothing from here on is wanted.
    ceiling: u64,
}

impl EntryReader<'_> {
    fn corrupt(&self, position: u64, damage: Damage) -> LogError {
        LogError::Corrupt {
            path: self.id.path(&self.log.dir, LOG),
            position,
            damage,
        }
    }

    /// Walks from a boundary to the entry at `index`.
    fn skip_to(&self, mut at: Anchor, index: u64) -> Result<Anchor, LogError> {
        let path = self.id.path(&self.log.dir, LOG);
        let end = self.ceiling.max(at.pos);
        let mut walk = Walk::new(
            &*self.file,
            &path,
            at.pos..end,
            self.log.options().max_batch_bytes,
        );
        while at.index < index {
            let Some(found) = walk.next()? else {
                return Err(self.corrupt(at.pos, Damage::Incomplete));
            };
            at = Anchor {
                pos: found.end(),
                index: at.index + 1,
            };
        }
        Ok(at)
    }

    /// About `want` bytes from `pos` on, at least the whole entry there.
    fn piece(&self, pos: u64, want: u64) -> Result<Bytes, LogError> {
        let path = self.id.path(&self.log.dir, LOG);
        let available = self.ceiling.saturating_sub(pos);
        if available < HEADER_LEN as u64 {
            return Err(self.corrupt(pos, Damage::Incomplete));
        }
        let mut buf = vec![0; to_usize(want.min(available))];
        self.read(&mut buf, pos)?;
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(&buf[..HEADER_LEN]);
        let header = BatchHeader::parse(&head);
        let len = header.total_len();
        if !crate::walk::plausible(&header, self.log.options().max_batch_bytes) {
            return Err(LogError::Corrupt {
                path,
                position: pos,
                damage: Damage::BadHeader,
            });
        }
        if len as u64 > available {
            return Err(LogError::Corrupt {
                path,
                position: pos,
                damage: Damage::Incomplete,
            });
        }
        let have = buf.len();
        if have < len {
            buf.resize(len, 0);
            self.read(&mut buf[have..], pos + have as u64)?;
        }
        Ok(Bytes::from(buf))
    }

    fn read(&self, buf: &mut [u8], pos: u64) -> Result<(), LogError> {
        self.file.read_exact_at(buf, pos).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => self.corrupt(pos, Damage::Incomplete),
            _ => LogError::io("read", &self.id.path(&self.log.dir, LOG), e),
        })
    }

    /// The entry at `used` in a piece, sharing its memory; `None` if the piece ends inside it.
    fn parse(&self, piece: &Bytes, used: usize, at: Anchor) -> Result<Option<(Entry, usize)>, LogError> {
        let Some(bytes) = piece.get(used..used + HEADER_LEN) else {
            return Ok(None);
        };
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(bytes);
        let header = BatchHeader::parse(&head);
        if !crate::walk::plausible(&header, self.log.options().max_batch_bytes) {
            return Err(self.corrupt(at.pos, Damage::BadHeader));
        }
        let len = header.total_len();
        if piece.len() - used < len {
            return Ok(None);
        }
        let body = piece.slice(used + HEADER_LEN..used + len);
        if crc32c(&[&head[21..], &body]) != header.crc {
            return Err(self.corrupt(at.pos, Damage::BadCrc));
        }
        let head = head_of(&header, at.index);
        Ok(Some((
            Entry {
                term: head.term,
                index: at.index,
                batch: Batch { header, body },
            },
            len,
        )))
    }
}
