//! Epochs and producers, kept in step with the entries and rebuilt from them.

use std::path::Path;

use takhin_protocol::record::BatchHeader;
use takhin_runtime::disk::OpenMode;

use crate::cleaned::Mark;
use crate::error::LogError;
use crate::format::{Kind, LOG, SNAPSHOT, SegmentId};
use crate::options::{LogOptions, StorageContext};
use crate::segment::{open_segment, read_mark};
use crate::snapshot::Derived;
use crate::state_file::SealedLen;
use crate::walk::Walk;
use crate::whole::{self, Found};

impl Derived {
    /// Takes note of an entry.
    pub(crate) fn note(&mut self, term: u32, index: u64, header: &BatchHeader, max_producers: usize) {
        self.epochs.note(term, index, header.base_offset);
        self.producers.note(header, max_producers);
    }

    /// Takes note of a cleaned segment. Its epochs are in its mark: their first entries may be gone. Of a producer that
    /// is live, compaction has kept the last batch.
    fn note_cleaned(
        &mut self,
        mark: &Mark,
        walk: &mut Walk<'_>,
        max_producers: usize,
    ) -> Result<(), LogError> {
        for e in &mark.epochs {
            self.epochs.note(e.epoch, e.first_index, e.first_offset);
        }
        while let Some(found) = walk.next()? {
            self.producers.note(&found.header, max_producers);
        }
        Ok(())
    }
}

/// The snapshot taken at `at`; `None` if there is none or it fails its check.
pub(super) fn load_snapshot(
    cx: &StorageContext,
    dir: &Path,
    at: SegmentId,
) -> Result<Option<Derived>, LogError> {
    match whole::read(&*cx.disk, &at.path(dir, SNAPSHOT), Kind::Snapshot)? {
        Found::Body(body) => Ok(Derived::decode(at, &body)),
        Found::Missing | Found::Bad(_) => Ok(None),
    }
}

/// The state after the given consecutive segments: from the newest snapshot at one's beginning, then from headers.
pub(super) fn derive(
    cx: &StorageContext,
    dir: &Path,
    options: &LogOptions,
    segments: &[SealedLen],
) -> Result<Derived, LogError> {
    let mut first = 0;
    let mut derived = Derived::default();
    for (i, segment) in segments.iter().enumerate().rev() {
        if let Some(snapshot) = load_snapshot(cx, dir, segment.id)? {
            (first, derived) = (i, snapshot);
            break;
        }
    }
    for segment in &segments[first..] {
        if segment.bytes == 0 {
            continue;
        }
        let path = segment.id.path(dir, LOG);
        let file = open_segment(&*cx.disk, &path, OpenMode::Read)?;
        let mut walk = Walk::new(&*file, &path, 0..segment.bytes, options.max_batch_bytes);
        let mut index = segment.id.first_index;
        if let Some(mark) = read_mark(&*file, &path, segment.id)? {
            derived.note_cleaned(&mark, &mut walk, options.max_producers)?;
            continue;
        }
        while let Some(found) = walk.next()? {
            let term = u32::try_from(found.header.partition_leader_epoch).unwrap_or(0);
            derived.note(term, index, &found.header, options.max_producers);
            index += 1;
        }
    }
    Ok(derived)
}
