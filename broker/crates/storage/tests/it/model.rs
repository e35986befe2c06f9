//! The log against a `Vec`, through random operations and crashes.

use proptest::prelude::*;
use takhin_protocol::record::{Batch, Compression};
use takhin_runtime::sim::{CrashMode, SimDisk};
use takhin_storage::{Checkpoint, Entry, EntryId, Log, LogError, LogStatus, PreviousStop};

use crate::support::{all_entries, consume, open_on, records, small};

#[derive(Debug, Clone)]
enum Op {
    Append {
        entries: Vec<(bool, u8, u16)>,
        new_term: bool,
    },
    Roll,
    Truncate(u16),
    Purge(u16),
    LogStart(u16),
    Flush,
    /// The caller stores the newest watermark.
    Store,
    Reopen,
    Kill,
    PowerLoss,
}

fn op() -> impl Strategy<Value = Op> {
    let entry = (prop::bool::weighted(0.2), 1..5_u8, 0..400_u16);
    prop_oneof![
        8 => (prop::collection::vec(entry, 1..6), prop::bool::weighted(0.1))
            .prop_map(|(entries, new_term)| Op::Append { entries, new_term }),
        1 => Just(Op::Roll),
        2 => any::<u16>().prop_map(Op::Truncate),
        1 => any::<u16>().prop_map(Op::Purge),
        1 => any::<u16>().prop_map(Op::LogStart),
        2 => Just(Op::Flush),
        2 => Just(Op::Store),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
        1 => Just(Op::PowerLoss),
    ]
}

