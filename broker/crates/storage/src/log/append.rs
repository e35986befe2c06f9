//! Appending entries.

use std::io::IoSlice;

use takhin_protocol::record::{BatchHeader, HEADER_LEN};

use super::{Log, State, Writer};
use crate::cleaned::is_mark;
use crate::entry::{Appended, EntryHead, LogStatus, NewEntry};
use crate::error::LogError;
use crate::heads::PlacedHead;
use crate::metrics::METRICS;
use crate::options::LogOptions;
use crate::walk::plausible;

/// Entries per gather write: two slices each, below `IOV_MAX` (1024).
const MAX_GATHER: usize = 500;

/// What the next entry must look like.
struct Expected {
    index: u64,
    offset: i64,
    term: u32,
}

impl Log {
    /// Appends entries, all or none.
    ///
    /// On return readers see them; they are NOT durable before a flush round over this log has succeeded. The
    /// payload goes from `Batch::body` to the page cache without a copy, in as few writes as segments allow.
    ///
    /// # Errors
    ///
    /// `WrongIndex`, `WrongOffset`, `TermBackwards`, `Malformed`: the entries do not continue this log; nothing was
    /// written. `Full`: nothing was appended and the log stays usable. Any other error of the disk leaves the log
    /// `Failed`.
    pub fn append(&self, entries: &[NewEntry]) -> Result<Appended, LogError> {
        let options = self.options();
        let mut writer = self.writer.lock();
        let before = {
            let state = self.state.read();
            self.check_writable(&state)?;
            verify(&state, entries, &options)?;
            state.last().map(|l| l.index)
        };
        let mut bytes = 0;
        let mut rest = entries;
        while !rest.is_empty() {
            match self.append_run(&mut writer, rest, &options) {
                Ok((count, written)) => {
                    rest = &rest[count..];
                    bytes += written;
                }
                Err(error) => {
                    if rest.len() < entries.len() {
                        // An earlier part is already in place; all or none.
                        self.truncate_locked(&mut writer, before)
                            .map_err(|e| self.fail(e))?;
                    }
                    return Err(error);
                }
            }
        }
        METRICS.appended_bytes.add(bytes);
        METRICS.appended_batches.add(entries.len() as u64);
        let state = self.state.read();
        Ok(Appended {
            last: state.last(),
            log_end_offset: state.end_offset(),
            bytes,
        })
    }

    /// Appends as many leading entries as go into one segment with one write; rolls first if the first needs it.
    fn append_run(
        &self,
        writer: &mut Writer,
        entries: &[NewEntry],
        options: &LogOptions,
    ) -> Result<(usize, u64), LogError> {
        if self.must_roll_before(&entries[0], options) {
            self.roll(writer, options)?;
        }
        let (file, pos, count) = {
            let state = self.state.read();
            let index = &state.active.index;
            let mut count = 0;
            let mut end = index.bytes;
            for entry in entries.iter().take(MAX_GATHER) {
                let len = entry.batch.header.total_len() as u64;
                // The roll rules look at the segment as it is; behind the first entry only its size can change
                // them within one call, and time and deltas are looked at again with a cut on the safe side.
                if count > 0
                    && (end + len > u64::from(options.segment_bytes)
                        || roll_by_content(index, entry, options))
                {
                    break;
                }
                end += len;
                count += 1;
            }
            (state.active.file.clone(), index.bytes, count)
        };
        let run = &entries[..count];
        writer.headers.clear();
        writer.headers.extend(run.iter().map(|e| e.batch.header.encode()));
        let written = if let ([entry], [header]) = (run, &writer.headers[..]) {
            file.write_at(&mut [IoSlice::new(header), IoSlice::new(&entry.batch.body)], pos)
        } else {
            let mut parts = Vec::with_capacity(2 * count);
            for (entry, header) in run.iter().zip(&writer.headers) {
                parts.push(IoSlice::new(header));
                parts.push(IoSlice::new(&entry.batch.body));
            }
            file.write_at(&mut parts, pos)
        };
        if let Err(source) = written {
            return Err(self.undo_write(&*file, pos, source));
        }
        Ok((count, self.publish(run, options)))
    }

