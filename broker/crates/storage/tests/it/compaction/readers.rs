//! Readers while segments are replaced: a pass runs in the middle of a read, at each place where a read looks at a file.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
use takhin_runtime::disk::{DirEntry, Disk, File, OpenMode, Space};
use takhin_runtime::sim::SimDisk;
use takhin_storage::{Log, LogOptions, PreviousStop, StorageContext};

use super::{LIMITS, clean, purge, read, small};
use crate::support::{DIR, next_entry};

/// What is to happen when a segment is read for the nth time from now on.
#[derive(Default)]
struct Hook {
    reads: AtomicUsize,
    at: AtomicUsize,
    fired: AtomicBool,
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Hook {
    fn arm(&self, at: usize, act: impl FnOnce() + Send + 'static) {
        *self.act.lock() = Some(Box::new(act));
        self.fired.store(false, Ordering::Relaxed);
        self.reads.store(0, Ordering::Relaxed);
        self.at.store(at, Ordering::Relaxed);
    }

    fn read(&self) {
        if self.reads.fetch_add(1, Ordering::Relaxed) + 1 == self.at.load(Ordering::Relaxed) {
            let act = self.act.lock().take();
            if let Some(act) = act {
                self.fired.store(true, Ordering::Relaxed);
                act();
            }
        }
    }
}

/// A disk whose reads of segments are watched.
#[derive(Debug)]
struct Watched(SimDisk, Arc<Hook>);

#[derive(Debug)]
struct WatchedFile(Arc<dyn File>, Arc<Hook>);

impl Disk for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.0.open(path, mode)?;
        Ok(match path.extension().is_some_and(|e| e == "log") {
            true => Arc::new(WatchedFile(file, Arc::clone(&self.1))),
            false => file,
        })
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.read_dir(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }
    fn sync_fs(&self, path: &Path) -> io::Result<()> {
        self.0.sync_fs(path)
    }
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.absolute(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock(path)
    }
    fn boot_id(&self) -> io::Result<String> {
        self.0.boot_id()
    }
}

impl File for WatchedFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        self.1.read();
        self.0.read_at(buf, pos)
    }
    fn write_at(&self, parts: &mut [IoSlice<'_>], pos: u64) -> io::Result<()> {
        self.0.write_at(parts, pos)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.0.as_fd()
    }
    fn is_cached(&self, pos: u64, len: usize) -> bool {
        self.0.is_cached(pos, len)
    }
}

/// Records 0, 2, 4.. have keys of their own, the others share one; two batches to a segment, all segments open.
fn prepared(hook: &Arc<Hook>) -> Arc<Log> {
    let disk = Watched(SimDisk::new(4).incarnation(), Arc::clone(hook));
    let cx = StorageContext::with_open_segments(Arc::new(disk), 100);
    let options = LogOptions {
        segment_bytes: 2400,
        ..small()
    };
    let (log, _) = Log::open(&cx, Path::new(DIR), options, None, PreviousStop::Clean).unwrap();
    for n in 0..24_i64 {
        let mut builder = BatchBuilder::new(Compression::None);
        for (i, key) in [(0, n.to_be_bytes().to_vec()), (1, b"shared".to_vec())] {
            builder.push(NewRecord {
                timestamp: 2 * n + i,
                key: Some(&key),
                value: Some(&[7; 60]),
                headers: &[],
            });
        }
        log.append(&[next_entry(&log, 1, builder.build().unwrap())])
            .unwrap();
        if n % 2 == 1 {
            log.roll_now().unwrap();
        }
    }
    log.flush().unwrap();
    purge(&log);
    Arc::new(log)
}

/// Runs `look` with a pass at every place where it reads a segment.
fn with_a_pass_anywhere(look: impl Fn(&Log)) {
    for at in 1.. {
        let hook = Arc::new(Hook::default());
        let log = prepared(&hook);
        let pass = Arc::clone(&log);
        let before = log.stats().segments.len();
        hook.arm(at, move || {
            clean(&pass, &LIMITS, 1000).unwrap();
        });
        look(&log);
        if !hook.fired.load(Ordering::Relaxed) {
            assert!(at > 1, "hardly anything was read");
            return;
        }
        assert!(log.stats().segments.len() < before / 2, "the pass merged nothing");
    }
}

#[test]
fn a_consumer_misses_nothing() {
    with_a_pass_anywhere(|log| {
        let (records, _) = read(log, 0);
        for own in (0..48).step_by(2) {
            assert!(records.contains_key(&own), "record {own} was missed");
        }
    });
}

#[test]
fn a_look_up_by_time_finds_the_first() {
    for at in [2, 20, 40] {
        with_a_pass_anywhere(|log| assert_eq!(log.offset_for_timestamp(at).unwrap(), Some((at, at))));
    }
    with_a_pass_anywhere(|log| assert_eq!(log.max_timestamp().unwrap(), Some((47, 47))));
}

#[test]
fn a_scrub_takes_no_replaced_segment_for_damage() {
    with_a_pass_anywhere(|log| assert_eq!(log.verify(0..i64::MAX).unwrap().findings, []));
}
