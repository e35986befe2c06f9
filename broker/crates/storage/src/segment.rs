//! Sealed segments, opened when needed and closed when too many are open; and the active one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use takhin_runtime::disk::{Disk, File, OpenMode};

use crate::cleaned::{Continuity, Mark, PLAIN};
use crate::error::{Damage, LogError};
use crate::format::{INDEX, Kind, LOG, SNAPSHOT, SegmentId, TIME_INDEX};
use crate::index::SegmentIndex;
use crate::metrics::METRICS;
use crate::options::{LogOptions, StorageContext};
use crate::walk::Walk;
use crate::whole::{self, Found};

/// A segment's file together with its index.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: Arc<dyn File>,
    pub(crate) index: SegmentIndex,
}

/// A segment that takes no more appends.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) id: SegmentId,
    /// Length of the file in bytes.
    pub(crate) bytes: u64,
    opened: Mutex<Option<Arc<Opened>>>,
    used: AtomicU64,
    /// Set before the file is replaced: who fails to open it then must look the segment up again.
    retired: AtomicBool,
}

impl Sealed {
    pub(crate) fn new(id: SegmentId, bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            bytes,
            opened: Mutex::new(None),
            used: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        })
    }

    /// Whether another file takes, or has taken, the place of this one.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Says that another file is about to take the place of this one, or that it did not.
    pub(crate) fn retire(&self, retired: bool) {
        self.retired.store(retired, Ordering::Release);
    }

    /// A segment whose file is open: one that was active until now, or was just written.
    pub(crate) fn from_open(cx: &StorageContext, file: Arc<dyn File>, index: SegmentIndex) -> Arc<Self> {
        let sealed = Self::new(index.id, index.bytes);
        *sealed.opened.lock() = Some(Arc::new(Opened { file, index }));
        cx.open.admit(&sealed);
        sealed
    }

    /// The file, if it is open.
    pub(crate) fn open_file(this: &Arc<Self>) -> Option<Arc<dyn File>> {
        this.opened.lock().as_ref().map(|o| o.file.clone())
    }

    /// The file and index, opened if they are not. `next` is where the following segment begins.
    pub(crate) fn open(
        self: &Arc<Self>,
        cx: &StorageContext,
        dir: &Path,
        options: &LogOptions,
        next: SegmentId,
    ) -> Result<Arc<Opened>, LogError> {
        self.used.store(cx.open.tick(), Ordering::Relaxed);
        let mut slot = self.opened.lock();
        if let Some(opened) = slot.as_ref() {
            return Ok(opened.clone());
        }
        let path = self.id.path(dir, LOG);
        let file = open_segment(&*cx.disk, &path, OpenMode::Read)?;
        let len = file.len().map_err(|e| LogError::io("measure", &path, e))?;
        if len != self.bytes {
            return Err(LogError::Corrupt {
                path,
                position: len.min(self.bytes),
                damage: Damage::WrongLength,
            });
        }
        let mark = read_mark(&*file, &path, self.id)?;
        if mark.as_ref().is_some_and(|mark| mark.bytes != len) {
            return Err(LogError::Corrupt {
                path,
                position: len,
                damage: Damage::WrongLength,
            });
        }
        let index = match load_index(cx, dir, self.id, len, mark.as_ref())? {
            Some(index) => index,
            None => rebuild_index(cx, dir, &*file, self.id, len, mark.as_ref(), options)?,
        };
        if index.next_offset != next.base_offset || index.next_index != next.first_index {
            let damage = Damage::WrongOffset {
                expected: next.base_offset,
                found: index.next_offset,
            };
            return Err(LogError::Corrupt {
                path,
                position: len,
                damage,
            });
        }
        let opened = Arc::new(Opened { file, index });
        *slot = Some(opened.clone());
        drop(slot);
        cx.open.admit(self);
        Ok(opened)
    }
}

/// Opens a segment file; a missing one is damage.
pub(crate) fn open_segment(disk: &dyn Disk, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, LogError> {
    disk.open(path, mode).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => LogError::Corrupt {
            path: path.to_owned(),
            position: 0,
            damage: Damage::MissingSegment,
        },
        _ => LogError::io("open", path, e),
    })
}

/// The mark of a cleaned segment; one that fails its check is damage.
pub(crate) fn read_mark(file: &dyn File, path: &Path, id: SegmentId) -> Result<Option<Mark>, LogError> {
    let mark = Mark::read(file, id).map_err(|e| LogError::io("read", path, e))?;
    mark.map_err(|damage| LogError::Corrupt {
        path: path.to_owned(),
        position: 0,
        damage,
    })
}

/// Reads both index files; `None` if either is missing, damaged, of another length of log, or from before a cleaning.
pub(crate) fn load_index(
    cx: &StorageContext,
    dir: &Path,
    id: SegmentId,
    log_bytes: u64,
    mark: Option<&Mark>,
) -> Result<Option<SegmentIndex>, LogError> {
    let Found::Body(offsets) = whole::read(&*cx.disk, &id.path(dir, INDEX), Kind::OffsetIndex)? else {
        return Ok(None);
    };
    let Found::Body(times) = whole::read(&*cx.disk, &id.path(dir, TIME_INDEX), Kind::TimeIndex)? else {
        return Ok(None);
    };
    let stamp = mark.map_or(PLAIN, |mark| mark.stamp);
    Ok(SegmentIndex::decode(id, log_bytes, stamp, &offsets, &times))
}