    /// Cuts a failed write back; a full disk is survived, everything else fails the log.
    fn undo_write(
        &self,
        file: &dyn takhin_runtime::disk::File,
        pos: u64,
        source: std::io::Error,
    ) -> LogError {
        let path = self.active_path();
        let error = LogError::io("append to", &path, source);
        match file.set_len(pos) {
            Ok(()) if matches!(error, LogError::Full { .. }) => error,
            _ => self.fail(error),
        }
    }

    /// Makes written entries visible.
    fn publish(&self, run: &[NewEntry], options: &LogOptions) -> u64 {
        let mut guard = self.state.write();
        let state = &mut *guard;
        let before = state.active.index.bytes;
        for entry in run {
            state.note(entry.raft_index, &entry.batch.header, options);
        }
        let file = &state.active.file;
        state.dirty.file(file);
        state.assert_order();
        state.active.index.bytes - before
    }

    fn must_roll_before(&self, entry: &NewEntry, options: &LogOptions) -> bool {
        let state = self.state.read();
        let index = &state.active.index;
        let len = entry.batch.header.total_len() as u64;
        index.bytes > 0
            && (index.bytes + len > u64::from(options.segment_bytes)
                || roll_by_content(index, entry, options))
    }
}

impl State {
    /// Takes note of an entry at the end of the active segment.
    pub(super) fn note(&mut self, raft_index: u64, header: &BatchHeader, options: &LogOptions) {
        let term = u32::try_from(header.partition_leader_epoch).unwrap_or(0);
        let head = EntryHead {
            term,
            index: raft_index,
            base_offset: header.base_offset,
            next_offset: header.next_offset(),
            hidden: header.is_hidden(),
        };
        let placed = PlacedHead {
            head,
            pos: self.active.index.bytes,
            len: header.total_len() as u64,
            producer_id: header.producer_id,
        };
        self.heads.push(placed, options.head_ring);
        self.derived.note(term, raft_index, header, options.max_producers);
        self.active.index.note(header, options.index_interval_bytes);
    }
}

/// The roll rules that do not depend on size (Kafka's `LogSegment.shouldRoll`).
fn roll_by_content(index: &crate::index::SegmentIndex, entry: &NewEntry, options: &LogOptions) -> bool {
    let header = &entry.batch.header;
    let offset_delta = header.next_offset() - index.id.base_offset;
    let aged = !header.is_hidden()
        && index.first_timestamp >= 0
        && header.max_timestamp.saturating_sub(index.first_timestamp) > options.segment_ms;
    aged || offset_delta > i64::from(i32::MAX)
        || entry.raft_index - index.id.first_index >= u64::from(u32::MAX)
        || index.points() >= options.index_max_entries as usize
}

/// Checks that all entries continue the log.
fn verify(state: &State, entries: &[NewEntry], options: &LogOptions) -> Result<(), LogError> {
    debug_assert_eq!(state.status, LogStatus::Ready);
    let mut expected = Expected {
        index: state.next_index(),
        offset: state.end_offset(),
        term: state.last().map_or(0, |l| l.term),
    };
    for entry in entries {
        verify_entry(&expected, entry, options)?;
        expected = Expected {
            index: expected.index + 1,
            offset: entry.batch.header.next_offset(),
            term: entry.term,
        };
    }
    Ok(())
}

fn verify_entry(expected: &Expected, entry: &NewEntry, options: &LogOptions) -> Result<(), LogError> {
    let header = &entry.batch.header;
    let index = entry.raft_index;
    if index != expected.index {
        return Err(LogError::WrongIndex {
            expected: expected.index,
            found: index,
        });
    }
    if header.base_offset != expected.offset {
        return Err(LogError::WrongOffset {
            index,
            expected: expected.offset,
            found: header.base_offset,
        });
    }
    if entry.term < expected.term {
        return Err(LogError::TermBackwards {
            index,
            last: expected.term,
            found: entry.term,
        });
    }
    let what = if !plausible(header, options.max_batch_bytes) || is_mark(header) {
        "its header is not that of a batch"
    } else if header.total_len() != HEADER_LEN + entry.batch.body.len() {
        "its length is not that of its body"
    } else if i32::try_from(entry.term) != Ok(header.partition_leader_epoch) {
        "its leader epoch is not its term"
    } else {
        return Ok(());
    };
    Err(LogError::Malformed { index, what })
}
