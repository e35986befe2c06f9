//! A data directory that was written once and must open forever.
//!
//! When a format gets a new version, the old directory stays and a new one is added beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
use takhin_protocol::{PartitionIndex, TopicId, TopicPartition};
use takhin_runtime::sim::SimDisk;
use takhin_runtime::{Disk, OpenMode, RealDisk};
use takhin_storage::{DataDir, EntryId, EpochStart, Expected, Log, LogManager, PreviousStop, StorageContext};

use crate::compaction::{LIMITS, clean};
use crate::support::{all_entries, consume, hidden, next_entry, small};

/// Below the crate, which is where cargo runs tests. Version 1 of all formats.
const V1: &str = "tests/it/golden/v1";

/// Version 2 of `state` and `.index`: the same entries, compacted.
const V2: &str = "tests/it/golden/v2";

fn partition() -> TopicPartition {
    let topic_id = TopicId("9f5c1a52-3c35-4e6a-8f0e-6e0c9d2b7a11".parse().unwrap());
    TopicPartition {
        topic_id,
        partition: PartitionIndex(3),
    }
}

fn expected() -> Expected {
    let new_directory_id = "0e1d6b0a-5a7b-4f7e-9a53-2f1f0f6f0b01".parse().unwrap();
    Expected {
        node_id: 4,
        cluster_id: Some("golden".into()),
        new_directory_id,
        now_ms: 1_790_000_000_000,
    }
}

/// Copies all files below `from` to another disk.
fn copy(from: &dyn Disk, source: &Path, to: &dyn Disk, target: &Path) {
    to.create_dir_all(target).unwrap();
    for entry in from.read_dir(source).unwrap() {
        let (source, target) = (source.join(&entry.name), target.join(&entry.name));
        if entry.is_dir {
            copy(from, &source, to, &target);
            continue;
        }
        let mut bytes = vec![0; usize::try_from(entry.len).unwrap()];
        from.open(&source, OpenMode::Read)
            .unwrap()
            .read_exact_at(&mut bytes, 0)
            .unwrap();
        let file = to.open(&target, OpenMode::CreateOrWrite).unwrap();
        file.write_at(&mut [std::io::IoSlice::new(&bytes)], 0).unwrap();
    }
}

fn open(disk: &SimDisk) -> (DataDir, LogManager, Arc<Log>, usize) {
    let shared: Arc<dyn Disk> = Arc::new(disk.incarnation());
    let dir = DataDir::open(shared.clone(), Path::new("/data"), &expected()).unwrap();
    let cx = StorageContext::new(shared);
    let logs = LogManager::new(cx, dir.partitions(), dir.journal().clone(), dir.previous_stop()).unwrap();
    let (log, report) = logs.open(partition(), small()).unwrap();
    let actions = report.actions.len();
    (dir, logs, log, actions)
}

fn write_entries(log: &Log) {
    for i in 0..24_i32 {
        let term = 1 + u32::try_from(i / 10).unwrap();
        let entry = if i % 10 == 0 {
            hidden(log, term, b"membership of nodes 1, 2 and 3")
        } else {
            let codec =
                [Compression::None, Compression::Lz4, Compression::Zstd][usize::try_from(i).unwrap() % 3];
            let mut builder = BatchBuilder::new(codec).producer(7000 + i64::from(i % 2), 1, i);
            for key in [b"a", b"b"] {
                let timestamp = 1_790_000_000_000 + i64::from(i);
                builder.push(NewRecord {
                    timestamp,
                    key: Some(key),
                    value: Some(&[b'v'; 70]),
                    headers: &[],
                });
            }
            next_entry(log, term, builder.build().unwrap())
        };
        log.append(&[entry]).unwrap();
    }
}

/// One pass over everything but the active segment.
fn compact(log: &Arc<Log>) {
    log.flush().unwrap();
    log.purge_to(EntryId { term: 3, index: 22 }).unwrap();
    assert!(clean(log, &LIMITS, 1_790_000_100_000).unwrap().is_some());
}

