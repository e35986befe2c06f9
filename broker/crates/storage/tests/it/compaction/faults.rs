//! A disk that fails, fills and loses power in the middle of a pass.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use takhin_runtime::disk::Disk;
use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Op, SimDisk, When};
use takhin_storage::{LogError, LogStatus, PreviousStop};

use super::model::{Model, prepared};
use super::{LIMITS, clean, read};
use crate::support::DIR;

/// The last record of each key is there, and nothing that was never written.
fn assert_newest(model: &Model, what: &str) {
    let (found, _) = read(&model.log, 0);
    let mut newest = BTreeMap::new();
    for (offset, record) in &model.records {
        newest.insert(record.key.clone(), *offset);
    }
    for offset in newest.values() {
        assert!(found.contains_key(offset), "{what}: offset {offset}");
    }
    for (offset, record) in &found {
        assert_eq!(model.records.get(offset), Some(record), "{what}");
    }
}

/// Runs a pass on a prepared log with the `n`th operation of kind `op` failing, then crashes. Whatever was done of the
/// pass, no last record of a key is lost; and a second pass ends where one without a fault does. Returns whether the
/// fault came too late.
fn fail_at(op: Op, fault: Fault, n: u64, mode: Option<CrashMode>) -> bool {
    let disk = SimDisk::new(n * 17);
    let mut model = prepared(&disk);
    disk.arm(FaultRule {
        op,
        path: DIR.into(),
        when: When::Nth(n),
        fault,
    });
    let what = format!("{op:?} {n}, {fault:?}, {mode:?}");
    let result = clean(&model.log, &LIMITS, model.now);
    disk.clear_faults();
    let failed = matches!(model.log.status(), LogStatus::Failed { .. });
    match mode {
        Some(mode) => {
            disk.crash(mode);
            model.reopen(match mode {
                CrashMode::Process => PreviousStop::Killed,
                CrashMode::Power => PreviousStop::PowerLoss,
            });
        }
        None if failed => {
            model.stored = Some(model.log.checkpoint());
            model.reopen(PreviousStop::Failed);
        }
        None => {}
    }
    assert_eq!(model.log.end().log_end_offset, model.flushed, "{what}");
    assert_newest(&model, &what);
    if mode.is_some() {
        // Only the names that belong to a log are left.
        let names = disk.read_dir(Path::new(DIR)).unwrap();
        let logs = names.iter().filter(|e| e.name.ends_with(".log")).count();
        assert_eq!(logs, model.log.stats().segments.len(), "{what}: {names:?}");
        assert!(
            names.iter().all(|e| !e.name.ends_with(".tmp")),
            "{what}: {names:?}"
        );
    }
    let again = clean(&model.log, &LIMITS, model.now);
    let tried_again = mode.is_some() || failed || model.log.cleaner_status().uncleanable.is_none();
    match again {
        Ok(report) => {
            let whole = model.log.stats().segments.last().unwrap().id.base_offset;
            let first_dirty = report.map_or(whole, |r| r.first_dirty);
            model.covered(first_dirty);
            model.check();
        }
        Err(error) => assert!(!tried_again, "{what}: {error}"),
    }
    result.is_ok()
}

#[test]
fn a_fault_at_any_operation_of_a_pass_loses_nothing() {
    let ops = [
        Op::Open,
        Op::Read,
        Op::Write,
        Op::SetLen,
        Op::SyncData,
        Op::SyncDir,
        Op::Rename,
        Op::Remove,
    ];
    let mut runs = BTreeSet::new();
    for op in ops {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Short] {
            if op == Op::Read && fault != Fault::Eio {
                continue;
            }
            for mode in [None, Some(CrashMode::Process), Some(CrashMode::Power)] {
                for n in 1.. {
                    runs.insert((op, n));
                    if fail_at(op, fault, n, mode) && n > 3 {
                        break;
                    }
                }
            }
        }
    }
    for op in ops {
        let of_op = runs.iter().filter(|(o, _)| *o == op).count();
        assert!(of_op > 3, "{op:?} happened {of_op} times");
    }
}

#[test]
fn a_full_disk_ends_a_pass_and_another_one_succeeds_when_there_is_room() {
    let disk = SimDisk::new(4);
    let mut model = prepared(&disk);
    let used = (1 << 40) - disk.space(Path::new("/")).unwrap().free;
    for room in [0, 100, 400] {
        disk.set_capacity(Some(used + room));
        let error = clean(&model.log, &LIMITS, model.now).unwrap_err();
        assert!(matches!(error, LogError::Full { .. }), "{error}");
        assert_eq!(model.log.cleaner_status().uncleanable, None);
        assert_eq!(model.log.status(), LogStatus::Ready);
        assert_newest(&model, "full");
    }
    disk.set_capacity(None);
    model.clean(u16::MAX, 0);
    model.check();
}

#[test]
fn damage_makes_a_log_uncleanable_and_nothing_is_replaced() {
    let disk = SimDisk::new(4);
    let model = prepared(&disk);
    let second = model.log.stats().segments[1].id;
    let path = Path::new(DIR).join(second.file_name("log"));
    disk.corrupt(&path, 100).unwrap();
    let before = model.log.stats();
    let error = clean(&model.log, &LIMITS, model.now).unwrap_err();
    assert!(
        matches!(&error, LogError::Corrupt { path: p, .. } if *p == path),
        "{error}"
    );
    assert!(
        model
            .log
            .cleaner_status()
            .uncleanable
            .unwrap()
            .contains("checksum")
    );
    assert_eq!(
        (model.log.stats(), model.log.status()),
        (before, LogStatus::Ready)
    );
}
