//! Compaction against a list of all records that were ever appended, through random operations and crashes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use takhin_protocol::record::{Attributes, Batch, BatchBuilder, Compression, NewRecord};
use takhin_runtime::disk::Disk;
use takhin_runtime::sim::{CrashMode, SimDisk};
use takhin_storage::{
    Checkpoint, CleanLimits, CleanStep, EpochStart, Log, LogError, LogStatus, NewEntry, PreviousStop,
};

use super::{LIMITS, RETENTION, RULES, Raw, Seen, clean, purge, read, small};
use crate::support::{DIR, next_entry, open_on};

/// One record to append: key (0 is null), whether it has a value.
type NewRec = (u8, bool);

#[derive(Debug, Clone)]
pub(super) enum Step {
    Append {
        records: Vec<NewRec>,
        codec: u8,
        producer: u8,
    },
    Term,
    Roll,
    Clean {
        map_bytes: u16,
        wait: u16,
    },
    /// A pass that is dropped after so many steps.
    Begin(u8),
    Truncate(u8),
    LogStart(u16),
    Flush,
    Store,
    Reopen,
    /// All that is a cache goes, then the process is killed.
    LoseCaches,
    Kill,
    PowerLoss,
}

fn step() -> impl Strategy<Value = Step> {
    let records = prop::collection::vec((0..7_u8, prop::bool::weighted(0.75)), 1..6);
    prop_oneof![
        10 => (records, 0..5_u8, 0..4_u8)
            .prop_map(|(records, codec, producer)| Step::Append { records, codec, producer }),
        1 => Just(Step::Term),
        2 => Just(Step::Roll),
        4 => (prop_oneof![3 => Just(u16::MAX), 1 => 0..200_u16], 0..1500_u16)
            .prop_map(|(map_bytes, wait)| Step::Clean { map_bytes, wait }),
        1 => (0..20_u8).prop_map(Step::Begin),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u16>().prop_map(Step::LogStart),
        2 => Just(Step::Flush),
        2 => Just(Step::Store),
        1 => Just(Step::Reopen),
        1 => Just(Step::LoseCaches),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerLoss),
    ]
}

