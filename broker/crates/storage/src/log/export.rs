//! A copy of everything below a segment boundary, for a replica that cannot be brought up to date entry by entry.

use bytes::{Buf, BufMut};
use takhin_runtime::disk::OpenMode;

use super::Log;
use super::derive::{derive, load_snapshot};
use crate::entry::EntryId;
use crate::error::{Damage, LogError};
use crate::format::{LOG, SegmentId, len_u32};
use crate::segment::open_segment;
use crate::snapshot;
use crate::state_file::SealedLen;

/// What a copy consists of: segment files, and the state derived from the entries before its end.
///
/// ```text
/// last: term u32, index u64 | end: next_offset i64, next_index u64 | log_start_offset i64 | first_dirty i64
/// segments u32 * { base_offset i64 | first_index u64 | bytes u64 } | derived bytes u32, as in a `.producers` file
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The last entry that it covers.
    pub last: EntryId,
    /// Where the log goes on after it.
    pub end: SegmentId,
    /// First offset that readers are given.
    pub log_start_offset: i64,
    pub(crate) first_dirty: i64,
    pub(crate) segments: Vec<SealedLen>,
    pub(crate) derived: Vec<u8>,
}

impl Export {
    /// Identifies and measures the segment files, in order: id and length in bytes.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = (SegmentId, u64)> {
        self.segments.iter().map(|s| (s.id, s.bytes))
    }

    /// Bytes of all segment files.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Leaves out what can be read from the segments' headers again.
    pub fn drop_derived(&mut self) {
        self.derived.clear();
    }

    /// For a message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(52 + 24 * self.segments.len() + self.derived.len());
        out.put_u32(self.last.term);
        out.put_u64(self.last.index);
        self.end.encode(&mut out);
        out.put_i64(self.log_start_offset);
        out.put_i64(self.first_dirty);
        SealedLen::encode_all(&self.segments, &mut out);
        out.put_u32(len_u32(self.derived.len()));
        out.put_slice(&self.derived);
        out
    }

    /// `None` unless `b` is what [`Self::encode`] gives, and consistent in itself.
    pub fn decode(mut b: &[u8]) -> Option<Self> {
        let last = EntryId {
            term: b.try_get_u32().ok()?,
            index: b.try_get_u64().ok()?,
        };
        let end = SegmentId::decode(&mut b)?;
        let (log_start_offset, first_dirty) = (b.try_get_i64().ok()?, b.try_get_i64().ok()?);
        let segments = SealedLen::decode_all(&mut b)?;
        let len = b.try_get_u32().ok()? as usize;
        let derived = b.to_vec();
        let ascending = segments.windows(2).all(|s| s[0].id < s[1].id);
        let is_sound = derived.len() == len
            && end.first_index == last.index.checked_add(1)?
            && log_start_offset <= end.base_offset
            && segments.first().map_or(end, |s| s.id).base_offset <= log_start_offset
            && ascending
            && segments.last().is_none_or(|s| s.id < end);
        is_sound.then_some(Self {
            last,
            end,
            log_start_offset,
            first_dirty,
            segments,
            derived,
        })
    }
}

impl Log {
    /// Plans a copy of everything up to and including the entry at `last`, where a segment ends.
    ///
    /// Reads headers if no snapshot of the derived state is there. Files may be replaced or deleted after it returns:
    /// [`Log::read_export`] notices.
    ///
    /// # Errors
    ///
    /// `IndexOutOfRange`: no segment begins after `last`. `Io`: the disk.
    pub fn export(&self, last: EntryId) -> Result<Export, LogError> {
        self.undisturbed(|| {
            let stats = self.stats().segments;
            let begins = stats.iter().find(|s| s.id.first_index == last.index + 1);
            let end = begins.map(|s| s.id).ok_or_else(|| LogError::IndexOutOfRange {
                requested: last.index,
                first: self.end().first_index,
                end: stats.last().map_or(0, |s| s.id.first_index),
            })?;
            let segments: Vec<SealedLen> = stats
                .iter()
                .filter(|s| s.id < end)
                .map(|s| SealedLen {
                    id: s.id,
                    bytes: s.bytes,
                })
                .collect();
            let derived = match load_snapshot(&self.cx, &self.dir, end)? {
                Some(derived) => derived,
                None => derive(&self.cx, &self.dir, &self.options(), &segments)?,
            };
            let state = self.state.read();
            Ok(Export {
                last,
                end,
                log_start_offset: state.persisted.log_start_offset.min(end.base_offset),
                first_dirty: state.persisted.first_dirty.min(end.base_offset),
                segments,
                derived: snapshot::encode(end, &derived.epochs, &derived.producers),
            })
        })
    }

    /// Reads from a segment file of an export: up to `len` bytes from `pos` on, fewer only at its end.
    ///
    /// # Errors
    ///
    /// `Corrupt`: the file is another by now, or gone; a new export has to be made. `Io`: the disk.
    pub fn read_export(&self, id: SegmentId, bytes: u64, pos: u64, len: usize) -> Result<Vec<u8>, LogError> {
        let path = id.path(&self.dir, LOG);
        let file = open_segment(&*self.cx.disk, &path, OpenMode::Read)?;
        let io = |e| LogError::io("read", &path, e);
        if file.len().map_err(io)? != bytes || pos > bytes {
            return Err(LogError::Corrupt {
                path,
                position: pos,
                damage: Damage::WrongLength,
            });
        }
        let len = len.min(usize::try_from(bytes - pos).unwrap_or(len));
        let mut read = vec![0; len];
        file.read_exact_at(&mut read, pos).map_err(io)?;
        Ok(read)
    }

    /// Whether it holds this committed entry, or did before it was purged.
    pub fn has(&self, committed: EntryId) -> bool {
        let end = self.end();
        let is_at = |id: Option<EntryId>| id.is_some_and(|id| id.index >= committed.index);
        // Purged entries are committed, of which there is one at each index. The history may begin after the last of them.
        is_at(end.purged)
            || end.last == Some(committed)
            || is_at(end.last) && self.epoch_history().epoch_at(committed.index) == Some(committed.term)
    }

    /// Ends the log's use: another one is about to take its place. It can still be read; nothing is written any more.
    pub fn retire(&self) {
        let _writer = self.writer.lock();
        self.state.write().status = crate::entry::LogStatus::Failed {
            reason: "the replica was replaced by a copy of the leader's".to_owned(),
        };
    }
}
