//! The new segment of a group, on its way.

use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use takhin_protocol::record::{Batch, BatchHeader};
use takhin_runtime::disk::{Disk, File, OpenMode};

use super::source::{STEP_BYTES, Source};
use crate::cleaned::Mark;
use crate::epochs::EpochStart;
use crate::error::LogError;
use crate::format::{LOG, SegmentId, TMP, to_usize};
use crate::index::SegmentIndex;
use crate::options::LogOptions;

/// Bytes written at a time.
const BUFFER: usize = 1 << 20;

/// A segment file under a temporary name, which recovery removes. Its first bytes, the mark's, are written last.
pub(super) struct Output {
    pub(super) id: SegmentId,
    pub(super) end: SegmentId,
    epochs: Vec<EpochStart>,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// Headers of all batches written, in the order of the file; what its index is made of at the end.
    pub(super) index: SegmentIndex,
    buf: Vec<u8>,
    flushed: u64,
    interval: u32,
    /// The last data batch, if it was dropped: its header stays if nothing follows.
    dropped: Option<BatchHeader>,
    /// Whether the file differs from what it replaces.
    pub(super) changed: bool,
}

impl Output {
    /// Creates the file for what begins at `id` and ends before `end`; `epochs` are those of the entries within.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        id: SegmentId,
        end: SegmentId,
        epochs: Vec<EpochStart>,
        options: &LogOptions,
    ) -> Result<Self, LogError> {
        let path = id.path(dir, &format!("{LOG}.{TMP}"));
        let file = disk
            .open(&path, OpenMode::CreateOrWrite)
            .map_err(|e| LogError::io("create", &path, e))?;
        file.set_len(0).map_err(|e| LogError::io("truncate", &path, e))?;
        // The stamp is that of the finished mark; until then any will do but that of an uncleaned segment.
        let (batch, mark) = Mark::encode(id, end, 0, epochs.clone());
        let mut index = SegmentIndex::of(id, Some(&mark));
        index.note(&batch.header, options.index_interval_bytes);
        Ok(Self {
            id,
            end,
            epochs,
            path,
            file,
            flushed: index.bytes,
            index,
            buf: Vec::with_capacity(BUFFER),
            interval: options.index_interval_bytes,
            dropped: None,
            changed: false,
        })
    }

    /// Adds a batch as it is.
    pub(super) fn copy(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<(), LogError> {
        self.check_room(header)?;
        if self.buf.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buf.extend_from_slice(bytes);
        self.note(header);
        Ok(())
    }

    /// Adds a batch in the place of another.
    pub(super) fn replace(&mut self, batch: &Batch) -> Result<(), LogError> {
        self.changed = true;
        self.copy(&batch.header, &batch.to_bytes())
    }

    /// Adds a long batch as it is, piece by piece.
    pub(super) fn copy_long(
        &mut self,
        header: &BatchHeader,
        source: &Source,
        range: Range<u64>,
    ) -> Result<(), LogError> {
        self.check_room(header)?;
        let mut pos = range.start;
        while pos < range.end {
            self.flush()?;
            let len = to_usize((range.end - pos).min(STEP_BYTES));
            self.buf.resize(len, 0);
            source
                .file
                .read_exact_at(&mut self.buf, pos)
                .map_err(|e| LogError::io("read", &source.path, e))?;
            pos += len as u64;
        }
        self.flush()?;
        self.note(header);
        Ok(())
    }

    /// Leaves a batch out.
    pub(super) fn leave_out(&mut self, header: &BatchHeader) {
        self.changed = true;
        if !header.is_hidden() {
            self.dropped = Some(*header);
        }
    }

    /// Positions in a segment stay below 2 GiB. Cleaning makes segments smaller, but a codec may make a batch larger.
    fn check_room(&self, header: &BatchHeader) -> Result<(), LogError> {
        let end = self.index.bytes + header.total_len() as u64;
        if end <= u64::from(i32::MAX.unsigned_abs()) + Mark::len(self.epochs.len()) as u64 {
            return Ok(());
        }
        Err(LogError::Undecodable {
            path: self.path.clone(),
            position: self.index.bytes,
            reason: "the cleaned segment grows past 2 GiB".to_owned(),
        })
    }

    fn note(&mut self, header: &BatchHeader) {
        self.index.note(header, self.interval);
        self.dropped = None;
    }

    fn flush(&mut self) -> Result<(), LogError> {
        if self.buf.is_empty() {
            return Ok(());
        }
        self.file
            .write_at(&mut [IoSlice::new(&self.buf)], self.flushed)
            .map_err(|e| LogError::io("write", &self.path, e))?;
        self.flushed += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    /// Writes what is left and the mark, and makes the file durable. Its name is still the temporary one.
    pub(super) fn finish(&mut self) -> Result<(), LogError> {
        if let Some(last) = self.dropped {
            // A consumer must be able to get past the hole even where nothing follows.
            self.replace(&Batch::emptied(&last))?;
        }
        self.flush()?;
        let (batch, mark) = Mark::encode(self.id, self.end, self.index.bytes, self.epochs.clone());
        self.index.set_mark(&mark);
        let (head, body) = (batch.header.encode(), &batch.body);
        self.file
            .write_at(&mut [IoSlice::new(&head), IoSlice::new(body)], 0)
            .map_err(|e| LogError::io("write", &self.path, e))?;
        self.file
            .sync_data()
            .map_err(|e| LogError::io("sync", &self.path, e))
    }
}
