//! Compaction through the crate's public face.

mod faults;
mod model;
mod readers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use takhin_protocol::record::{
    Attributes, BatchBuilder, BatchHeader, Compression, HEADER_LEN, NewRecord, Records, decompress, scan,
};
use takhin_runtime::disk::Disk;
use takhin_runtime::sim::SimDisk;
use takhin_storage::{
    CleanLimits, CleanReport, CleanRules, CleanStep, DumpItem, EntryId, Log, LogError, LogOptions,
    PreviousStop, dump,
};

use self::model::{Model, Step, lose_caches, prepared};
use crate::support::{DIR, consume, next_entry, open_on};

/// How long tombstones stay, in milliseconds.
const RETENTION: i64 = 1000;

pub(crate) const RULES: CleanRules = CleanRules {
    min_compaction_lag_ms: 0,
    max_compaction_lag_ms: i64::MAX,
    delete_retention_ms: RETENTION,
    min_dirty_ratio: 0.0,
};

pub(crate) const LIMITS: CleanLimits = CleanLimits {
    map_bytes: 1 << 16,
    max_inflated: 1 << 20,
    seed: 7,
};

fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 900,
        index_interval_bytes: 150,
        head_ring: 8,
        ..LogOptions::default()
    }
}

/// A record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// A batch as it was sent.
type Raw = (BatchHeader, Vec<u8>);

/// Everything that a consumer reads from `from` on, with the batches it came in.
fn read(log: &Log, from: i64) -> (BTreeMap<i64, Seen>, Vec<Raw>) {
    let bytes = consume(log, from, log.end().log_end_offset, 400);
    let (mut records, mut batches) = (BTreeMap::new(), Vec::new());
    let mut rest = &bytes[..];
    let mut next = 0;
    while !rest.is_empty() {
        let (header, len) = scan::check(rest).unwrap();
        assert!(!header.is_hidden(), "a hidden entry was served");
        assert!(header.base_offset >= next, "offsets go back");
        next = header.next_offset();
        let codec = Compression::from_id(header.attributes.compression()).unwrap();
        let body = decompress(codec, &rest[HEADER_LEN..len], 1 << 20).unwrap();
        for record in Records::new(&body, header.records_count) {
            let record = record.unwrap();
            let offset = header.base_offset + i64::from(record.offset_delta);
            assert!(offset < next);
            let seen = Seen {
                timestamp: header.base_timestamp + record.timestamp_delta,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
            };
            records.insert(offset, seen);
        }
        batches.push((header, rest[..len].to_vec()));
        rest = &rest[len..];
    }
    (records, batches)
}

/// A whole pass; `None` if there is nothing to do.
pub(crate) fn clean(
    log: &Arc<Log>,
    limits: &CleanLimits,
    now_ms: i64,
) -> Result<Option<CleanReport>, LogError> {
    let Some(cleanable) = log.cleanable(&RULES, now_ms, i64::MAX)? else {
        return Ok(None);
    };
    assert!(cleanable.is_due(&RULES));
    let Some(mut pass) = log.clean(&cleanable, RULES, limits, now_ms) else {
        return Ok(None);
    };
    loop {
        if let CleanStep::Done(report) = pass.step()? {
            return Ok(Some(report));
        }
    }
}

fn purge(log: &Log) {
    let durable = log.checkpoint().last;
    if let Some(last) = durable {
        log.purge_to(last).unwrap();
    }
}

#[test]
fn small_segments_become_one_and_readers_finish_on_the_old_files() {
    let disk = SimDisk::new(4);
    let mut model = prepared(&disk);
    let everything = consume(&model.log, 0, i64::MAX, usize::MAX);
    let held = model.log.read(0, i64::MAX, usize::MAX, true).unwrap();
    let before = model.log.stats();
    model.clean(u16::MAX, 0);
    model.check();
    assert_eq!(
        model.log.stats().segments.last(),
        before.segments.last(),
        "the active segment was touched"
    );
    // Segments go together by their sizes before: those that the first pass made small, the next one puts together.
    model.apply(&Step::Roll);
    model.clean(u16::MAX, 0);
    model.check();
    let after = model.log.stats();
    assert!(after.segments.len() < before.segments.len() && after.bytes < before.bytes);
    assert_eq!(held.read_all().unwrap(), everything);
    assert_eq!(
        model.log.end().first_index,
        model.log.stats().segments.last().unwrap().id.first_index
    );
    let below = model.log.entries(0..1, 1000);
    assert!(matches!(below, Err(LogError::IndexOutOfRange { .. })));

    // Indexes of cleaned segments cannot be counted; everything else of a dump is as before.
    let mut indexes = Vec::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.incarnation());
    dump(&shared, Path::new(DIR), |item| {
        if let DumpItem::Batch(batch) = item {
            assert!(batch.crc_ok);
            indexes.push(batch.raft_index);
        }
        true
    })
    .unwrap();
    assert!(indexes.contains(&None));
}

