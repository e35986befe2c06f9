//! Walking over the batches of a segment file.

use std::io;
use std::path::Path;

use takhin_protocol::record::{BatchHeader, HEADER_LEN};
use takhin_runtime::disk::File;

use crate::error::{Damage, LogError};
use crate::format::to_usize;

/// Bytes from the start of a batch to its first checksummed byte.
const CRC_START: u64 = 21;
/// Read-ahead of a walk over headers.
pub(crate) const HEADER_BLOCK: usize = 8 << 10;
/// Read-ahead of a walk that checks checksums.
pub(crate) const SCAN_BLOCK: usize = 512 << 10;

/// Reads pieces of a file through one block of memory.
pub(crate) struct Blocks<'a> {
    file: &'a dyn File,
    end: u64,
    buf: Vec<u8>,
    start: u64,
    capacity: usize,
}

impl<'a> Blocks<'a> {
    /// Reads of `file` below `end` (exclusive), `capacity` bytes at a time.
    pub(crate) fn new(file: &'a dyn File, end: u64, capacity: usize) -> Self {
        Self {
            file,
            end,
            buf: Vec::new(),
            start: 0,
            capacity,
        }
    }

    /// `len` bytes at `pos`, at most the capacity; `None` if they reach past the end.
    pub(crate) fn slice(&mut self, pos: u64, len: usize) -> io::Result<Option<&[u8]>> {
        debug_assert!(len <= self.capacity);
        let wanted_end = pos.saturating_add(len as u64);
        if wanted_end > self.end {
            return Ok(None);
        }
        if pos < self.start || wanted_end > self.start + self.buf.len() as u64 {
            self.fill(pos)?;
            if wanted_end > self.start + self.buf.len() as u64 {
                return Ok(None);
            }
        }
        let at = to_usize(pos - self.start);
        Ok(Some(&self.buf[at..at + len]))
    }

    fn fill(&mut self, pos: u64) -> io::Result<()> {
        let want = self.capacity.min(to_usize(self.end - pos));
        self.buf.resize(want, 0);
        self.start = pos;
        let mut got = 0;
        while got < want {
            match self.file.read_at(&mut self.buf[got..], pos + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) => {
                    self.buf.clear();
                    return Err(e);
                }
            }
        }
        self.buf.truncate(got);
        Ok(())
    }
}

/// A batch found by a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    pub(crate) pos: u64,
    pub(crate) header: BatchHeader,
}

impl Located {
    /// The byte after the batch.
    pub(crate) fn end(&self) -> u64 {
        self.pos + self.header.total_len() as u64
    }
}

/// Whether a header can be one that this crate wrote.
pub(crate) fn plausible(h: &BatchHeader, max_batch_bytes: u32) -> bool {
    let len = h.total_len() as u64;
    h.magic == 2
        && len >= HEADER_LEN as u64
        && len <= u64::from(max_batch_bytes)
        && h.base_offset >= 0
        && h.partition_leader_epoch >= 0
        && if h.is_hidden() {
            h.last_offset_delta == -1
        } else {
            h.last_offset_delta >= 0
        }
        && h.base_offset
            .checked_add(i64::from(h.last_offset_delta) + 1)
            .is_some()
}

/// Steps from batch to batch.
pub(crate) struct Walk<'a> {
    blocks: Blocks<'a>,
    path: &'a Path,
    pos: u64,
    end: u64,
    max_batch_bytes: u32,
}

impl<'a> Walk<'a> {
    /// Walks the batches of `file` in `pos..end`; both must be batch boundaries for a clean end.
    pub(crate) fn new(
        file: &'a dyn File,
        path: &'a Path,
        range: std::ops::Range<u64>,
        max_batch_bytes: u32,
    ) -> Self {
        Self::with_block(file, path, range, max_batch_bytes, HEADER_BLOCK)
    }

    pub(crate) fn with_block(
        file: &'a dyn File,
        path: &'a Path,
        range: std::ops::Range<u64>,
        max_batch_bytes: u32,
        block: usize,
    ) -> Self {
        Self {
            blocks: Blocks::new(file, range.end, block),
            path,
            pos: range.start,
            end: range.end,
            max_batch_bytes,
        }
    }

    /// The next batch's header, or what is wrong with it; `None` at the end.
    pub(crate) fn step(&mut self) -> io::Result<Result<Option<Located>, Damage>> {
        if self.pos >= self.end {
            return Ok(Ok(None));
        }
        let Some(bytes) = self.blocks.slice(self.pos, HEADER_LEN)? else {
            return Ok(Err(Damage::Incomplete));
        };
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(bytes);
        let header = BatchHeader::parse(&head);
        if !plausible(&header, self.max_batch_bytes) {
            return Ok(Err(Damage::BadHeader));
        }
        let found = Located {
            pos: self.pos,
            header,
        };
        if found.end() > self.end {
            return Ok(Err(Damage::Incomplete));
        }
        self.pos = found.end();
        Ok(Ok(Some(found)))
    }

    /// Whether the checksum of a batch that `step` just returned is right.
    pub(crate) fn crc_ok(&mut self, found: &Located) -> io::Result<bool> {
        crc_ok(&mut self.blocks, found)
    }

    /// [`Walk::step`] with damage as an error, for reads that may expect none.
    pub(crate) fn next(&mut self) -> Result<Option<Located>, LogError> {
        let step = self.step().map_err(|e| LogError::io("read", self.path, e))?;
        step.map_err(|damage| LogError::Corrupt {
            path: self.path.to_owned(),
            position: self.pos,
            damage,
        })
    }
}

/// Whether the checksum of a located batch is right.
pub(crate) fn crc_ok(blocks: &mut Blocks<'_>, found: &Located) -> io::Result<bool> {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    let mut pos = found.pos + CRC_START;
    let end = found.end();
    while pos < end {
        let len = to_usize(end - pos).min(blocks.capacity);
        let Some(bytes) = blocks.slice(pos, len)? else {
            return Ok(false);
        };
        digest.update(bytes);
        pos += len as u64;
    }
    Ok(digest.finalize() == u64::from(found.header.crc))
}
