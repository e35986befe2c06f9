//! Broken disks and broken files.

use std::path::{Path, PathBuf};

use takhin_protocol::record::Compression;
use takhin_runtime::disk::{Disk, OpenMode};
use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Op, SimDisk, When};
use takhin_storage::{
    Checkpoint, Damage, Entry, Log, LogError, LogStatus, PreviousStop, RecoveryAction, StorageContext,
};

use crate::support::{DIR, all_entries, consume, data, fill, hidden, open_on, place, records, small};

/// A log with several segments, its files, and the watermark in the middle of the last but one.
struct Broken {
    disk: SimDisk,
    watermark: Checkpoint,
    entries: Vec<Entry>,
    segments: Vec<(PathBuf, u64)>,
}

/// 40 batches, the first 18 durable, in several segments; all bytes on the medium.
fn prepared() -> Broken {
    let disk = SimDisk::new(5);
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    fill(&log, 18);
    let watermark = log.flush().unwrap();
    fill(&log, 22);
    log.flush().unwrap();
    let entries = all_entries(&log);
    drop(log);
    disk.crash(CrashMode::Process);
    let segments = segments(&disk);
    assert!(segments.len() >= 5 && watermark.position > 0);
    Broken {
        disk,
        watermark,
        entries,
        segments,
    }
}

fn segments(disk: &SimDisk) -> Vec<(PathBuf, u64)> {
    let entries = disk.read_dir(Path::new(DIR)).unwrap();
    let logs = entries.into_iter().filter(|e| e.name.ends_with(".log"));
    logs.map(|e| (Path::new(DIR).join(e.name), e.len)).collect()
}

impl Broken {
    fn open(&self, previous: PreviousStop) -> (Log, Vec<RecoveryAction>) {
        let (log, report) = open_on(&self.disk, small(), Some(self.watermark), previous);
        (log, report.actions)
    }

    /// The readable prefix is right, and appends are refused.
    fn assert_damaged(&self, log: &Log, kept: usize) {
        let LogStatus::Damaged(at) = log.status() else {
            panic!("the log opened as if nothing had happened")
        };
        assert_eq!(all_entries(log), self.entries[..kept]);
        let end = log.end().log_end_offset;
        assert_eq!(at.offset, end);
        let start = log.end().log_start_offset;
        let bytes: usize = self.entries[..kept]
            .iter()
            .map(|e| e.batch.header.total_len())
            .sum();
        assert_eq!(consume(log, start, end, 700).len(), bytes);
        assert!(matches!(
            log.append(&[data(log, 9, 1, 1)]),
            Err(LogError::Damaged { .. })
        ));
    }

    /// Cut after `kept` entries, saved, and the log goes on.
    fn assert_cut(&self, log: &Log, actions: &[RecoveryAction], kept: usize) {
        assert_eq!(log.status(), LogStatus::Ready);
        assert_eq!(all_entries(log), self.entries[..kept]);
        let mut saved = 0;
        for action in actions {
            if let RecoveryAction::Cut { saved_as, bytes, .. } = action {
                let copy = self.disk.open(saved_as, OpenMode::Read).unwrap();
                assert_eq!(copy.len().unwrap(), *bytes);
                saved += bytes;
            }
        }
        assert!(saved > 0, "nothing was saved");
        fill(log, 3);
        log.flush().unwrap();
    }
}

#[test]
fn a_torn_tail_is_cut_whatever_its_length() {
    let whole = prepared();
    let (path, len) = whole.segments.last().unwrap().clone();
    let last = whole.entries.last().unwrap().batch.header.total_len() as u64;
    for missing in 1..last {
        let b = prepared();
        b.disk
            .open(&path, OpenMode::Write)
            .unwrap()
            .set_len(len - missing)
            .unwrap();
        let (log, actions) = b.open(PreviousStop::Killed);
        b.assert_cut(&log, &actions, 39);
    }
}

#[test]
fn a_flipped_bit_above_the_watermark_is_cut_after_power_loss_and_in_doubt_after_a_kill() {
    let b = prepared();
    // The first batch of the last segment but one lies above the watermark.
    let (path, _) = &b.segments[b.segments.len() - 2];
    b.disk.corrupt(path, 70).unwrap();
    let kept = b
        .entries
        .iter()
        .take_while(|e| e.index < first_index(path))
        .count();
    assert!(kept > 18);
    let (log, actions) = b.open(PreviousStop::Killed);
    assert!(matches!(&actions[..], [RecoveryAction::Damaged(at)] if at.damage == Damage::BadCrc));
    b.assert_damaged(&log, kept);
    drop(log);
    let (log, _) = b.open(PreviousStop::Clean);
    b.assert_damaged(&log, kept);
    drop(log);
    let (log, actions) = b.open(PreviousStop::PowerLoss);
    b.assert_cut(&log, &actions, kept);
}

