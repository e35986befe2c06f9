//! Whether a disk answers at all: a thread writes a few bytes to it again and again, and another one looks whether a write
//! does not return. A write that goes to the page cache returns at once on a disk that is merely slow; it does not on a file
//! system that is frozen, or whose journal waits for a device that is gone.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Disk, File, OpenMode};
use crate::thread::Thread;

/// Pause between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked after the write that is under way.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What is written, over and over.
const BYTES: &[u8] = b"takhin\n";

/// A disk that is being watched, until this is dropped.
#[derive(Debug)]
pub struct DiskWatch {
    stop: Arc<Stop>,
    watching: Option<Thread>,
}

impl DiskWatch {
    /// Watches the disk that holds `path`, a file that is created and belongs to the watch. `changed` is called with `true`
    /// once a write has been under way for `limit`, and with `false` once writes have returned in time for as long. It runs
    /// on the watching thread: it must not touch the disk, nor wait for anybody who does.
    ///
    /// # Errors
    /// The file cannot be opened, or the system has no thread left.
    pub fn start(
        disk: &dyn Disk,
        path: &Path,
        limit: Duration,
        mut changed: impl FnMut(bool) + Send + 'static,
    ) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::CreateOrWrite)?;
        let (stop, writes) = (Arc::new(Stop::default()), Arc::new(AtomicU64::new(0)));
        let (stop2, writes2) = (Arc::clone(&stop), Arc::clone(&writes));
        // Nobody waits for the end of this one: it may never come.
        drop(Thread::spawn("disk probe", move || {
            write(&*file, &writes2, &stop2)
        })?);
        let stop3 = Arc::clone(&stop);
        let watching = Thread::spawn("disk watch", move || {
            let mut judge = Judge::new(limit);
            while !stop3.within(LOOK_EVERY) {
                if let Some(hangs) = judge.look(writes.load(Ordering::Relaxed)) {
                    changed(hangs);
                }
            }
        })?;
        Ok(Self {
            stop,
            watching: Some(watching),
        })
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(watching) = self.watching.take() {
            // A panic there has been reported when it happened.
            let _ = watching.join();
        }
    }
}

/// Counts twice for each write: an odd number says that one is under way.
fn write(file: &dyn File, writes: &AtomicU64, stop: &Stop) {
    while !stop.within(WRITE_EVERY) {
        writes.fetch_add(1, Ordering::Relaxed);
        // An error is an answer too. Whoever needs the disk gets it as well.
        let _ = file.write_at(&mut [IoSlice::new(BYTES)], 0);
        writes.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    rung: Condvar,
}

impl Stop {
    /// Waits for the end, at most so long; whether it has come.
    fn within(&self, limit: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.rung.wait_for(&mut stopped, limit);
        }
        *stopped
    }

    fn stop(&self) {
        *self.stopped.lock() = true;
        self.rung.notify_all();
    }
}

/// Judges by looks, not by a clock: a process that was stopped, or got no processor for a while, has not looked either.
#[derive(Debug)]
struct Judge {
    /// Looks that make a limit.
    limit: u32,
    write: u64,
    /// Looks in a row that found the same write under way, and that did not.
    waited: u32,
    answered: u32,
    hangs: bool,
}

impl Judge {
    fn new(limit: Duration) -> Self {
        let looks = limit.as_millis().div_ceil(LOOK_EVERY.as_millis());
        Self {
            limit: u32::try_from(looks).unwrap_or(u32::MAX).max(1),
            write: 0,
            waited: 0,
            answered: 0,
            hangs: false,
        }
    }

    /// Whether the disk hangs, if that has changed.
    fn look(&mut self, write: u64) -> Option<bool> {
        if write == self.write && write % 2 == 1 {
            self.waited = self.waited.saturating_add(1);
            self.answered = 0;
        } else {
            self.write = write;
            self.waited = 0;
            self.answered = self.answered.saturating_add(1);
        }
        let hangs = match self.hangs {
            false => self.waited >= self.limit,
            true => self.answered < self.limit,
        };
        (std::mem::replace(&mut self.hangs, hangs) != hangs).then_some(hangs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_does_not_return_is_told_of_once() {
        let mut judge = Judge::new(Duration::from_millis(200));
        let mut told = |looks: &[u64]| {
            let told = looks.iter().map(|write| judge.look(*write));
            told.collect::<Vec<_>>()
        };
        // Under way, over, the next one, at rest for long.
        assert_eq!(told(&[1, 1, 1, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4]), [None; 14]);
        assert_eq!(told(&[5, 5, 5, 5]), [None; 4]);
        assert_eq!(told(&[5, 5, 5]), [Some(true), None, None]);
        // It answers, but not for long enough yet.
        assert_eq!(told(&[6, 8, 9, 9, 10, 12, 13]), [None; 7]);
        assert_eq!(told(&[14, 14]), [Some(false), None]);
    }

    #[test]
    fn a_limit_is_at_least_one_look() {
        assert_eq!(Judge::new(Duration::ZERO).limit, 1);
        assert_eq!(Judge::new(Duration::from_millis(501)).limit, 11);
    }
}
