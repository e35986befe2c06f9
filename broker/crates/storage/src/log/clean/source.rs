//! Reading a segment batch by batch, checksums verified.

use std::path::PathBuf;
use std::sync::Arc;

use takhin_protocol::record::{BatchHeader, HEADER_LEN};
use takhin_runtime::disk::File;

use crate::error::{Damage, LogError};
use crate::format::{crc32c, to_usize};
use crate::walk::{Blocks, Located, SCAN_BLOCK, crc_ok, plausible};

/// Bytes that one step of a pass reads, or one batch if that is more.
pub(super) const STEP_BYTES: u64 = 1 << 20;

/// A position in a segment file.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pos: u64,
    end: u64,
    max_batch: u32,
    /// Batches up to this length are read whole.
    max_whole: usize,
    buf: Vec<u8>,
    /// Where in the file `buf` begins.
    start: u64,
}

/// A batch of a segment.
pub(super) enum Read<'a> {
    /// With all its bytes.
    Whole(BatchHeader, &'a [u8]),
    /// Too long to be read at once; its checksum is right.
    Long(BatchHeader, std::ops::Range<u64>),
}

impl Source {
    pub(super) fn new(
        path: PathBuf,
        file: Arc<dyn File>,
        range: std::ops::Range<u64>,
        max_batch: u32,
        max_whole: usize,
    ) -> Self {
        Self {
            path,
            file,
            pos: range.start,
            end: range.end,
            max_batch,
            max_whole,
            buf: Vec::new(),
            start: 0,
        }
    }

    /// Bytes up to the position.
    pub(super) fn position(&self) -> u64 {
        self.pos
    }

    /// The next batch; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Read<'_>>, LogError> {
        if self.pos >= self.end {
            return Ok(None);
        }
        self.fill(HEADER_LEN)?;
        let mut head = [0; HEADER_LEN];
        head.copy_from_slice(self.buffered(HEADER_LEN));
        let header = BatchHeader::parse(&head);
        if !plausible(&header, self.max_batch) {
            return Err(self.corrupt(Damage::BadHeader));
        }
        let found = Located {
            pos: self.pos,
            header,
        };
        if found.end() > self.end {
            return Err(self.corrupt(Damage::Incomplete));
        }
        let len = header.total_len();
        if len > self.max_whole {
            let mut blocks = Blocks::new(&*self.file, self.end, SCAN_BLOCK);
            if !crc_ok(&mut blocks, &found).map_err(|e| LogError::io("read", &self.path, e))? {
                return Err(self.corrupt(Damage::BadCrc));
            }
            self.pos = found.end();
            return Ok(Some(Read::Long(header, found.pos..found.end())));
        }
        self.fill(len)?;
        if crc32c(&[&self.buffered(len)[21..]]) != header.crc {
            return Err(self.corrupt(Damage::BadCrc));
        }
        let at = to_usize(self.pos - self.start);
        self.pos = found.end();
        Ok(Some(Read::Whole(header, &self.buf[at..at + len])))
    }

    /// `len` bytes at the position, which [`Source::fill`] has read.
    fn buffered(&self, len: usize) -> &[u8] {
        let at = to_usize(self.pos - self.start);
        &self.buf[at..at + len]
    }

    /// Reads ahead so that `len` bytes at the position are in memory.
    fn fill(&mut self, len: usize) -> Result<(), LogError> {
        let have = (self.start + self.buf.len() as u64).saturating_sub(self.pos);
        if self.pos >= self.start && have >= len as u64 {
            return Ok(());
        }
        let want = (len as u64).max(SCAN_BLOCK as u64).min(self.end - self.pos);
        if want < len as u64 {
            return Err(self.corrupt(Damage::Incomplete));
        }
        self.buf.resize(to_usize(want), 0);
        self.start = self.pos;
        let read = self.file.read_exact_at(&mut self.buf, self.pos);
        read.map_err(|e| {
            self.buf.clear();
            match e.kind() {
                std::io::ErrorKind::UnexpectedEof => self.corrupt(Damage::Incomplete),
                _ => LogError::io("read", &self.path, e),
            }
        })
    }

    fn corrupt(&self, damage: Damage) -> LogError {
        LogError::Corrupt {
            path: self.path.clone(),
            position: self.pos,
            damage,
        }
    }
}
