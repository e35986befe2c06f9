//! One pass over one log, step by step.

use std::ops::Range;
use std::sync::Arc;

use super::filter::{Filter, FilterError, Verdict, last_batches};
use super::output::Output;
use super::source::{Read, STEP_BYTES, Source};
use super::{Candidate, CleanLimits, CleanReport, CleanRules};
use crate::error::LogError;
use crate::format::{LOG, SegmentId};
use crate::index::SegmentIndex;
use crate::log::Log;
use crate::metrics::METRICS;
use crate::offset_map::OffsetMap;
use crate::segment::Opened;

/// How far a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanStep {
    /// There is more to do; so many bytes were read and written.
    More {
        /// Bytes.
        bytes: u64,
    },
    /// The pass is over.
    Done(CleanReport),
}

/// A pass under way. Dropped before its end it leaves the log valid, with the groups done so far cleaned.
pub struct Cleaning {
    log: Arc<Log>,
    sources: Vec<Candidate>,
    first_dirty: i64,
    filter: Filter,
    rules: CleanRules,
    phase: Phase,
    report: CleanReport,
    ended: bool,
}

/// What the next step does.
enum Phase {
    /// Reads the dirty part of `sources[at..]` into the map.
    Map { at: usize, source: Option<Source> },
    /// Writes the groups' new segments.
    Rewrite(Box<Rewrite>),
}

struct Rewrite {
    groups: Vec<Range<usize>>,
    /// The group being written.
    group: usize,
    /// The source being read.
    at: usize,
    source: Option<Source>,
    output: Option<Output>,
}

impl std::fmt::Debug for Cleaning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cleaning")
            .field("log", &self.log.dir())
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        if let Phase::Rewrite(rewrite) = &self.phase
            && let Some(output) = &rewrite.output
        {
            // Frees its space; recovery would remove it too.
            let _ = self.log.cx.disk.remove_file(&output.path);
        }
    }
}