/// Rebuilds a sealed segment's index from its headers and writes it down.
fn rebuild_index(
    cx: &StorageContext,
    dir: &Path,
    file: &dyn File,
    id: SegmentId,
    len: u64,
    mark: Option<&Mark>,
    options: &LogOptions,
) -> Result<SegmentIndex, LogError> {
    let path = id.path(dir, LOG);
    let mut index = SegmentIndex::of(id, mark);
    let mut continuity = Continuity::new(id, mark);
    let mut walk = Walk::new(file, &path, 0..len, options.max_batch_bytes);
    while let Some(found) = walk.next()? {
        if let Some(damage) = continuity.step(&found.header) {
            return Err(LogError::Corrupt {
                path,
                position: found.pos,
                damage,
            });
        }
        index.note(&found.header, options.index_interval_bytes);
    }
    METRICS.indexes_rebuilt.add(1);
    tracing::info!(segment = %path.display(), "rebuilt the index of a sealed segment");
    if let Err(error) = save_index(cx, dir, &index) {
        tracing::warn!(segment = %path.display(), %error, "cannot save a rebuilt index");
    }
    Ok(index)
}

/// Writes both index files; they are caches and not synced.
pub(crate) fn save_index(cx: &StorageContext, dir: &Path, index: &SegmentIndex) -> Result<(), LogError> {
    let id = index.id;
    whole::write_cache(
        &*cx.disk,
        &id.path(dir, INDEX),
        Kind::OffsetIndex,
        &index.encode_offsets(),
    )?;
    whole::write_cache(
        &*cx.disk,
        &id.path(dir, TIME_INDEX),
        Kind::TimeIndex,
        &index.encode_times(),
    )?;
    Ok(())
}

/// Removes both index files if they exist.
pub(crate) fn remove_index(disk: &dyn Disk, dir: &Path, id: SegmentId) -> Result<(), LogError> {
    for extension in [INDEX, TIME_INDEX] {
        remove_if_exists(disk, &id.path(dir, extension))?;
    }
    Ok(())
}

/// Removes a segment with its index files and the snapshot taken where it begins.
pub(crate) fn remove_segment(disk: &dyn Disk, dir: &Path, id: SegmentId) -> Result<(), LogError> {
    remove_if_exists(disk, &id.path(dir, LOG))?;
    remove_index(disk, dir, id)?;
    remove_if_exists(disk, &id.path(dir, SNAPSHOT))
}

/// Removes a file; a missing one is fine.
pub(crate) fn remove_if_exists(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    match disk.remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// The segment that takes appends.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) file: Arc<dyn File>,
    pub(crate) index: SegmentIndex,
}

impl Active {
    /// Creates the file of a new, empty segment. Its name is not durable yet.
    pub(crate) fn create(cx: &StorageContext, dir: &Path, id: SegmentId) -> Result<Self, LogError> {
        let path: PathBuf = id.path(dir, LOG);
        let file = cx
            .disk
            .open(&path, OpenMode::CreateOrWrite)
            .map_err(|e| LogError::io("create", &path, e))?;
        // A file of this name can only be left of a roll that was never used.
        file.set_len(0).map_err(|e| LogError::io("truncate", &path, e))?;
        Ok(Self {
            file,
            index: SegmentIndex::new(id),
        })
    }
}

/// Bounds how many sealed segments are open at once, over all logs of a node.
#[derive(Debug)]
pub(crate) struct OpenSegments {
    max: usize,
    clock: AtomicU64,
    open: Mutex<Vec<Weak<Sealed>>>,
}

impl OpenSegments {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            clock: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a segment that was just opened and closes the one that was not used for longest, if over the limit.
    fn admit(&self, segment: &Arc<Sealed>) {
        segment.used.store(self.tick(), Ordering::Relaxed);
        let victim = {
            let mut open = self.open.lock();
            open.retain(|s| s.strong_count() > 0);
            open.push(Arc::downgrade(segment));
            if open.len() <= self.max {
                return;
            }
            let used = |s: &Weak<Sealed>| s.upgrade().map_or(0, |s| s.used.load(Ordering::Relaxed));
            let oldest = (0..open.len()).min_by_key(|&i| used(&open[i]));
            oldest.and_then(|i| open.swap_remove(i).upgrade())
        };
        if let Some(victim) = victim {
            *victim.opened.lock() = None;
        }
    }

    /// Sealed segments that are open now.
    pub(crate) fn count(&self) -> usize {
        let open = self.open.lock();
        open.iter()
            .filter_map(Weak::upgrade)
            .filter(|s| s.opened.lock().is_some())
            .count()
    }
}