pub(super) struct Model {
    pub(super) disk: SimDisk,
    pub(super) log: Arc<Log>,
    /// Every record appended and not truncated, by offset.
    pub(super) records: BTreeMap<i64, Seen>,
    /// The same as batches.
    pub(super) batches: BTreeMap<i64, Vec<u8>>,
    /// First offset that no pass has looked at.
    pub(super) first_dirty: i64,
    /// When a pass first looked at a tombstone.
    pub(super) covered_at: BTreeMap<i64, i64>,
    /// When the last pass began.
    pub(super) last_pass: i64,
    pub(super) stored: Option<Checkpoint>,
    pub(super) flushed: i64,
    pub(super) sequences: BTreeMap<u8, i32>,
    /// Where each term began.
    pub(super) starts: Vec<EpochStart>,
    pub(super) term: u32,
    pub(super) now: i64,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
        Self {
            disk,
            log: Arc::new(log),
            records: BTreeMap::new(),
            batches: BTreeMap::new(),
            first_dirty: 0,
            covered_at: BTreeMap::new(),
            last_pass: 0,
            stored: None,
            flushed: 0,
            sequences: BTreeMap::new(),
            starts: Vec::new(),
            term: 1,
            now: 1_000_000,
        }
    }

    pub(super) fn apply(&mut self, step: &Step) {
        self.now += 10;
        match step {
            Step::Append {
                records,
                codec,
                producer,
            } => self.append(records, *codec, *producer),
            Step::Term => {
                self.term += 1;
                let end = self.log.end().log_end_offset;
                let blank = Batch::hidden(end, 0, 0, bytes::Bytes::from_static(b"blank"));
                let blank = next_entry(&self.log, self.term, blank);
                self.log.append(std::slice::from_ref(&blank)).unwrap();
                self.note_term(&blank);
            }
            Step::Roll => drop(self.log.roll_now().unwrap()),
            Step::Clean { map_bytes, wait } => self.clean(*map_bytes, *wait),
            Step::Begin(steps) => self.begin(*steps),
            Step::Truncate(n) => self.truncate(u64::from(*n)),
            Step::LogStart(n) => {
                let end = self.log.end().log_end_offset;
                self.log.set_log_start(i64::from(*n) % (end + 1)).unwrap();
                self.log.flush().unwrap();
                self.flushed = end;
            }
            Step::Flush => {
                self.log.flush().unwrap();
                self.flushed = self.log.end().log_end_offset;
            }
            Step::Store => self.stored = Some(self.log.checkpoint()),
            Step::Reopen => {
                self.stored = Some(self.log.close().unwrap());
                self.flushed = self.log.end().log_end_offset;
                self.reopen(PreviousStop::Clean);
            }
            Step::LoseCaches => {
                lose_caches(&self.disk);
                self.disk.crash(CrashMode::Process);
                self.reopen(PreviousStop::Killed);
            }
            Step::Kill => {
                self.disk.crash(CrashMode::Process);
                self.reopen(PreviousStop::Killed);
            }
            Step::PowerLoss => {
                self.disk.crash(CrashMode::Power);
                self.reopen(PreviousStop::PowerLoss);
                let end = self.log.end().log_end_offset;
                assert!(end >= self.flushed, "flushed records are gone");
                self.forget_from(end);
            }
        }
    }

    fn append(&mut self, records: &[NewRec], codec: u8, producer: u8) {
        let codec = Compression::from_id(i16::from(codec)).unwrap();
        let mut builder = BatchBuilder::new(codec);
        if producer > 0 {
            let sequence = self.sequences.entry(producer).or_default();
            builder = builder.producer(i64::from(producer), 0, *sequence);
            *sequence += i32::try_from(records.len()).unwrap();
        }
        let at = self.log.end().log_end_offset;
        let mut new = Vec::new();
        for (i, (key, has_value)) in (0_i64..).zip(records) {
            // Long and much the same, so that codecs have something to do.
            let value = format!("value of {key} at {at} {}", "x".repeat(40)).into_bytes();
            new.push(Seen {
                timestamp: self.now + i * 3,
                key: (*key > 0).then(|| vec![*key; 5]),
                value: has_value.then_some(value),
            });
        }
        for record in &new {
            builder.push(NewRecord {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &[("h", Some(b"header"))],
            });
        }
        let entry = next_entry(&self.log, self.term, builder.build().unwrap());
        self.log.append(std::slice::from_ref(&entry)).unwrap();
        self.note_term(&entry);
        self.batches.insert(at, entry.batch.to_bytes().to_vec());
        self.records.extend((at..).zip(new));
    }

    fn note_term(&mut self, entry: &NewEntry) {
        if self.starts.last().is_none_or(|last| last.epoch < entry.term) {
            self.starts.push(EpochStart {
                epoch: entry.term,
                first_index: entry.raft_index,
                first_offset: entry.batch.header.base_offset,
            });
        }
    }

    pub(super) fn clean(&mut self, map_bytes: u16, wait: u16) {
        self.now += i64::from(wait);
        self.log.flush().unwrap();
        self.flushed = self.log.end().log_end_offset;
        purge(&self.log);
        let limits = CleanLimits {
            map_bytes: usize::from(map_bytes),
            ..LIMITS
        };
        let Some(report) = clean(&self.log, &limits, self.now).unwrap() else {
            return;
        };
        assert!(report.first_dirty > self.first_dirty, "a pass without progress");
        self.covered(report.first_dirty);
    }

    pub(super) fn covered(&mut self, first_dirty: i64) {
        self.first_dirty = first_dirty;
        self.last_pass = self.now;
        for (offset, record) in self.records.range(..first_dirty) {
            if record.value.is_none() {
                self.covered_at.entry(*offset).or_insert(self.now);
            }
        }
    }

    fn begin(&mut self, steps: u8) {
        self.log.flush().unwrap();
        self.flushed = self.log.end().log_end_offset;
        purge(&self.log);
        let Some(cleanable) = self.log.cleanable(&RULES, self.now, i64::MAX).unwrap() else {
            return;
        };
        let Some(mut pass) = self.log.clean(&cleanable, RULES, &LIMITS, self.now) else {
            return;
        };
        for _ in 0..steps {
            // What it has done so far is what a whole pass would have done to these segments.
            if let CleanStep::Done(report) = pass.step().unwrap() {
                self.covered(report.first_dirty);
                return;
            }
        }
    }

    fn truncate(&mut self, n: u64) {
        let end = self.log.end();
        let next = end.last.map_or(0, |l| l.index + 1);
        let keep = next.saturating_sub(n % 5);
        match self.log.truncate_after(keep.checked_sub(1)) {
            Ok(()) => {
                let end = self.log.end().log_end_offset;
                self.forget_from(end);
                self.flushed = self.flushed.min(end);
            }
            Err(error) => assert!(
                matches!(
                    error,
                    LogError::TruncatePurged { .. }
                        | LogError::OffsetOutOfRange { .. }
                        | LogError::IndexOutOfRange { .. }
                ),
                "{error}"
            ),
        }
    }

    fn forget_from(&mut self, end: i64) {
        let next = self.log.end().last.map_or(0, |l| l.index + 1);
        self.starts.retain(|s| s.first_index < next);
        self.records.split_off(&end);
        self.batches.split_off(&end);
        self.covered_at.split_off(&end);
    }

    pub(super) fn reopen(&mut self, previous: PreviousStop) {
        // Not its timestamp: that is of the records that are left.
        let last = |log: &Log| -> Vec<_> {
            let producers = log.producers();
            let last = producers.iter().map(|(id, producer)| {
                let b = producer.batches.back().unwrap();
                (
                    id,
                    producer.epoch,
                    b.first_sequence,
                    b.last_sequence,
                    b.last_offset,
                )
            });
            last.collect()
        };
        let producers = last(&self.log);
        let end = self.log.end();
        self.log = Arc::new(open_on(&self.disk, small(), self.stored, previous).0);
        assert_eq!(self.log.status(), LogStatus::Ready);
        if self.log.end().last == end.last {
            let kept = last(&self.log);
            let live = producers.iter().filter(|p| p.4 >= end.log_start_offset);
            for producer in live {
                assert!(kept.contains(producer), "{producer:?} is not in {kept:?}");
            }
        }
    }

    pub(super) fn check(&self) {
        let start = self.log.end().log_start_offset;
        let (found, batches) = read(&self.log, start);
        for (offset, record) in &found {
            assert_eq!(self.records.get(offset), Some(record), "offset {offset}");
        }
        let mut newest = BTreeMap::new();
        for (offset, record) in self.records.range(..self.first_dirty.max(0)) {
            newest.insert(record.key.clone(), *offset);
        }
        for (offset, record) in self.records.range(start..) {
            let is_last = record.key.is_some() && newest.get(&record.key) == Some(offset);
            if *offset >= self.first_dirty || (is_last && record.value.is_some()) {
                assert!(
                    found.contains_key(offset),
                    "offset {offset} is missing: {record:?}"
                );
            } else if is_last {
                let expired = self
                    .covered_at
                    .get(offset)
                    .is_some_and(|at| self.last_pass >= at + RETENTION);
                assert!(
                    expired || found.contains_key(offset),
                    "tombstone {offset} went early"
                );
            } else {
                assert!(
                    !found.contains_key(offset),
                    "offset {offset} is still there: {record:?}"
                );
            }
        }
        for (header, bytes) in &batches {
            let original = &self.batches[&header.base_offset];
            assert_eq!(bytes[12..16], original[12..16], "leader epoch");
            if bytes.len() == original.len() && !header.attributes.has(Attributes::DELETE_HORIZON) {
                assert_eq!(bytes, original);
            }
        }
        self.check_positions(start, &batches);
        // Epochs that ended below what is held may be forgotten, and so may be where the first known one began.
        let known = self.log.epochs();
        let missing = self.starts.len() - known.len();
        assert_eq!(known.get(1..), self.starts.get(missing + 1..));
        assert!(self.log.verify(0..i64::MAX).unwrap().findings.is_empty());
    }

    /// A read at any offset, in a hole or not, begins with the next batch there is; so does a look-up by time.
    fn check_positions(&self, start: i64, batches: &[Raw]) {
        let end = self.log.end().log_end_offset;
        let last = batches.last().map_or(start, |(h, _)| h.next_offset());
        assert!(
            last == end || self.records.range(start..).next().is_none(),
            "no way to the end"
        );
        for from in start..end {
            let expected = batches.iter().find(|(h, _)| h.next_offset() > from);
            let first = self.log.read(from, end, 1, true).unwrap();
            let bytes = first.read_all().unwrap();
            assert_eq!(Some(&bytes), expected.map(|(_, bytes)| bytes), "read at {from}");
        }
        let (found, _) = read(&self.log, start);
        let middle = self.now - 200;
        let expected = found
            .iter()
            .filter(|(offset, _)| **offset >= start)
            .find(|(_, r)| r.timestamp >= middle)
            .map(|(offset, r)| (*offset, r.timestamp));
        assert_eq!(self.log.offset_for_timestamp(middle).unwrap(), expected);
    }
}

