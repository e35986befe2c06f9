//! Recovery: a log directory damaged at will opens, or says why not; it never invents records, and opening it
//! twice changes nothing more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use takhin_protocol::record::{Batch, BatchBuilder, Compression, NewRecord, scan};
use takhin_runtime::disk::{Disk, OpenMode};
use takhin_runtime::sim::SimDisk;
use takhin_storage::{
    CleanLimits, CleanRules, CleanStep, Log, LogOptions, LogStatus, NewEntry, PreviousStop, StorageContext,
};

const DIR: &str = "/data/partitions/t-0";

/// Entries of the undamaged log: some data, one hidden, over several segments.
const ENTRIES: u8 = 12;

/// Position of the CRC in a batch.
const CRC_AT: usize = 17;

/// One change to one file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Which file, by position in the sorted directory, modulo their number.
    file: u8,
    /// Where, modulo the file's length and one.
    at: u16,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Overwrite(u8),
    Cut,
    Remove,
}

/// Reads `data` as changes of five bytes each: file, position (big-endian), kind, value.
pub fn steps(data: &[u8]) -> Vec<Step> {
    let step = |bytes: &[u8]| Step {
        file: bytes[0],
        at: u16::from_be_bytes([bytes[1], bytes[2]]),
        kind: match bytes[3] {
            0..=239 => Kind::Overwrite(bytes[4]),
            240..=251 => Kind::Cut,
            252..=255 => Kind::Remove,
        },
    };
    data.chunks_exact(5).map(step).collect()
}

/// Writes a log, changes its files as `data` says, and opens it. The first byte says how the process stopped, how much
/// was known to be durable, and whether the log was compacted.
///
/// # Panics
/// When a record comes back that was never written, when entries are out of order, or when a second opening finds
/// something else than the first.
pub fn segment_recovery(data: &[u8]) {
    let Some((mode, changes)) = data.split_first() else {
        return;
    };
    let disk = SimDisk::new(1);
    let previous = match mode & 3 {
        0 => PreviousStop::Clean,
        1 => PreviousStop::PowerLoss,
        _ => PreviousStop::Killed,
    };
    let compacted = mode & 8 != 0;
    let (written, checkpoint) = write_log(&disk, matches!(previous, PreviousStop::Clean), compacted);
    let checkpoint = (mode & 4 == 0).then_some(checkpoint);
    for step in steps(changes).into_iter().take(64) {
        change(&disk, step);
    }
    let Some(first) = open(&disk, checkpoint, previous) else {
        return;
    };
    for (index, batch) in &first.entries {
        // Base offset, length and leader epoch lie outside the CRC; what is inside it is what was written.
        let original = written.entries.get(usize::try_from(*index).unwrap_or(usize::MAX));
        assert_eq!(
            original.map(|bytes| &bytes[CRC_AT..]),
            Some(&batch[CRC_AT..]),
            "entry {index} was never written"
        );
    }
    for batch in &first.served {
        assert!(
            written.served.contains(batch),
            "a batch is served that was never written"
        );
    }
    // What recovery left must satisfy recovery.
    if first.ready {
        let second = open(&disk, checkpoint, previous);
        assert_eq!(
            second.as_ref(),
            Some(&first),
            "a second opening finds something else"
        );
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Opened {
    ready: bool,
    entries: Vec<(u64, Bytes)>,
    /// What the checksums cover of the batches that are read by offset and pass them.
    served: Vec<Bytes>,
}

/// What the undamaged log holds.
struct Written {
    /// By raft index.
    entries: Vec<Bytes>,
    /// What the checksums cover of all batches, as appended and as compacted.
    served: BTreeSet<Bytes>,
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 600,
        index_interval_bytes: 100,
        head_ring: 4,
        ..LogOptions::default()
    }
}

fn context(disk: &SimDisk) -> StorageContext {
    StorageContext::with_open_segments(Arc::new(disk.incarnation()), 2)
}

/// What was written, and the watermark half-way.
fn write_log(disk: &SimDisk, clean: bool, compacted: bool) -> (Written, takhin_storage::Checkpoint) {
    let opened = Log::open(
        &context(disk),
        Path::new(DIR),
        options(),
        None,
        PreviousStop::Clean,
    );
    let (log, _) = opened.unwrap_or_else(|error| panic!("an empty directory does not open: {error}"));
    let log = Arc::new(log);
    let mut entries = Vec::new();
    let mut checkpoint = log.checkpoint();
    for n in 0..ENTRIES {
        let end = log.end();
        let raft_index = end.last.map_or(0, |last| last.index + 1);
        let mut batch = if n == 3 {
            hidden(end.log_end_offset)
        } else {
            records(n)
        };
        batch.header.base_offset = end.log_end_offset;
        batch.header.partition_leader_epoch = 1;
        entries.push(batch.to_bytes());
        log.append(&[NewEntry {
            term: 1,
            raft_index,
            batch,
        }])
        .unwrap_or_else(|error| panic!("append: {error}"));
        if n == ENTRIES / 2 {
            checkpoint = log.flush().unwrap_or_else(|error| panic!("flush: {error}"));
        }
    }
    if compacted {
        compact(&log);
    }
    if clean {
        checkpoint = log.close().unwrap_or_else(|error| panic!("close: {error}"));
    }
    let mut served: BTreeSet<Bytes> = entries.iter().map(|bytes| bytes.slice(CRC_AT..)).collect();
    served.extend(read(&log));
    (Written { entries, served }, checkpoint)
}

/// Two passes, the second one tidying up after the first.
fn compact(log: &Arc<Log>) {
    let rules = CleanRules {
        min_compaction_lag_ms: 0,
        max_compaction_lag_ms: i64::MAX,
        delete_retention_ms: 0,
        min_dirty_ratio: 0.0,
    };
    let limits = CleanLimits {
        map_bytes: 240,
        max_inflated: 1 << 16,
        seed: 1,
    };
    for _ in 0..2 {
        let last = log.flush().unwrap_or_else(|error| panic!("flush: {error}")).last;
        if let Some(last) = last {
            log.purge_to(last)
                .unwrap_or_else(|error| panic!("purge: {error}"));
        }
        let due = log.cleanable(&rules, 0, i64::MAX);
        let Some(due) = due.unwrap_or_else(|error| panic!("look: {error}")) else {
            return;
        };
        let Some(mut pass) = log.clean(&due, rules, &limits, 0) else {
            return;
        };
        while let CleanStep::More { .. } = pass.step().unwrap_or_else(|error| panic!("clean: {error}")) {}
    }
}

/// What the checksums cover of the batches that a consumer gets and that pass them, up to the first error.
fn read(log: &Log) -> Vec<Bytes> {
    let mut served = Vec::new();
    let end = log.end();
    let mut from = end.log_start_offset;
    while let Ok(found) = log.read(from, end.log_end_offset, 1 << 20, true) {
        if found.next_offset <= from {
            break;
        }
        from = found.next_offset;
        let Ok(bytes) = found.read_all() else { break };
        let mut rest = Bytes::from(bytes);
        while let Ok((_, len)) = scan::check(&rest) {
            served.push(rest.split_to(len).slice(CRC_AT..));
        }
    }
    served
}

fn hidden(offset: i64) -> Batch {
    Batch::hidden(offset, 1, 0, Bytes::from_static(b"membership"))
}

fn records(n: u8) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None);
    for i in 0..=(n % 3) {
        let value = [n; 40];
        builder.push(NewRecord {
            timestamp: i64::from(n) + i64::from(i),
            key: Some(&[(n + i) % 5]),
            value: Some(&value),
            ..NewRecord::default()
        });
    }
    builder.build().unwrap_or_else(|error| panic!("build: {error}"))
}

