//! Timestamps, retention, and what a clean start reads.

use std::path::Path;
use std::sync::Arc;

use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
use takhin_runtime::sim::{Fault, FaultRule, Op, SimDisk, When};
use takhin_storage::{DumpItem, EntryId, Log, LogOptions, PreviousStop, StorageContext, dump};

use crate::support::{DIR, all_entries, fill, hidden, next_entry, open_on, records, small};

/// Appends one batch with the given timestamps and returns each record's (offset, timestamp).
fn append_at(log: &Log, codec: Compression, timestamps: &[i64]) -> Vec<(i64, i64)> {
    let mut builder = BatchBuilder::new(codec);
    for timestamp in timestamps {
        builder.push(NewRecord {
            timestamp: *timestamp,
            value: Some(b"value"),
            ..NewRecord::default()
        });
    }
    let base = log.end().log_end_offset;
    log.append(&[next_entry(log, 1, builder.build().unwrap())])
        .unwrap();
    (base..).zip(timestamps.iter().copied()).collect()
}

#[test]
fn timestamps_are_found_at_record_granularity_as_a_linear_search_would() {
    let disk = SimDisk::new(1);
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    let mut all = Vec::new();
    let codecs = [
        Compression::None,
        Compression::Lz4,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Zstd,
    ];
    for i in 0..60_i64 {
        // Out of order within batches and across them.
        let t = 1000 + i * 10 - (i % 7) * 25;
        let codec = codecs[usize::try_from(i).unwrap() % codecs.len()];
        all.extend(append_at(&log, codec, &[t, t + 40, t - 5, t + 3]));
        if i % 9 == 0 {
            log.append(&[hidden(&log, 1, b"x")]).unwrap();
        }
    }
    log.flush().unwrap();
    assert!(log.stats().segments.len() > 4);
    for start in [0, 30, 101] {
        log.set_log_start(start).unwrap();
        let visible: Vec<_> = all
            .iter()
            .copied()
            .filter(|(offset, _)| *offset >= start)
            .collect();
        for t in (800..1800).step_by(3) {
            let expected = visible.iter().copied().find(|(_, timestamp)| *timestamp >= t);
            assert_eq!(
                log.offset_for_timestamp(t).unwrap(),
                expected,
                "from {start}, at {t}"
            );
        }
        let largest = visible.iter().map(|(_, t)| *t).max();
        let expected = visible.iter().copied().find(|(_, t)| Some(*t) == largest);
        assert_eq!(log.max_timestamp().unwrap(), expected);
    }
    log.set_log_start(all.len() as i64).unwrap();
    assert_eq!(
        (log.max_timestamp().unwrap(), log.offset_for_timestamp(0).unwrap()),
        (None, None)
    );
}

#[test]
fn retention_goes_by_record_time_and_keeps_at_least_the_bytes() {
    let disk = SimDisk::new(1);
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    fill(&log, 40);
    let stats = log.stats();
    assert!(stats.segments.len() >= 5);
    let end = log.end().log_end_offset;
    assert_eq!(
        log.retention_point(i64::MAX, -1, -1, end).unwrap(),
        None,
        "no limit"
    );
    // Records have the time 1000 + offset: just after the first segment's last record has expired.
    let first_end = stats.segments[0].end.base_offset;
    let now = 1000 + first_end - 1 + 50;
    assert_eq!(log.retention_point(now, 50, -1, end).unwrap(), None);
    assert_eq!(
        log.retention_point(now + 1, 50, -1, end).unwrap(),
        Some(first_end)
    );
    assert_eq!(
        log.retention_point(now + 1, 50, -1, first_end - 1).unwrap(),
        None,
        "never past the limit"
    );
    let without_two = stats.bytes - stats.segments[0].bytes - stats.segments[1].bytes;
    let keep = |bytes: u64| {
        log.retention_point(0, -1, i64::try_from(bytes).unwrap(), end)
            .unwrap()
    };
    assert_eq!(keep(without_two), Some(stats.segments[1].end.base_offset));
    assert_eq!(keep(without_two + 1), Some(first_end));
    assert_eq!(keep(stats.bytes), None);

    // Deletion waits for the purge point, readers keep what they hold, and nothing comes back.
    log.flush().unwrap();
    let held = log.read(0, end, 300, true).unwrap();
    log.set_log_start(stats.segments[1].end.base_offset).unwrap();
    assert_eq!(log.stats().segments.len(), stats.segments.len());
    log.purge_to(EntryId {
        term: 1,
        index: stats.segments[0].end.first_index - 1,
    })
    .unwrap();
    assert_eq!(log.stats().segments[0].id, stats.segments[1].id);
    assert_eq!(log.end().first_index, stats.segments[1].id.first_index);
    assert!(!held.read_all().unwrap().is_empty());
    let entries = all_entries(&log);
    let end = log.close().unwrap();
    drop(log);
    let (log, report) = open_on(&disk, small(), Some(end), PreviousStop::Clean);
    assert_eq!((all_entries(&log), report.actions), (entries, vec![]));
    // The active segment can expire too once it is rolled.
    let last = log.end().log_end_offset;
    assert!(!log.roll_if_expired(1000).unwrap());
    assert!(log.roll_if_expired(i64::MAX).unwrap());
    assert_eq!(log.retention_point(i64::MAX, 0, -1, last).unwrap(), Some(last));
}

