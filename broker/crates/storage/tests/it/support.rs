//! Batches and logs for the tests of this crate.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use takhin_protocol::record::{Batch, BatchBuilder, Compression, NewRecord};
use takhin_runtime::sim::SimDisk;
use takhin_storage::{
    Checkpoint, Entry, Log, LogOptions, NewEntry, PreviousStop, RecoveryReport, StorageContext,
};

pub(crate) const DIR: &str = "/data/partitions/t-0";

/// Small segments and a dense index, so that short tests cross their boundaries.
pub(crate) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 1500,
        index_interval_bytes: 200,
        head_ring: 8,
        ..LogOptions::default()
    }
}

pub(crate) fn open_on(
    disk: &SimDisk,
    options: LogOptions,
    checkpoint: Option<Checkpoint>,
    previous: PreviousStop,
) -> (Log, RecoveryReport) {
    let cx = StorageContext::with_open_segments(Arc::new(disk.incarnation()), 2);
    Log::open(&cx, Path::new(DIR), options, checkpoint, previous).unwrap()
}

/// A batch of `records` real records, the first at `timestamp`, each one millisecond later.
pub(crate) fn records(count: u8, timestamp: i64, value: &[u8], codec: Compression) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    for i in 0..count {
        builder.push(NewRecord {
            timestamp: timestamp + i64::from(i),
            value: Some(value),
            ..NewRecord::default()
        });
    }
    builder.build().unwrap()
}

/// The entry that continues `log` with `batch`.
pub(crate) fn next_entry(log: &Log, term: u32, batch: Batch) -> NewEntry {
    let end = log.end();
    place(
        batch,
        term,
        end.last.map_or(0, |l| l.index + 1),
        end.log_end_offset,
    )
}

pub(crate) fn place(mut batch: Batch, term: u32, index: u64, offset: i64) -> NewEntry {
    batch.header.base_offset = offset;
    batch.header.partition_leader_epoch = i32::try_from(term).unwrap();
    NewEntry {
        term,
        raft_index: index,
        batch,
    }
}

pub(crate) fn data(log: &Log, term: u32, count: u8, size: usize) -> NewEntry {
    let at = log.end().log_end_offset;
    next_entry(
        log,
        term,
        records(count, 1000 + at, &vec![b'x'; size], Compression::None),
    )
}

pub(crate) fn hidden(log: &Log, term: u32, body: &'static [u8]) -> NewEntry {
    let end = log.end();
    next_entry(
        log,
        term,
        Batch::hidden(end.log_end_offset, 0, 0, Bytes::from_static(body)),
    )
}

/// Appends `count` small batches of term 1.
pub(crate) fn fill(log: &Log, count: usize) {
    for _ in 0..count {
        log.append(&[data(log, 1, 2, 50)]).unwrap();
    }
}

/// Every entry that the log holds.
pub(crate) fn all_entries(log: &Log) -> Vec<Entry> {
    let end = log.end();
    let next = end.last.map_or(0, |l| l.index + 1).max(end.first_index);
    let mut entries = Vec::new();
    let mut from = end.first_index;
    while from < next {
        // A small budget, so that many calls and many pieces are needed.
        let some = log.entries(from..next, 700).unwrap();
        assert!(!some.is_empty());
        from += some.len() as u64;
        entries.extend(some);
    }
    entries
}

/// Everything a consumer reads from `from` up to `limit`, in pieces of at most `max_bytes`.
pub(crate) fn consume(log: &Log, mut from: i64, limit: i64, max_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let found = log.read(from, limit, max_bytes, true).unwrap();
        if found.bytes == 0 {
            return out;
        }
        assert!(found.next_offset > from);
        out.extend(found.read_all().unwrap());
        from = found.next_offset;
    }
}