/// `cargo test -p takhin-storage --test it -- --ignored write_the_golden`, for a new version of a format only; the
/// directory of the version before is not to change.
#[test]
#[ignore = "writes the files that the other tests read"]
fn write_the_golden_directory() {
    let disk = SimDisk::new(1);
    let (dir, logs, log, _) = open(&disk);
    write_entries(&log);
    log.flush().unwrap();
    log.truncate_after(Some(22)).unwrap();
    compact(&log);
    dir.journal()
        .put(&[(b"vote/1".to_vec(), Some(b"term 3".to_vec()))], true)
        .unwrap();
    assert!(logs.close_all().unwrap());
    dir.close().unwrap();
    RealDisk.create_dir_all(Path::new(V2)).unwrap();
    copy(&disk, Path::new("/data"), &RealDisk, &PathBuf::from(V2));
}

#[test]
fn the_golden_directory_opens_without_rebuilding_anything() {
    let disk = SimDisk::new(2);
    copy(&RealDisk, Path::new(V1), &disk, Path::new("/data"));
    let (dir, logs, log, actions) = open(&disk);
    assert_eq!((dir.previous_stop(), actions), (PreviousStop::Clean, 0));
    assert_eq!(
        (dir.meta().node_id, dir.meta().cluster_id.as_str()),
        (4, "golden")
    );
    assert_eq!(dir.meta().directory_id, expected().new_directory_id);
    assert_eq!(dir.journal().get(b"vote/1"), Some(b"term 3".to_vec()));
    assert_eq!(logs.on_disk().unwrap(), [partition()]);

    // The same entries, written now.
    let other = SimDisk::new(3);
    let (fresh, _) = crate::support::open_on(&other, small(), None, PreviousStop::Clean);
    write_entries(&fresh);
    fresh.truncate_after(Some(22)).unwrap();
    assert_eq!(all_entries(&log), all_entries(&fresh));
    assert_eq!(log.stats(), fresh.stats());
    assert_eq!(log.producers(), fresh.producers());
    let starts = [(1, 0, 0), (2, 10, 18), (3, 20, 36)];
    let starts = starts.map(|(epoch, first_index, first_offset)| EpochStart {
        epoch,
        first_index,
        first_offset,
    });
    assert_eq!(log.epochs(), starts);
    assert_eq!(log.hidden(0..u64::MAX).unwrap().len(), 3);
    assert_eq!(log.max_timestamp().unwrap(), Some((38, 1_790_000_000_022)));
    assert!(log.verify(0..i64::MAX).unwrap().findings.is_empty());
    log.append(&[hidden(&log, 4, b"goes on")]).unwrap();
}

#[test]
fn the_compacted_golden_directory_opens_without_rebuilding_anything() {
    let disk = SimDisk::new(2);
    copy(&RealDisk, Path::new(V2), &disk, Path::new("/data"));
    let (dir, _, log, actions) = open(&disk);
    assert_eq!((dir.previous_stop(), actions), (PreviousStop::Clean, 0));

    // The same entries, written and compacted now.
    let other = SimDisk::new(3);
    let (fresh, _) = crate::support::open_on(&other, small(), None, PreviousStop::Clean);
    let fresh = Arc::new(fresh);
    write_entries(&fresh);
    fresh.truncate_after(Some(22)).unwrap();
    compact(&fresh);
    assert_eq!(consume(&log, 0, 40, 1000), consume(&fresh, 0, 40, 1000));
    assert_eq!(log.stats(), fresh.stats());
    assert_eq!(log.producers(), fresh.producers());
    assert_eq!(log.epochs(), fresh.epochs());
    assert_eq!(log.end(), fresh.end());
    assert!(log.end().first_index > 0, "nothing was compacted");
    assert_eq!(
        log.cleanable(&crate::compaction::RULES, 0, i64::MAX).unwrap(),
        None
    );
    assert!(log.verify(0..i64::MAX).unwrap().findings.is_empty());
    log.append(&[hidden(&log, 4, b"goes on")]).unwrap();
}