fn change(disk: &SimDisk, step: Step) {
    let disk = disk.incarnation();
    let Ok(mut names) = disk.read_dir(Path::new(DIR)) else {
        return;
    };
    names.retain(|entry| !entry.is_dir);
    if names.is_empty() {
        return;
    }
    let entry = &names[usize::from(step.file) % names.len()];
    let path = PathBuf::from(DIR).join(&entry.name);
    let at = u64::from(step.at) % (entry.len + 1);
    let file = disk
        .open(&path, OpenMode::Write)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let done = match step.kind {
        Kind::Overwrite(value) => file.write_at(&mut [std::io::IoSlice::new(&[value])], at),
        Kind::Cut => file.set_len(at),
        Kind::Remove => disk.remove_file(&path),
    };
    done.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Opens the log and reads all of it; `None` when it says that it cannot be opened.
fn open(
    disk: &SimDisk,
    checkpoint: Option<takhin_storage::Checkpoint>,
    previous: PreviousStop,
) -> Option<Opened> {
    let (log, _) = Log::open(&context(disk), Path::new(DIR), options(), checkpoint, previous).ok()?;
    let ready = matches!(log.status(), LogStatus::Ready);
    let end = log.end();
    let past = end.last.map_or(0, |last| last.index + 1);
    let mut entries = Vec::new();
    // Damage inside a segment that recovery need not read shows when it is read, as an error.
    if let Ok(read) = log.entries(end.first_index..past, usize::MAX) {
        assert!(
            read.windows(2).all(|pair| pair[0].index + 1 == pair[1].index),
            "a gap"
        );
        entries = read
            .into_iter()
            .map(|entry| (entry.index, entry.batch.to_bytes()))
            .collect();
    }
    let served = read(&log);
    Some(Opened {
        ready,
        entries,
        served,
    })
}