fn first_index(path: &Path) -> u64 {
    path.file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .split('.')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn damage_below_the_watermark_is_never_cut() {
    for previous in [PreviousStop::Clean, PreviousStop::Killed, PreviousStop::PowerLoss] {
        // A segment below the watermark is missing.
        let b = prepared();
        b.disk.remove_file(&b.segments[1].0).unwrap();
        let (log, _) = b.open(previous);
        b.assert_damaged(&log, usize::try_from(first_index(&b.segments[1].0)).unwrap());

        // It is shorter than it was sealed.
        let b = prepared();
        let (path, len) = &b.segments[1];
        b.disk
            .open(path, OpenMode::Write)
            .unwrap()
            .set_len(len - 1)
            .unwrap();
        let (log, _) = b.open(previous);
        b.assert_damaged(&log, usize::try_from(first_index(&b.segments[2].0)).unwrap() - 1);

        // The file with the watermark ends below it.
        let b = prepared();
        let name = b.watermark.segment.file_name("log");
        let file = b.disk.open(&Path::new(DIR).join(&name), OpenMode::Write).unwrap();
        file.set_len(b.watermark.position - 1).unwrap();
        let (log, _) = b.open(previous);
        b.assert_damaged(&log, 17);

        // All segments are gone: never an empty log.
        let b = prepared();
        b.segments
            .iter()
            .for_each(|(path, _)| b.disk.remove_file(path).unwrap());
        let (log, _) = b.open(previous);
        b.assert_damaged(&log, 0);

        // The state file is gone or damaged.
        let b = prepared();
        b.disk.remove_file(&Path::new(DIR).join("state")).unwrap();
        let cx = StorageContext::new(std::sync::Arc::new(b.disk.incarnation()));
        let opened = Log::open(&cx, Path::new(DIR), small(), Some(b.watermark), previous);
        assert!(matches!(opened, Err(LogError::StateUnreadable { .. })));
    }
}

#[test]
fn a_bit_that_flips_below_the_watermark_is_found_by_reads_and_by_scrubbing() {
    let b = prepared();
    let (path, _) = &b.segments[1];
    b.disk.corrupt(path, 100).unwrap();
    let (log, _) = b.open(PreviousStop::Killed);
    let index = first_index(path);
    let error = log.entries(index..index + 1, 1000).unwrap_err();
    assert!(matches!(
        error,
        LogError::Corrupt {
            position: 0,
            damage: Damage::BadCrc,
            ..
        }
    ));
    let report = log.verify(0..i64::MAX).unwrap();
    assert_eq!(report.findings.len(), 1);
    assert_eq!(
        (&report.findings[0].file, report.findings[0].damage),
        (path, Damage::BadCrc)
    );
    assert_eq!(
        log.entries(0..index, 100_000).unwrap().len() as u64,
        index,
        "the rest is served"
    );
}

#[test]
fn every_cache_can_be_deleted() {
    let b = prepared();
    for entry in b.disk.read_dir(Path::new(DIR)).unwrap() {
        if !entry.is_dir && !entry.name.ends_with(".log") && entry.name != "state" {
            b.disk.remove_file(&Path::new(DIR).join(&entry.name)).unwrap();
        }
    }
    let (log, actions) = b.open(PreviousStop::Killed);
    assert_eq!(all_entries(&log), b.entries);
    assert!(
        actions
            .iter()
            .any(|a| matches!(a, RecoveryAction::IndexRebuilt { .. }))
    );
    let end = log.close().unwrap();
    drop(log);
    let (log, report) = open_on(&b.disk, small(), Some(end), PreviousStop::Clean);
    assert_eq!((all_entries(&log), report.actions.len()), (b.entries, 0));
}

#[test]
fn a_full_disk_refuses_appends_and_recovers_by_itself() {
    let disk = SimDisk::new(1);
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    fill(&log, 3);
    let before = all_entries(&log);
    let used = (1 << 40) - disk.space(Path::new("/")).unwrap().free;
    for room in (0..1900).step_by(50) {
        disk.set_capacity(Some(used + room));
        // Several batches, which need a new segment on the way: all or none.
        let big: Vec<_> = (0..4)
            .map(|i| {
                place(
                    records(1, 0, &[1; 500], Compression::None),
                    1,
                    3 + i,
                    6 + i64::try_from(i).unwrap(),
                )
            })
            .collect();
        assert!(
            matches!(log.append(&big), Err(LogError::Full { .. })),
            "room for {room}"
        );
        assert_eq!(log.status(), LogStatus::Ready, "room for {room}");
        assert_eq!(all_entries(&log), before);
    }
    disk.set_capacity(None);
    fill(&log, 3);
    log.flush().unwrap();
}

#[test]
fn a_failed_write_or_sync_fails_the_log_for_good() {
    for (op, fault) in [
        (Op::Write, Fault::Short),
        (Op::Write, Fault::Eio),
        (Op::SyncData, Fault::Eio),
    ] {
        let disk = SimDisk::new(2);
        let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
        fill(&log, 2);
        let watermark = log.flush().unwrap();
        disk.arm(FaultRule {
            op,
            path: ".log".into(),
            when: When::Nth(1),
            fault,
        });
        let entry = data(&log, 1, 1, 300);
        let failed = log
            .append(&[entry])
            .map(drop)
            .and_then(|()| log.flush().map(drop))
            .unwrap_err();
        assert!(matches!(failed, LogError::Io { .. }));
        assert!(matches!(
            log.append(&[data(&log, 1, 1, 1)]),
            Err(LogError::Failed { .. })
        ));
        assert!(matches!(log.flush(), Err(LogError::Failed { .. })));
        assert_eq!(log.checkpoint(), watermark);
        let (again, _) = open_on(&disk, small(), Some(log.checkpoint()), PreviousStop::Failed);
        assert_eq!(again.end().log_end_offset, 4, "cut to the watermark");
        fill(&again, 2);
        again.flush().unwrap();
    }
}

/// The page cache shows what the medium never got, and calls it clean: who only reads and syncs it again is deceived.
#[test]
fn a_process_killed_after_a_failed_sync_does_not_deceive_its_successor() {
    let disk = SimDisk::new(5);
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    let stored = log.flush().unwrap();
    fill(&log, 2);
    let durable = log.flush().unwrap();
    fill(&log, 1);
    disk.arm(FaultRule {
        op: Op::SyncData,
        path: ".log".into(),
        when: When::Nth(1),
        fault: Fault::Eio,
    });
    log.flush().unwrap_err();
    disk.clear_faults();
    disk.crash(CrashMode::Process);

    // The watermark that was stored is older than what was acknowledged: nothing of that may be cut either.
    let (log, _) = open_on(&disk, small(), Some(stored), PreviousStop::Killed);
    assert_eq!(log.end().log_end_offset, durable.next_offset);
    fill(&log, 3);
    let acknowledged = log.flush().unwrap();
    disk.crash(CrashMode::Power);
    let (log, _) = open_on(&disk, small(), Some(acknowledged), PreviousStop::PowerLoss);
    assert_eq!(
        (log.status(), log.end().log_end_offset),
        (LogStatus::Ready, acknowledged.next_offset)
    );
}

/// What a scenario left behind when it was interrupted.
struct Promise {
    /// Entries that a flush has confirmed.
    flushed: usize,
    stored: Option<Checkpoint>,
    /// The longest log that can be there.
    most: usize,
}

/// Appends over several segments, flushes, truncates, appends again, moves the log start; stops at the first error.
fn scenario(disk: &SimDisk, promise: &mut Promise) -> Result<(), LogError> {
    let cx = StorageContext::new(std::sync::Arc::new(disk.incarnation()));
    let (log, _) = Log::open(&cx, Path::new(DIR), small(), None, PreviousStop::Clean)?;
    let append = |promise: &mut Promise, n: usize| {
        for i in 0..n {
            promise.most += 1;
            let entry = if i % 4 == 3 {
                hidden(&log, 1, b"membership")
            } else {
                data(&log, 1, 2, 100)
            };
            log.append(&[entry])?;
        }
        Ok::<(), LogError>(())
    };
    append(promise, 12)?;
    promise.stored = Some(log.flush()?);
    promise.flushed = 12;
    append(promise, 6)?;
    // Below the watermark: it must come down before the bytes go.
    promise.flushed = 8;
    log.truncate_after(Some(7))?;
    promise.most = promise.most.max(18);
    append(promise, 6)?;
    log.flush()?;
    promise.flushed = 14;
    promise.most = 18;
    log.purge_to(takhin_storage::EntryId { term: 1, index: 9 })?;
    log.set_log_start(8)?;
    promise.stored = Some(log.close()?);
    Ok(())
}

/// Runs the scenario with the `n`th operation of kind `op` failing and everything after it crashed.
fn crash_at(seed: u64, op: Op, n: u64, mode: CrashMode) -> bool {
    let disk = SimDisk::new(seed);
    disk.arm(FaultRule {
        op,
        path: String::new(),
        when: When::Nth(n),
        fault: Fault::Short,
    });
    let mut promise = Promise {
        flushed: 0,
        stored: None,
        most: 0,
    };
    let finished = scenario(&disk, &mut promise).is_ok();
    disk.clear_faults();
    let previous = match mode {
        CrashMode::Process => PreviousStop::Killed,
        CrashMode::Power => PreviousStop::PowerLoss,
    };
    disk.crash(mode);
    let (log, _) = open_on(&disk, small(), promise.stored, previous);
    let what = format!("seed {seed}, {op:?} number {n}, {mode:?}");
    assert_eq!(log.status(), LogStatus::Ready, "{what}");
    let end = log.end();
    let count = end.last.map_or(0, |l| usize::try_from(l.index).unwrap() + 1);
    assert!(
        count >= promise.flushed && count <= promise.most,
        "{what}: {count} entries"
    );
    let held = all_entries(&log);
    drop(log);
    // Recovery is idempotent, also when a crash interrupts it.
    disk.crash(mode);
    let (log, report) = open_on(&disk, small(), promise.stored, previous);
    assert_eq!(all_entries(&log), held, "{what}");
    let cuts = report
        .actions
        .iter()
        .filter(|a| matches!(a, RecoveryAction::Cut { .. }))
        .count();
    assert!(
        cuts == 0 || mode == CrashMode::Power,
        "{what}: the second recovery found something to cut"
    );
    fill(&log, 1);
    log.flush().unwrap();
    finished
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_flushed() {
    let ops = [
        Op::Open,
        Op::Write,
        Op::SetLen,
        Op::SyncData,
        Op::SyncDir,
        Op::Rename,
        Op::Remove,
        Op::CreateDir,
    ];
    let mut runs = 0;
    for op in ops {
        for mode in [CrashMode::Process, CrashMode::Power] {
            for n in 1.. {
                runs += 1;
                if crash_at(n * 31, op, n, mode) && n > 40 {
                    break;
                }
            }
        }
    }
    assert!(runs > 16 * 40);
}

/// The watermark that was stored is older than what was acknowledged, and after a kill nobody knows how much.
#[test]
fn what_a_killed_process_acknowledged_survives_failed_syncs_of_its_successors() {
    let disk = SimDisk::new(6);
    let failing_sync = |nth| FaultRule {
        op: Op::SyncData,
        path: ".log".into(),
        when: When::Nth(nth),
        fault: Fault::Eio,
    };
    let (log, _) = open_on(&disk, small(), None, PreviousStop::Clean);
    fill(&log, 2);
    let stored = log.flush().unwrap();
    fill(&log, 30);
    let acknowledged = log.flush().unwrap();
    disk.crash(CrashMode::Process);

    // The successor cannot make sure of it: the log stays closed, and nothing is cut.
    disk.arm(failing_sync(1));
    let cx = StorageContext::new(std::sync::Arc::new(disk.incarnation()));
    Log::open(&cx, Path::new(DIR), small(), Some(stored), PreviousStop::Killed).unwrap_err();
    disk.clear_faults();
    let (log, _) = open_on(&disk, small(), Some(stored), PreviousStop::Killed);
    assert_eq!(log.checkpoint().next_offset, acknowledged.next_offset);

    // Later a sync of its own fails: that cuts what it has appended, and nothing else.
    fill(&log, 1);
    disk.arm(failing_sync(1));
    log.flush().unwrap_err();
    disk.clear_faults();
    let (log, _) = open_on(&disk, small(), Some(log.checkpoint()), PreviousStop::Failed);
    assert_eq!(log.end().log_end_offset, acknowledged.next_offset);
    disk.crash(CrashMode::Power);
    let (log, _) = open_on(&disk, small(), Some(stored), PreviousStop::PowerLoss);
    assert_eq!(
        (log.status(), log.end().log_end_offset),
        (LogStatus::Ready, acknowledged.next_offset)
    );
}
