//! Scrubbing: reading data again to see whether it is still what was written.

use std::ops::Range;
use std::path::PathBuf;

use super::Log;
use super::scan::{ScanRange, scan};
use crate::error::{Damage, LogError};
use crate::format::LOG;

/// A damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The segment file.
    pub file: PathBuf,
    /// Where the damaged batch begins.
    pub position: u64,
    /// Its first offset.
    pub offset: i64,
    /// What is wrong.
    pub damage: Damage,
}

/// What a scrub found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Bytes whose checksums were verified.
    pub bytes: u64,
    /// The first damaged place of each damaged segment.
    pub findings: Vec<Finding>,
}

impl Log {
    /// Reads all sealed segments that hold offsets in `range` again: checksums, epochs, continuity of offsets, and
    /// that each ends where the next begins.
    ///
    /// # Errors
    ///
    /// `Io` where the disk cannot read; damage is a finding.
    pub fn verify(&self, range: Range<i64>) -> Result<VerifyReport, LogError> {
        self.undisturbed(|| self.scrub(&range))
    }

    fn scrub(&self, range: &Range<i64>) -> Result<VerifyReport, LogError> {
        let mut report = VerifyReport::default();
        let mut segments = self.stats().segments;
        segments.pop();
        let touched = segments
            .iter()
            .filter(|s| s.id.base_offset < range.end && s.end.base_offset > range.start);
        for segment in touched {
            let file = segment.id.path(&self.dir, LOG);
            let mut finding = |position, offset, damage| {
                report.findings.push(Finding {
                    file: file.clone(),
                    position,
                    offset,
                    damage,
                });
            };
            // Not the handle that readers share: a missing name must show.
            let handle = match crate::segment::open_segment(
                &*self.cx.disk,
                &file,
                takhin_runtime::disk::OpenMode::Read,
            ) {
                Ok(handle) => handle,
                Err(LogError::Corrupt { damage, .. }) => {
                    finding(0, segment.id.base_offset, damage);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let len = handle.len().map_err(|e| LogError::io("measure", &file, e))?;
            let what = ScanRange {
                len,
                crc_from: 0,
                epoch: 0,
            };
            let scan = scan(&*handle, &file, segment.id, &what, &self.options())?;
            let short = (scan.index.end() != segment.end).then_some(Damage::WrongLength);
            if let Some(damage) = scan.damage.or(short) {
                finding(scan.index.bytes, scan.index.next_offset, damage);
            }
            report.bytes += scan.index.bytes;
        }
        Ok(report)
    }
}