pub(super) fn lose_caches(disk: &SimDisk) {
    for entry in disk.read_dir(Path::new(DIR)).unwrap() {
        if !entry.is_dir && !entry.name.ends_with(".log") && entry.name != "state" {
            disk.remove_file(&Path::new(DIR).join(&entry.name)).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 3000, ..ProptestConfig::default() })]

    #[test]
    fn the_last_record_of_each_key_stays(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..50)) {
        let mut model = Model::new(seed);
        for step in &steps {
            let may_be_ahead = matches!(step, Step::Begin(_));
            model.apply(step);
            if may_be_ahead {
                // Groups that an unfinished pass has replaced are ahead of the checkpoint; a whole one catches up.
                model.clean(u16::MAX, 0);
            }
            model.check();
        }
    }
}

/// A log with four segments of few keys, all but the active one durable and purged.
pub(super) fn prepared(disk: &SimDisk) -> Model {
    let (log, _) = open_on(disk, small(), None, PreviousStop::Clean);
    let mut model = Model {
        disk: disk.clone(),
        log: Arc::new(log),
        ..Model::new(0)
    };
    for i in 0..16_u8 {
        let records = [(1 + i % 3, true), (4 + i % 2, i % 5 != 0), (6, true)];
        model.apply(&Step::Append {
            records: records.to_vec(),
            codec: i % 5,
            producer: i % 3,
        });
    }
    model.stored = Some(model.log.flush().unwrap());
    model.flushed = model.log.end().log_end_offset;
    purge(&model.log);
    assert!(model.log.stats().segments.len() >= 4);
    model
}