/// What the log ought to hold.
struct Model {
    disk: SimDisk,
    log: Log,
    entries: Vec<Entry>,
    /// Entries that were ever flushed and not truncated since: no crash may lose them.
    flushed: usize,
    stored: Option<Checkpoint>,
    term: u32,
    purged: Option<EntryId>,
    log_start: i64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
        Self {
            disk,
            log,
            entries: vec![],
            flushed: 0,
            stored: None,
            term: 1,
            purged: None,
            log_start: 0,
        }
    }

    fn next_offset(&self) -> i64 {
        self.entries.last().map_or(0, |e| e.batch.header.next_offset())
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append { entries, new_term } => self.append(entries, *new_term),
            Op::Roll => drop(self.log.roll_now().unwrap()),
            Op::Truncate(n) => self.truncate(usize::from(*n)),
            Op::Purge(n) => self.purge(usize::from(*n)),
            Op::LogStart(n) => self.move_log_start(*n),
            Op::Flush => {
                self.log.flush().unwrap();
                self.flushed = self.entries.len();
            }
            Op::Store => self.stored = Some(self.log.checkpoint()),
            Op::Reopen => {
                self.stored = Some(self.log.close().unwrap());
                self.flushed = self.entries.len();
                self.reopen(PreviousStop::Clean);
            }
            Op::Kill => {
                self.disk.crash(CrashMode::Process);
                self.reopen(PreviousStop::Killed);
            }
            Op::PowerLoss => {
                self.disk.crash(CrashMode::Power);
                self.reopen(PreviousStop::PowerLoss);
                self.lose_tail();
            }
        }
    }

    fn append(&mut self, shapes: &[(bool, u8, u16)], new_term: bool) {
        self.term += u32::from(new_term);
        let mut new = Vec::new();
        let mut offset = self.next_offset();
        for (i, (hidden, count, size)) in shapes.iter().enumerate() {
            let body = vec![u8::try_from(i).unwrap(); usize::from(*size)];
            let batch = if *hidden {
                Batch::hidden(offset, 0, 0, body.into())
            } else {
                records(*count, 1000 + offset, &body, Compression::None)
            };
            let index = (self.entries.len() + i) as u64;
            let entry = crate::support::place(batch, self.term, index, offset);
            offset = entry.batch.header.next_offset();
            new.push(entry);
        }
        let appended = self.log.append(&new).unwrap();
        assert_eq!(appended.log_end_offset, offset);
        self.entries.extend(new.into_iter().map(|e| Entry {
            term: e.term,
            index: e.raft_index,
            batch: e.batch,
        }));
    }

    fn truncate(&mut self, n: usize) {
        let keep = if self.entries.is_empty() {
            0
        } else {
            self.entries.len() - n % self.entries.len().min(8)
        };
        let result = self.log.truncate_after(keep.checked_sub(1).map(|i| i as u64));
        let next_offset = keep
            .checked_sub(1)
            .map_or(0, |i| self.entries[i].batch.header.next_offset());
        let purged = self.purged.is_some_and(|p| (keep as u64) <= p.index);
        if keep < self.entries.len() && (purged || next_offset < self.log_start) {
            assert!(matches!(
                result,
                Err(LogError::TruncatePurged { .. } | LogError::OffsetOutOfRange { .. })
            ));
            return;
        }
        result.unwrap();
        self.entries.truncate(keep);
        self.flushed = self.flushed.min(keep);
    }

    fn purge(&mut self, n: usize) {
        // Only what is durable is ever committed, and only what is committed is purged.
        if self.flushed == 0 {
            return;
        }
        let entry = &self.entries[n % self.flushed];
        let id = EntryId {
            term: entry.term,
            index: entry.index,
        };
        self.log.purge_to(id).unwrap();
        self.purged = self.purged.max(Some(id));
    }

    fn move_log_start(&mut self, n: u16) {
        let flushed_end = self.entries[..self.flushed]
            .last()
            .map_or(0, |e| e.batch.header.next_offset());
        let to = i64::from(n) % (flushed_end + 1);
        self.log.set_log_start(to).unwrap();
        self.log_start = self.log_start.max(to);
    }

    fn reopen(&mut self, previous: PreviousStop) {
        self.log = open_on(&self.disk, small(), self.stored, previous).0;
        assert_eq!(self.log.status(), LogStatus::Ready);
    }

    /// After a power loss some unsynced entries may be gone, but only from the end.
    fn lose_tail(&mut self) {
        let kept = self.log.end().last.map_or(0, |l| l.index + 1);
        let kept = usize::try_from(kept).unwrap();
        assert!(
            kept >= self.flushed,
            "{kept} entries left of {} flushed",
            self.flushed
        );
        assert!(kept <= self.entries.len());
        self.entries.truncate(kept);
    }

    fn check(&self) {
        let end = self.log.end();
        assert_eq!(end.log_end_offset, self.next_offset());
        assert_eq!(end.log_start_offset, self.log_start);
        assert_eq!(end.purged, self.purged);
        let last = self.entries.last().map(|e| EntryId {
            term: e.term,
            index: e.index,
        });
        assert_eq!(end.last, last);

        let first = usize::try_from(end.first_index).unwrap();
        let held = &self.entries[first..];
        assert_eq!(all_entries(&self.log), held);
        let heads = self
            .log
            .heads(end.first_index..self.entries.len() as u64)
            .unwrap();
        let expected: Vec<_> = held
            .iter()
            .map(|e| {
                (
                    e.term,
                    e.index,
                    e.batch.header.base_offset,
                    e.batch.header.is_hidden(),
                )
            })
            .collect();
        let found: Vec<_> = heads
            .iter()
            .map(|h| (h.term, h.index, h.base_offset, h.hidden))
            .collect();
        assert_eq!(found, expected);
        let hidden: Vec<Entry> = held
            .iter()
            .filter(|e| e.batch.header.is_hidden())
            .cloned()
            .collect();
        assert_eq!(self.log.hidden(0..u64::MAX).unwrap(), hidden);
        self.check_reads();
        self.check_epochs(first);
    }

    fn check_reads(&self) {
        let end = self.next_offset();
        for (from, limit) in [
            (self.log_start, end),
            (self.log_start + (end - self.log_start) / 2, end - 1),
        ] {
            let expected: Vec<u8> = self
                .entries
                .iter()
                .map(|e| &e.batch)
                .filter(|b| !b.header.is_hidden())
                .filter(|b| b.header.next_offset() > from && b.header.next_offset() <= limit)
                .flat_map(|b| b.header.encode().into_iter().chain(b.body.iter().copied()))
                .collect();
            for max_bytes in [1, 300, 5000] {
                assert!(
                    consume(&self.log, from, limit, max_bytes) == expected,
                    "read {from}..{limit}"
                );
            }
        }
        let below = self.log.read(self.log_start - 1, end, 1, true);
        assert!(matches!(below, Err(LogError::OffsetOutOfRange { .. })));
    }

    fn check_epochs(&self, first: usize) {
        let mut starts: Vec<(u32, u64)> = Vec::new();
        for e in &self.entries {
            if starts.last().is_none_or(|(term, _)| *term < e.term) {
                starts.push((e.term, e.index));
            }
        }
        // Epochs that ended below what is held may be forgotten, and so may be where the first known one began.
        let known = self.log.term_starts();
        let missing = starts.len() - known.len();
        assert_eq!(known.get(1..), starts.get(missing + 1..));
        if let (Some(known), Some(real)) = (known.first(), starts.get(missing)) {
            assert_eq!(known.0, real.0);
            assert!(known.1 == real.1 || (known.1 > real.1 && known.1 <= first as u64));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_log_behaves_as_a_vec_does(seed in any::<u64>(), ops in prop::collection::vec(op(), 1..40)) {
        let mut model = Model::new(seed);
        for op in &ops {
            model.apply(op);
            model.check();
        }
    }
}

#[test]
fn appends_that_do_not_continue_the_log_are_refused() {
    let disk = SimDisk::new(1);
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    crate::support::fill(&log, 3);
    let good = crate::support::data(&log, 1, 2, 10);
    let refused = |change: &dyn Fn(&mut takhin_storage::NewEntry)| {
        let mut bad = good.clone();
        change(&mut bad);
        log.append(&[bad]).unwrap_err()
    };
    assert!(matches!(
        refused(&|e| e.raft_index += 1),
        LogError::WrongIndex {
            expected: 3,
            found: 4
        }
    ));
    assert!(matches!(
        refused(&|e| e.batch.header.base_offset -= 1),
        LogError::WrongOffset { .. }
    ));
    let backwards = |e: &mut takhin_storage::NewEntry| {
        (e.term, e.batch.header.partition_leader_epoch) = (0, 0);
    };
    assert!(matches!(
        refused(&backwards),
        LogError::TermBackwards {
            last: 1,
            found: 0,
            ..
        }
    ));
    assert!(matches!(refused(&|e| e.term = 2), LogError::Malformed { .. }));
    assert!(matches!(
        refused(&|e| e.batch.header.batch_length += 1),
        LogError::Malformed { .. }
    ));
    assert!(matches!(
        refused(&|e| e.batch.header.last_offset_delta = -1),
        LogError::Malformed { .. }
    ));
    assert_eq!(log.append(&[good]).unwrap().log_end_offset, 8);
}
