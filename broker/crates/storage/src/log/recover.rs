//! Recovery: from the files of a log to its state.
//!
//! The invariant: **only bytes above the durable watermark are ever cut**, and only when the way the previous owner
//! stopped explains that they are damaged:
//!
//! | previous stop | damage above the watermark | damage below it |
//! |---|---|---|
//! | power loss | cut | log opens `Damaged` |
//! | killed, nothing valid follows | cut (a torn tail) | `Damaged` |
//! | killed, valid batches follow | `Damaged`: in doubt | `Damaged` |
//! | clean | `Damaged`: nothing can be torn | `Damaged` |
//! | failed sync | everything above is cut, valid or not | `Damaged` |
//!
//! What is cut is copied to `quarantine/` first. A `Damaged` log is not touched at all: its prefix is readable, its
//! files stay as they were found. Checksums are verified from the watermark on; below it, segments are compared with
//! the list of sealed segments or with their indexes, and headers are walked only where both are missing. Below the
//! floor a cleaned segment says of itself how long it is and where it ends.
//! Every step leads to the same result when it is repeated after a crash.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use takhin_runtime::disk::{File, OpenMode};

use super::quarantine::{cut_segment, move_segment};
use super::scan::{Scan, ScanRange, scan, valid_batch_after};
use crate::cleaned::Mark;
use crate::entry::{Checkpoint, DamagedAt, PreviousStop};
use crate::error::{Damage, LogError};
use crate::format::{LOG, SegmentId};
use crate::index::SegmentIndex;
use crate::metrics::METRICS;
use crate::options::{LogOptions, StorageContext};
use crate::segment::{Active, load_index, open_segment, save_index};
use crate::state_file::{LogState, Manifest, SealedLen};

/// One thing that recovery did or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryAction {
    /// Bytes were cut from the end, after they had been saved.
    Cut {
        /// The segment file.
        file: PathBuf,
        /// First byte cut.
        position: u64,
        /// First offset that was lost, if the bytes held records.
        offset: i64,
        /// Number of bytes.
        bytes: u64,
        /// Why.
        damage: Option<Damage>,
        /// Where they are now.
        saved_as: PathBuf,
    },
    /// Damage that must not be cut.
    Damaged(DamagedAt),
    /// An index was rebuilt from batch headers.
    IndexRebuilt {
        /// The segment file.
        file: PathBuf,
    },
    /// A leftover of an interrupted operation was removed.
    Removed {
        /// The file.
        file: PathBuf,
    },
}

/// What opening a log did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// In the order in which they happened.
    pub actions: Vec<RecoveryAction>,
    /// Bytes whose checksums were verified.
    pub scanned_bytes: u64,
}

/// What recovery hands to the log.
pub(super) struct Recovered {
    pub(super) sealed: Vec<SealedLen>,
    pub(super) active: Active,
    pub(super) damaged: Option<DamagedAt>,
}

pub(super) struct Recovery<'a> {
    pub(super) cx: &'a StorageContext,
    pub(super) dir: &'a Path,
    pub(super) options: LogOptions,
    pub(super) previous: PreviousStop,
    /// The effective watermark: the caller's, lowered by later truncations. `None`: nothing is known to be durable.
    pub(super) watermark: Option<Checkpoint>,
    pub(super) persisted: LogState,
    pub(super) manifest: Option<Manifest>,
    pub(super) report: RecoveryReport,
}

/// Where the walk over the segments stopped.
struct Broken {
    /// Index in the listing of the first segment that is not wholly good.
    i: usize,
    damage: Damage,
    /// The valid prefix of that segment; an empty one where a segment is missing.
    prefix: Box<SegmentIndex>,
    below_watermark: bool,
}

/// How the look at one segment ended, errors of the operating system aside.
type Checked<T> = Result<T, Broken>;