impl Cleaning {
    pub(super) fn new(
        log: Arc<Log>,
        sources: Vec<Candidate>,
        first_dirty: i64,
        rules: CleanRules,
        limits: &CleanLimits,
        now_ms: i64,
    ) -> Self {
        let end = sources.last().map_or(first_dirty, |s| s.end.base_offset);
        let filter = Filter {
            map: OffsetMap::new(limits.map_bytes, limits.seed),
            mapped_to: end,
            now_ms,
            delete_retention_ms: rules.delete_retention_ms,
            max_inflated: limits.max_inflated,
            last_batches: log.with_producers(|producers| last_batches(producers, end)),
            passed_unread: false,
            records: 0,
            records_kept: 0,
            batches_unread: 0,
        };
        let at = sources.partition_point(|s| s.end.base_offset <= first_dirty);
        Self {
            log,
            sources,
            first_dirty,
            filter,
            rules,
            phase: Phase::Map { at, source: None },
            report: CleanReport::default(),
            ended: false,
        }
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Reads about a megabyte and does with it what is due. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// After any error the pass is over and the log as valid as before; but for a full disk it is marked uncleanable.
    /// `Corrupt`, `Undecodable`: what was read is damaged. `Full`, `Io`: the disk. `Failed`: the log has to be opened
    /// again.
    pub fn step(&mut self) -> Result<CleanStep, LogError> {
        if self.ended {
            return Ok(CleanStep::Done(self.report));
        }
        let (read, written) = (self.report.bytes_read, self.report.bytes_written);
        let stepped = match self.phase {
            Phase::Map { .. } => self.step_map(),
            Phase::Rewrite(_) => self.step_rewrite(),
        };
        let now_ms = self.filter.now_ms;
        let read = self.report.bytes_read - read;
        let written = self.report.bytes_written - written;
        METRICS.cleaner_read_bytes.add(read);
        METRICS.cleaner_written_bytes.add(written);
        match stepped {
            Ok(false) => Ok(CleanStep::More {
                bytes: read + written,
            }),
            Ok(true) => {
                self.ended = true;
                let filter = &self.filter;
                (self.report.records, self.report.records_kept) = (filter.records, filter.records_kept);
                self.report.batches_unread = filter.batches_unread;
                METRICS.cleaner_records.add(filter.records);
                METRICS.cleaner_records_kept.add(filter.records_kept);
                METRICS.cleaner_batches_unread.add(filter.batches_unread);
                self.log.cleaned(Ok(&self.report), now_ms);
                Ok(CleanStep::Done(self.report))
            }
            Err(error) => {
                self.ended = true;
                self.log.cleaned(Err(&error), now_ms);
                Err(error)
            }
        }
    }

    fn step_map(&mut self) -> Result<bool, LogError> {
        let Phase::Map { at, source } = &mut self.phase else {
            return Ok(true);
        };
        let Some(candidate) = self.sources.get(*at) else {
            return self.begin_rewrite();
        };
        let Some(reading) = source else {
            let Some(opened) = open(&self.log, candidate)? else {
                return Ok(true);
            };
            let from = opened.index.floor_offset(self.first_dirty).pos;
            *source = Some(source_of(&self.log, candidate, &opened, from, &self.filter));
            return Ok(false);
        };
        let begin = reading.position();
        let mut more = true;
        while more && reading.position() - begin < STEP_BYTES {
            let at = reading.position();
            more = match reading.next()? {
                None => break,
                Some(Read::Long(..)) => true,
                Some(Read::Whole(header, bytes)) => self
                    .filter
                    .map_batch(&header, bytes, self.first_dirty)
                    .map_err(|e| undecodable(&reading.path, at, &e))?,
            };
        }
        let read = reading.position() - begin;
        self.report.bytes_read += read;
        if !more {
            return self.begin_rewrite();
        }
        if read == 0 {
            *at += 1;
            *source = None;
        }
        Ok(false)
    }

    /// The map is made: decides which segments become one, and makes the floor durable. From then on watermarks below it
    /// are void.
    fn begin_rewrite(&mut self) -> Result<bool, LogError> {
        let mapped_to = self.filter.mapped_to;
        let covered = self
            .sources
            .partition_point(|s| s.sealed.id.base_offset < mapped_to);
        self.sources.truncate(covered);
        let mut sizes = Vec::with_capacity(covered);
        for candidate in &self.sources {
            let Some(opened) = open(&self.log, candidate)? else {
                return Ok(true);
            };
            sizes.push(Size::of(&opened.index));
        }
        let groups = groups(&sizes, &self.log.options());
        if let Some(last) = self.sources.last() {
            self.log.raise_floor(last.end)?;
        }
        self.phase = Phase::Rewrite(Box::new(Rewrite {
            groups,
            group: 0,
            at: 0,
            source: None,
            output: None,
        }));
        Ok(false)
    }

    fn step_rewrite(&mut self) -> Result<bool, LogError> {
        let Phase::Rewrite(rewrite) = &mut self.phase else {
            return Ok(true);
        };
        let Some(group) = rewrite.groups.get(rewrite.group).cloned() else {
            self.log.set_first_dirty(self.filter.mapped_to)?;
            self.report.first_dirty = self.filter.mapped_to;
            return Ok(true);
        };
        if rewrite.output.is_none() {
            rewrite.at = group.start;
            let (first, last) = (&self.sources[group.start], &self.sources[group.end - 1]);
            rewrite.output = Some(self.log.create_output(first.sealed.id, last.end)?);
        }
        if rewrite.at == group.end {
            return self.finish_group(group);
        }
        let candidate = &self.sources[rewrite.at];
        if rewrite.source.is_none() {
            let Some(opened) = open(&self.log, candidate)? else {
                return Ok(true);
            };
            rewrite.source = Some(source_of(&self.log, candidate, &opened, 0, &self.filter));
        }
        let (Some(reading), Some(output)) = (&mut rewrite.source, &mut rewrite.output) else {
            return Ok(true);
        };
        let read = filter_some(&mut self.filter, reading, output)?;
        self.report.bytes_read += read;
        if read == 0 {
            rewrite.at += 1;
            rewrite.source = None;
        }
        Ok(false)
    }

    /// Puts the group's new segment in its place, or leaves all as it is if that would change nothing.
    fn finish_group(&mut self, group: Range<usize>) -> Result<bool, LogError> {
        let Phase::Rewrite(rewrite) = &mut self.phase else {
            return Ok(true);
        };
        let Some(output) = &mut rewrite.output else {
            return Ok(true);
        };
        let sources = &self.sources[group];
        if output.changed || sources.len() > 1 {
            output.finish()?;
            let bytes = output.index.bytes;
            if !self.log.swap(sources, output)? {
                // Retention or a new beginning was faster.
                return Ok(true);
            }
            self.report.bytes_written += bytes;
            self.report.segments.0 += sources.len();
            self.report.segments.1 += 1;
        } else {
            let removed = self.log.cx.disk.remove_file(&output.path);
            removed.map_err(|e| LogError::io("remove", &output.path, e))?;
        }
        rewrite.output = None;
        rewrite.group += 1;
        Ok(false)
    }

    /// The rules that the pass goes by.
    pub fn rules(&self) -> &CleanRules {
        &self.rules
    }
}

/// Filters about a megabyte of a source into the output; returns how much was read, 0 at the end.
fn filter_some(filter: &mut Filter, reading: &mut Source, output: &mut Output) -> Result<u64, LogError> {
    let begin = reading.position();
    while reading.position() - begin < STEP_BYTES {
        let at = reading.position();
        let path = reading.path.clone();
        match reading.next()? {
            None => break,
            Some(Read::Long(header, range)) => {
                filter.pass_unread(&header);
                output.copy_long(&header, reading, range)?;
            }
            Some(Read::Whole(header, bytes)) => {
                let verdict = filter.judge(&header, bytes);
                match verdict.map_err(|e| undecodable(&path, at, &e))? {
                    Verdict::Copy => output.copy(&header, bytes)?,
                    Verdict::Replace(batch) => output.replace(&batch)?,
                    // The mark of an earlier cleaning is replaced by this one's.
                    Verdict::Drop if crate::cleaned::is_mark(&header) => {}
                    Verdict::Drop => output.leave_out(&header),
                }
            }
        }
    }
    Ok(reading.position() - begin)
}

fn undecodable(path: &std::path::Path, position: u64, error: &FilterError) -> LogError {
    let reason = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    LogError::Undecodable {
        path: path.to_owned(),
        position,
        reason,
    }
}

/// A source with its index; `None` if retention has deleted it since the pass began, which ends the pass.
fn open(log: &Log, candidate: &Candidate) -> Result<Option<Arc<Opened>>, LogError> {
    let opened = candidate
        .sealed
        .open(&log.cx, &log.dir, &log.options(), candidate.end);
    match opened {
        Err(_) if !log.holds(std::slice::from_ref(&candidate.sealed)) => Ok(None),
        opened => opened.map(Some),
    }
}

fn source_of(log: &Log, candidate: &Candidate, opened: &Opened, from: u64, filter: &Filter) -> Source {
    Source::new(
        candidate.sealed.id.path(&log.dir, LOG),
        Arc::clone(&opened.file),
        from..opened.index.bytes,
        log.options().max_batch_bytes,
        filter.max_inflated,
    )
}

/// What counts when segments are put together.
struct Size {
    id: SegmentId,
    next_offset: i64,
    bytes: u64,
    points: usize,
}

impl Size {
    fn of(index: &SegmentIndex) -> Self {
        Self {
            id: index.id,
            next_offset: index.next_offset,
            bytes: index.bytes,
            points: index.points(),
        }
    }
}

/// Neighbours that together make no segment larger than the settings allow, by their sizes before.
fn groups(sizes: &[Size], options: &crate::options::LogOptions) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut bytes, mut points) = (0, 0);
    for (i, size) in sizes.iter().enumerate() {
        let fits = groups.last().is_some_and(|group| {
            let span = size.next_offset - sizes[group.start].id.base_offset;
            bytes + size.bytes <= u64::from(options.segment_bytes)
                && points + size.points <= options.index_max_entries as usize
                && span <= i64::from(i32::MAX)
        });
        match groups.last_mut() {
            Some(group) if fits => group.end = i + 1,
            _ => {
                groups.push(i..i + 1);
                (bytes, points) = (0, 0);
            }
        }
        bytes += size.bytes;
        points += size.points;
    }
    groups
}