#[test]
fn a_clean_start_of_ten_thousand_segments_reads_a_handful_of_files() {
    let disk = SimDisk::new(1);
    let tiny = LogOptions {
        segment_bytes: 1,
        ..LogOptions::default()
    };
    let (log, _) = open_on(&disk, tiny, None, PreviousStop::Clean);
    for i in 0..10_000 {
        let batch = records(1, 1000, b"", Compression::None);
        log.append(&[next_entry(&log, 1, batch)]).unwrap();
        if i % 500 == 0 {
            log.flush().unwrap();
        }
    }
    let end = log.close().unwrap();
    drop(log);
    // State, list of segments, snapshot, both indexes of the active segment, and that segment for writing.
    for (op, path, nth) in [(Op::Read, ".log", 1), (Op::Read, "", 6), (Op::Open, "", 7)] {
        disk.arm(FaultRule {
            op,
            path: path.into(),
            when: When::Nth(nth),
            fault: Fault::Eio,
        });
    }
    let (log, report) = open_on(&disk, tiny, Some(end), PreviousStop::Clean);
    disk.clear_faults();
    assert_eq!((report.actions, report.scanned_bytes), (vec![], 0));
    assert_eq!(log.stats().segments.len(), 10_000);
    for offset in [0, 5000, 9_998] {
        let found = log.read(offset, offset + 1, 1000, true).unwrap();
        assert_eq!((found.next_offset, found.ranges.len()), (offset + 1, 1));
    }
}

#[test]
fn a_dump_shows_every_batch_and_what_is_wrong_with_it() {
    let disk = SimDisk::new(1);
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    fill(&log, 10);
    log.append(&[hidden(&log, 2, b"x")]).unwrap();
    fill_term(&log, 2);
    let entries = all_entries(&log);
    let first = log.stats().segments[0].id.file_name("log");
    disk.corrupt(Path::new(DIR).join(first), 80).unwrap();
    let shared: Arc<dyn takhin_runtime::Disk> = Arc::new(disk.clone());
    let mut batches = Vec::new();
    let mut segments = 0;
    dump(&shared, Path::new(DIR), |item| {
        match item {
            DumpItem::Segment { .. } => segments += 1,
            DumpItem::Batch(batch) => batches.push(batch),
            DumpItem::Unreadable { .. } => panic!("all headers are fine"),
        }
        true
    })
    .unwrap();
    assert_eq!(segments, log.stats().segments.len());
    assert_eq!(batches.len(), entries.len());
    for (batch, entry) in batches.iter().zip(&entries) {
        assert_eq!(
            (batch.raft_index, batch.header),
            (Some(entry.index), entry.batch.header)
        );
        assert_eq!(batch.crc_ok, entry.index != 0);
        assert_eq!(batch.hidden, entry.index == 10);
    }
}

fn fill_term(log: &Log, term: u32) {
    log.append(&[crate::support::data(log, term, 3, 20)]).unwrap();
}

#[test]
fn few_segments_stay_open() {
    let disk = SimDisk::new(1);
    let cx = StorageContext::with_open_segments(Arc::new(disk.incarnation()), 3);
    let (log, _) = Log::open(&cx, Path::new(DIR), small(), None, PreviousStop::Clean).unwrap();
    fill(&log, 100);
    let end = log.end().log_end_offset;
    for _ in 0..2 {
        let mut from = 0;
        while from < end {
            from = log.read(from, end, 100, true).unwrap().next_offset;
        }
    }
    assert!(log.stats().segments.len() > 10);
    assert!(cx.open_segments() <= 3);
}
