//! Flush rounds.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use takhin_runtime::clock::Clock;
use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Op, SimDisk, When};
use takhin_runtime::thread::Thread;
use takhin_runtime::{Disk, RealDisk};
use takhin_storage::{FlushPolicy, Flusher, Log, LogOptions, LogStatus, PreviousStop, StorageContext};

use crate::support::{data, fill, small};

fn logs(disk: Arc<dyn Disk>, root: &Path, count: usize) -> (StorageContext, Vec<Arc<Log>>) {
    let cx = StorageContext::new(disk);
    let open = |i| {
        let dir: PathBuf = root.join(format!("log-{i}"));
        Arc::new(
            Log::open(&cx, &dir, LogOptions::default(), None, PreviousStop::Clean)
                .unwrap()
                .0,
        )
    };
    let logs = (0..count).map(open).collect();
    (cx, logs)
}

const ALONE: FlushPolicy = FlushPolicy {
    threads: 1,
    sync_fs_from: usize::MAX,
};
const TOGETHER: FlushPolicy = FlushPolicy {
    threads: 1,
    sync_fs_from: 1,
};

#[test]
fn a_round_makes_everything_submitted_durable_and_answers_in_order() {
    for policy in [ALONE, TOGETHER] {
        let disk = SimDisk::new(9);
        let (cx, logs) = logs(Arc::new(disk.incarnation()), Path::new("/"), 3);
        let flusher = Flusher::new(&cx, "/".into(), policy);
        let answers = Arc::new(Mutex::new(Vec::new()));
        for (n, i) in [0, 1, 0, 2, 0].into_iter().enumerate() {
            fill(&logs[i], 1);
            let answers = answers.clone();
            let done = move |end: Result<takhin_storage::Checkpoint, _>| {
                answers.lock().unwrap().push((n, end.unwrap().next_offset));
            };
            flusher.submit(logs[i].clone(), done);
        }
        let round = flusher.take_round().unwrap().sync();
        // What comes now belongs to the next round.
        fill(&logs[1], 1);
        assert!(
            answers.lock().unwrap().is_empty(),
            "nobody is told before the watermarks have moved"
        );
        round.complete();
        assert_eq!(*answers.lock().unwrap(), [(0, 6), (1, 2), (2, 6), (3, 2), (4, 6)]);
        assert!(flusher.take_round().is_none());
        let stored: Vec<_> = logs.iter().map(|log| Some(log.checkpoint())).collect();
        disk.crash(CrashMode::Power);
        let cx = StorageContext::new(Arc::new(disk.incarnation()));
        for ((i, stored), least) in stored.into_iter().enumerate().zip([6, 2, 2]) {
            let dir = PathBuf::from(format!("/log-{i}"));
            let (log, _) =
                Log::open(&cx, &dir, LogOptions::default(), stored, PreviousStop::PowerLoss).unwrap();
            assert_eq!(log.status(), LogStatus::Ready);
            assert!(log.end().log_end_offset >= least);
        }
    }
}

#[test]
fn a_failed_sync_fails_its_log_and_a_failed_syncfs_all_of_them() {
    for (policy, op, survivors) in [(ALONE, Op::SyncData, 2), (TOGETHER, Op::SyncFs, 0)] {
        let disk = SimDisk::new(9);
        let (cx, logs) = logs(Arc::new(disk.incarnation()), Path::new("/"), 3);
        let flusher = Flusher::new(&cx, "/".into(), policy);
        disk.arm(FaultRule {
            op,
            path: String::new(),
            when: When::Nth(1),
            fault: Fault::Eio,
        });
        let (tx, rx) = mpsc::channel();
        for log in logs.iter().chain(&logs) {
            log.append(&[data(log, 1, 1, 10)]).unwrap();
            let tx = tx.clone();
            flusher.submit(log.clone(), move |end| tx.send(end.is_ok()).unwrap());
        }
        flusher.take_round().unwrap().sync().complete();
        let answers: Vec<bool> = rx.try_iter().collect();
        assert_eq!(answers.iter().filter(|ok| **ok).count(), survivors * 2);
        let ready = logs.iter().filter(|log| log.status() == LogStatus::Ready).count();
        assert_eq!(ready, survivors);
        // The failed ones are not synced again.
        let failed = logs.iter().find(|log| log.status() != LogStatus::Ready).unwrap();
        let tx = tx.clone();
        flusher.submit(failed.clone(), move |end| tx.send(end.is_ok()).unwrap());
        flusher.take_round().unwrap().sync().complete();
        assert!(!rx.recv().unwrap());
    }
}

#[test]
fn the_thread_serves_many_writers_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, logs) = logs(Arc::new(RealDisk), dir.path(), 8);
    let flusher = Flusher::new(&cx, dir.path().to_owned(), FlushPolicy::default());
    let driver = flusher.clone();
    let thread = Thread::spawn("flush", move || driver.run(&Clock::real())).unwrap();
    let flushed = takhin_runtime::thread::parallel(8, &logs, |log| {
        let (tx, rx) = mpsc::channel();
        for _ in 0..20 {
            fill(log, 1);
            let written = log.end().log_end_offset;
            let tx = tx.clone();
            flusher.submit(log.clone(), move |end| tx.send(end.unwrap().next_offset).unwrap());
            assert!(rx.recv().unwrap() >= written);
        }
        log.checkpoint().next_offset
    });
    assert_eq!(flushed, [40; 8]);
    flusher.close();
    assert!(thread.join());
}

#[test]
fn the_simulated_driver_runs_the_same_rounds() {
    let mut sim = takhin_runtime::sim::Sim::new(4);
    let offsets = sim.run(|env| async move {
        let (cx, logs) = logs(env.disk.clone(), Path::new("/"), 2);
        let flusher = Flusher::new(&cx, "/".into(), ALONE);
        let (driver, tasks) = (flusher.clone(), env.tasks.clone());
        let task = env
            .tasks
            .spawn("flush", async move { driver.drive(&tasks).await });
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        for log in &logs {
            fill(log, 2);
            let tx = tx.clone();
            flusher.submit(log.clone(), move |end| tx.send(end.unwrap().next_offset).unwrap());
        }
        let offsets = (rx.recv().await.unwrap(), rx.recv().await.unwrap());
        flusher.close();
        task.await.unwrap();
        offsets
    });
    assert_eq!(offsets, (4, 4));
}

#[test]
fn unsynced_bytes_count_every_segment_above_the_watermark() {
    let cx = StorageContext::new(Arc::new(SimDisk::new(4).incarnation()));
    let open = Log::open(&cx, Path::new("/log"), small(), None, PreviousStop::Clean);
    let log = Arc::new(open.unwrap().0);
    let written = |log: &Log| log.stats().bytes;
    fill(&log, 3);
    log.flush().unwrap();
    let synced = written(&log);
    assert_eq!(log.unsynced_bytes(), 0);
    fill(&log, 40);
    assert!(
        log.stats().segments.len() > 2,
        "a sealed segment holds some of it"
    );
    assert_eq!(log.unsynced_bytes(), written(&log) - synced);
    log.flush().unwrap();
    assert_eq!(log.unsynced_bytes(), 0);
}