impl Recovery<'_> {
    /// Checks `segments`, found in the directory, ascending; at least one.
    pub(super) fn run(&mut self, mut segments: Vec<SealedLen>) -> Result<Recovered, LogError> {
        if self.previous == PreviousStop::Failed {
            self.cut_to_watermark(&mut segments)?;
        }
        let mut at = segments.first().map_or_else(|| self.persisted.front(), |s| s.id);
        let mut epoch = 0;
        if let Err(broken) = self.check_front(at) {
            return self.handle(&segments, broken);
        }
        for i in 0..segments.len() {
            let segment = segments[i];
            let step = match self.check_place(i, segment.id, at) {
                Err(broken) => Err(broken),
                Ok(()) if self.is_below(segment.id) => self.check_below(i, segment, epoch)?,
                Ok(()) => self.check_above(i, segment, epoch)?,
            };
            let (index, last_epoch) = match step {
                Ok(step) => step,
                Err(broken) => return self.handle(&segments, broken),
            };
            (at, epoch) = (index.end(), last_epoch);
            if i + 1 == segments.len() && !self.is_below(segment.id) {
                segments.pop();
                let active = self.active(index)?;
                return Ok(Recovered {
                    sealed: segments,
                    active,
                    damaged: None,
                });
            }
        }
        // The walk ended below the segment in which the watermark lies.
        let prefix = Box::new(SegmentIndex::new(at));
        let broken = Broken {
            i: segments.len(),
            damage: Damage::MissingSegment,
            prefix,
            below_watermark: self.loses_durable(at),
        };
        self.handle(&segments, broken)
    }

    /// Whether something durable is gone if the log ends at `at`.
    fn loses_durable(&self, at: SegmentId) -> bool {
        self.watermark.is_some_and(|w| at.first_index < w.next_index())
    }

    /// Whether the whole segment lies below the watermark.
    fn is_below(&self, id: SegmentId) -> bool {
        self.watermark
            .is_some_and(|w| id.first_index < w.segment.first_index)
    }

    /// The first segment must reach down to the log start and to the purge point.
    fn check_front(&self, first: SegmentId) -> Checked<()> {
        let front = self.persisted.front();
        if first.base_offset <= front.base_offset && first.first_index <= front.first_index {
            return Ok(());
        }
        let below_watermark = self.loses_durable(front);
        Err(Broken {
            i: 0,
            damage: Damage::MissingSegment,
            prefix: Box::new(SegmentIndex::new(front)),
            below_watermark,
        })
    }

    /// A segment must begin where its predecessor ended.
    fn check_place(&self, i: usize, found: SegmentId, at: SegmentId) -> Checked<()> {
        if found == at {
            return Ok(());
        }
        let below_watermark = self.loses_durable(at);
        Err(Broken {
            i,
            damage: Damage::MissingSegment,
            prefix: Box::new(SegmentIndex::new(at)),
            below_watermark,
        })
    }

    /// A sealed segment below the watermark: its end as the list or its index has it, else from its headers.
    fn check_below(
        &mut self,
        i: usize,
        segment: SealedLen,
        epoch: u32,
    ) -> Result<Checked<(SegmentIndex, u32)>, LogError> {
        let mark = match self.mark(segment.id)? {
            Ok(mark) => mark,
            Err(damage) => {
                let prefix = Box::new(SegmentIndex::new(segment.id));
                return Ok(Err(Broken {
                    i,
                    damage,
                    prefix,
                    below_watermark: true,
                }));
            }
        };
        if let Some(mark) = &mark {
            if mark.bytes == segment.bytes {
                return Ok(Ok((SegmentIndex::of(segment.id, Some(mark)), epoch)));
            }
        } else if let Some((bytes, end)) = self.listed(segment.id) {
            if bytes == segment.bytes {
                let mut index = SegmentIndex::new(segment.id);
                (index.next_offset, index.next_index) = (end.base_offset, end.first_index);
                return Ok(Ok((index, epoch)));
            }
        } else if let Some(index) = load_index(self.cx, self.dir, segment.id, segment.bytes, None)? {
            return Ok(Ok((index, epoch)));
        }
        let scan = self.scan(segment, segment.bytes, epoch)?;
        let listed = self.listed(segment.id).is_some();
        if let Some(damage) = scan.damage.or_else(|| listed.then_some(Damage::WrongLength)) {
            return Ok(Err(Broken {
                i,
                damage,
                prefix: Box::new(scan.index),
                below_watermark: true,
            }));
        }
        self.keep_index(&scan.index)?;
        Ok(Ok((scan.index, scan.epoch)))
    }

    /// The segment in which the watermark lies, or one above it: checksums from the watermark on.
    fn check_above(
        &mut self,
        i: usize,
        segment: SealedLen,
        epoch: u32,
    ) -> Result<Checked<(SegmentIndex, u32)>, LogError> {
        let durable = self
            .watermark
            .filter(|w| w.segment == segment.id)
            .map_or(0, |w| w.position);
        if durable == segment.bytes
            && let Some(index) = load_index(self.cx, self.dir, segment.id, segment.bytes, None)?
        {
            return Ok(Ok((index, epoch)));
        }
        let scan = self.scan(segment, durable, epoch)?;
        let shorter = (segment.bytes < durable).then_some(Damage::ShorterThanWatermark);
        let broken = |damage, below_watermark, prefix| Broken {
            i,
            damage,
            prefix: Box::new(prefix),
            below_watermark,
        };
        Ok(match (shorter, scan.damage) {
            (Some(damage), _) => Err(broken(damage, true, scan.index)),
            (None, Some(damage)) => Err(broken(damage, scan.index.bytes < durable, scan.index)),
            (None, None) => Ok((scan.index, scan.epoch)),
        })
    }

    fn scan(&mut self, segment: SealedLen, crc_from: u64, epoch: u32) -> Result<Scan, LogError> {
        let path = segment.id.path(self.dir, LOG);
        let file = open_segment(&*self.cx.disk, &path, OpenMode::Read)?;
        self.report.scanned_bytes += segment.bytes.saturating_sub(crc_from);
        let range = ScanRange {
            len: segment.bytes,
            crc_from,
            epoch,
        };
        scan(&*file, &path, segment.id, &range, &self.options)
    }

    /// The mark of a segment that may have been cleaned.
    fn mark(&self, id: SegmentId) -> Result<Result<Option<Mark>, Damage>, LogError> {
        if id.first_index >= self.persisted.floor_index() {
            return Ok(Ok(None));
        }
        let path = id.path(self.dir, LOG);
        let file = open_segment(&*self.cx.disk, &path, OpenMode::Read)?;
        Mark::read(&*file, id).map_err(|e| LogError::io("read", &path, e))
    }

    /// Length and end of a segment as the list of sealed segments has them; it says nothing below the floor.
    fn listed(&self, id: SegmentId) -> Option<(u64, SegmentId)> {
        let manifest = self.manifest.as_ref()?;
        if id.first_index < self.persisted.floor_index() {
            return None;
        }
        let i = manifest
            .segments
            .binary_search_by_key(&id.first_index, |s| s.id.first_index)
            .ok()?;
        let end = manifest.segments.get(i + 1).map_or(manifest.end, |s| s.id);
        (manifest.segments[i].id == id).then_some((manifest.segments[i].bytes, end))
    }

    fn keep_index(&mut self, index: &SegmentIndex) -> Result<(), LogError> {
        save_index(self.cx, self.dir, index)?;
        METRICS.indexes_rebuilt.add(1);
        let file = index.id.path(self.dir, LOG);
        self.report.actions.push(RecoveryAction::IndexRebuilt { file });
        Ok(())
    }

    fn active(&self, index: SegmentIndex) -> Result<Active, LogError> {
        let path = index.id.path(self.dir, LOG);
        Ok(Active {
            file: open_segment(&*self.cx.disk, &path, OpenMode::Write)?,
            index,
        })
    }

    /// Cuts, or opens damaged, as the table above says.
    fn handle(&mut self, segments: &[SealedLen], mut broken: Broken) -> Result<Recovered, LogError> {
        if broken.i > 0 && segments[broken.i - 1].id == broken.prefix.id {
            // An empty segment is followed by one that does not belong here: it is the one where the log goes on.
            broken.i -= 1;
        }
        let may_cut = !broken.below_watermark
            && match self.previous {
                PreviousStop::PowerLoss | PreviousStop::Failed => true,
                PreviousStop::Killed => !self.valid_follows(segments, &broken)?,
                PreviousStop::Clean => false,
            };
        if may_cut {
            self.cut(segments, broken)
        } else {
            self.damaged(segments, broken)
        }
    }

    /// Whether anything valid lies behind the damage.
    fn valid_follows(&self, segments: &[SealedLen], broken: &Broken) -> Result<bool, LogError> {
        for (i, segment) in segments.iter().enumerate().skip(broken.i) {
            let path = segment.id.path(self.dir, LOG);
            let file = open_segment(&*self.cx.disk, &path, OpenMode::Read)?;
            let from = if i == broken.i { broken.prefix.bytes } else { 0 };
            let starts_here = segment.id != broken.prefix.id && segment.bytes > 0;
            let min_offset = broken.prefix.next_offset;
            if starts_here
                || valid_batch_after(&*file, &path, from..segment.bytes, min_offset, &self.options)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn cut(&mut self, segments: &[SealedLen], broken: Broken) -> Result<Recovered, LogError> {
        let id = broken.prefix.id;
        let keeps_part = segments.get(broken.i).is_some_and(|s| s.id == id);
        let whole = broken.i + usize::from(keeps_part);
        for segment in segments[whole.min(segments.len())..].iter().rev() {
            self.quarantine_segment(*segment, Some(broken.damage))?;
        }
        if keeps_part {
            self.cut_at(segments[broken.i], &broken.prefix, Some(broken.damage))?;
        }
        let active = if keeps_part {
            self.active(*broken.prefix)?
        } else {
            Active::create(self.cx, self.dir, id)?
        };
        Ok(Recovered {
            sealed: segments[..broken.i].to_vec(),
            active,
            damaged: None,
        })
    }

    fn quarantine_segment(&mut self, segment: SealedLen, damage: Option<Damage>) -> Result<(), LogError> {
        let saved_as = move_segment(&*self.cx.disk, self.dir, segment.id, segment.bytes)?;
        self.note_cut(
            segment.id,
            0,
            segment.bytes,
            segment.id.base_offset,
            damage,
            saved_as,
        );
        Ok(())
    }

    fn cut_at(
        &mut self,
        segment: SealedLen,
        prefix: &SegmentIndex,
        damage: Option<Damage>,
    ) -> Result<(), LogError> {
        if segment.bytes > prefix.bytes {
            let range = prefix.bytes..segment.bytes;
            let saved_as = cut_segment(&*self.cx.disk, self.dir, segment.id, range)?;
            let bytes = segment.bytes - prefix.bytes;
            self.note_cut(
                segment.id,
                prefix.bytes,
                bytes,
                prefix.next_offset,
                damage,
                saved_as,
            );
        }
        Ok(())
    }

    fn note_cut(
        &mut self,
        id: SegmentId,
        position: u64,
        bytes: u64,
        offset: i64,
        damage: Option<Damage>,
        saved_as: PathBuf,
    ) {
        let file = id.path(self.dir, LOG);
        METRICS.recovery_cut_bytes.add(bytes);
        tracing::warn!(
            file = %file.display(), position, offset, bytes, ?damage, saved_as = %saved_as.display(),
            "cut the end of a log"
        );
        self.report.actions.push(RecoveryAction::Cut {
            file,
            position,
            offset,
            bytes,
            damage,
            saved_as,
        });
    }

    /// After a failed sync: everything above the watermark goes, since a later read may show what a crash would lose.
    fn cut_to_watermark(&mut self, segments: &mut Vec<SealedLen>) -> Result<(), LogError> {
        let Some(watermark) = self.watermark else {
            return Ok(());
        };
        while segments.len() > 1
            && segments
                .last()
                .is_some_and(|s| s.id.first_index > watermark.segment.first_index)
        {
            let Some(segment) = segments.pop() else { break };
            self.quarantine_segment(segment, None)?;
        }
        if let Some(last) = segments.last_mut().filter(|s| s.id == watermark.segment) {
            let mut prefix = SegmentIndex::new(last.id);
            (prefix.bytes, prefix.next_offset) = (watermark.position, watermark.next_offset);
            self.cut_at(*last, &prefix, None)?;
            last.bytes = last.bytes.min(watermark.position);
        }
        Ok(())
    }

    /// Opens the readable prefix and leaves every file as it is.
    fn damaged(&mut self, segments: &[SealedLen], broken: Broken) -> Result<Recovered, LogError> {
        let id = broken.prefix.id;
        let path = id.path(self.dir, LOG);
        let at = DamagedAt {
            path: path.clone(),
            position: broken.prefix.bytes,
            offset: broken.prefix.next_offset,
            damage: broken.damage,
        };
        let damage = broken.damage;
        tracing::error!(
            file = %path.display(), position = at.position, offset = at.offset, %damage,
            "log is damaged; it is readable up to there and takes no appends"
        );
        self.report.actions.push(RecoveryAction::Damaged(at.clone()));
        let exists = segments.get(broken.i).is_some_and(|s| s.id == id);
        let file: Arc<dyn File> = if exists {
            open_segment(&*self.cx.disk, &path, OpenMode::Read)?
        } else {
            Arc::new(NoFile)
        };
        let active = Active {
            file,
            index: *broken.prefix,
        };
        Ok(Recovered {
            sealed: segments[..broken.i].to_vec(),
            active,
            damaged: Some(at),
        })
    }
}

/// Stands for a segment file that is missing: empty, and never written since its log is `Damaged`.
#[derive(Debug)]
struct NoFile;

impl File for NoFile {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, _: &mut [io::IoSlice<'_>], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
    fn is_cached(&self, _: u64, _: usize) -> bool {
        true
    }
}