#[test]
fn a_tombstone_goes_after_its_retention_and_a_live_producers_last_batch_stays_empty() {
    let disk = SimDisk::new(4);
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    let mut model = Model {
        disk: disk.clone(),
        log: Arc::new(log),
        ..Model::new(0)
    };
    let append = |model: &mut Model, key, has_value, producer| {
        model.apply(&Step::Append {
            records: vec![(key, has_value)],
            codec: 0,
            producer,
        });
    };
    append(&mut model, 1, true, 1);
    append(&mut model, 1, false, 2);
    append(&mut model, 2, true, 3);
    model.apply(&Step::Roll);
    append(&mut model, 2, true, 3);
    append(&mut model, 3, true, 0);
    model.apply(&Step::Roll);
    let offsets = |model: &Model| -> Vec<i64> { read(&model.log, 0).0.into_keys().collect() };
    model.clean(u16::MAX, 0);
    assert_eq!(offsets(&model), [1, 3, 4]);
    let (_, batches) = read(&model.log, 0);
    let (tombstone, _) = batches.iter().find(|(h, _)| h.base_offset == 1).unwrap();
    assert!(tombstone.attributes.has(Attributes::DELETE_HORIZON));
    assert_eq!(tombstone.base_timestamp, model.now + RETENTION);
    // Producer 1 is live, so its only batch is still there; producer 3 has a later one.
    let empty: Vec<i64> = batches
        .iter()
        .filter(|(h, _)| h.records_count == 0)
        .map(|(h, _)| h.base_offset)
        .collect();
    assert_eq!(empty, [0]);

    append(&mut model, 4, true, 0);
    model.apply(&Step::Roll);
    model.now -= 20;
    model.clean(u16::MAX, u16::try_from(RETENTION - 1).unwrap());
    assert_eq!(offsets(&model), [1, 3, 4, 5], "a moment too early");
    append(&mut model, 5, true, 0);
    model.apply(&Step::Roll);
    model.clean(u16::MAX, 1);
    assert_eq!(offsets(&model), [3, 4, 5, 6]);
    lose_caches(&disk);
    model.apply(&Step::Kill);
    assert_eq!(
        model
            .log
            .producers()
            .get(2)
            .unwrap()
            .batches
            .back()
            .unwrap()
            .first_sequence,
        0
    );
    model.check();
}

#[test]
fn what_is_too_large_to_be_read_stays_and_keeps_later_tombstones() {
    let disk = SimDisk::new(4);
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    let log = Arc::new(log);
    let append = |key: &[u8], value: Option<&[u8]>, codec| {
        let mut builder = BatchBuilder::new(codec);
        builder.push(NewRecord {
            timestamp: 1,
            key: Some(key),
            value,
            headers: &[],
        });
        log.append(&[next_entry(&log, 1, builder.build().unwrap())])
            .unwrap();
    };
    let limits = CleanLimits {
        max_inflated: 500,
        ..LIMITS
    };
    append(b"a", Some(b"small"), Compression::None);
    append(b"a", Some(&[7; 600]), Compression::Zstd);
    append(b"b", Some(&[7; 600]), Compression::None);
    append(b"a", None, Compression::None);
    for now_ms in [10, 10 + RETENTION, 10 + 2 * RETENTION] {
        append(b"b", Some(b"small"), Compression::None);
        log.roll_now().unwrap();
        log.flush().unwrap();
        purge(&log);
        let report = clean(&log, &limits, now_ms).unwrap().unwrap();
        assert_eq!(report.batches_unread, 2);
    }
    let kept: Vec<i64> = read(&log, 0).0.into_keys().collect();
    assert_eq!(
        kept,
        [1, 2, 3, 6],
        "the tombstone hides a value that could not be removed"
    );
}

#[test]
fn a_log_is_due_by_its_dirty_share_or_its_oldest_record() {
    let disk = SimDisk::new(4);
    let mut model = prepared(&disk);
    let end = model.log.end().log_end_offset;
    let rules = CleanRules {
        min_dirty_ratio: 0.9,
        ..RULES
    };
    let look =
        |model: &Model, rules: &CleanRules, now, limit| model.log.cleanable(rules, now, limit).unwrap();
    let all = look(&model, &rules, model.now, end).unwrap();
    assert!(all.is_due(&rules) && (all.ratio() - 1.0).abs() < 1e-9);
    // Neither above the limit nor younger than the lag.
    let first = model.log.stats().segments[0];
    let limited = look(&model, &rules, model.now, first.end.base_offset).unwrap();
    assert_eq!((limited.end, limited.dirty_bytes), (first.end, first.bytes));
    assert_eq!(look(&model, &rules, model.now, first.end.base_offset - 1), None);
    let lag = CleanRules {
        min_compaction_lag_ms: 1000,
        ..rules
    };
    assert_eq!(look(&model, &lag, model.now, end), None);
    assert!(look(&model, &lag, model.now + 2000, end).is_some());
    // Nothing that Raft may still ask for by index.
    let (log, _) = open_on(&SimDisk::new(5), small(), None, PreviousStop::Clean);
    let log = Arc::new(log);
    log.append(&[crate::support::data(&log, 1, 1, 10)]).unwrap();
    log.roll_now().unwrap();
    let unpurged = log.cleanable(&RULES, 0, i64::MAX).unwrap().unwrap();
    assert!(log.clean(&unpurged, RULES, &LIMITS, 0).is_none());
    log.purge_to(EntryId { term: 1, index: 0 }).unwrap();
    assert!(log.clean(&unpurged, RULES, &LIMITS, 0).is_some());

    model.clean(u16::MAX, 0);
    assert_eq!(look(&model, &rules, model.now, end), None);
    for _ in 0..3 {
        model.apply(&Step::Append {
            records: vec![(1, true)],
            codec: 0,
            producer: 0,
        });
    }
    model.apply(&Step::Roll);
    let end = model.log.end().log_end_offset;
    let some = look(&model, &rules, model.now, end).unwrap();
    assert!(some.ratio() < 0.9 && !some.is_due(&rules));
    let overdue = CleanRules {
        max_compaction_lag_ms: 100,
        ..rules
    };
    assert!(!look(&model, &overdue, model.now, end).unwrap().is_due(&overdue));
    assert!(
        look(&model, &overdue, model.now + 500, end)
            .unwrap()
            .is_due(&overdue)
    );
}
