//! A small durable key-value store: votes, watermarks and what else must survive a power loss at once.
//!
//! One append-only file of frames; the newest value of a key counts. Rewritten whole when it is mostly history.
//!
//! ```text
//! file   magic "TKJR" | version u16 | zero u16 | frames...
//! frame  length u32 | crc u32 (CRC-32C of the rest of the head and the payload) | sequence u64 | synced u64 | payload
//! payload  count u32 * { key length u16 | key | value length u32 or 0xFFFFFFFF (removed) | value }
//! ```
//!
//! Sequences count up by one, so that a lost or repeated frame shows. `synced` says that all frames below it were durable
//! when this one was written: after a power loss a damaged frame is a torn one unless a later frame vouches for it. Writers that come while one syncs share the next
//! sync (group commit).

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};
use parking_lot::Mutex;
use takhin_runtime::disk::{Disk, File, OpenMode};

use crate::entry::PreviousStop;
use crate::format::{NewerFormat, TMP, crc32c, len_u32, to_usize};

const MAGIC: &[u8; 8] = b"TKJR\0\x01\0\0";
/// The version in it.
const VERSION: u16 = 1;
const FRAME_HEAD: usize = 24;
const REMOVED: u32 = u32::MAX;
/// Longest key in bytes.
pub const MAX_KEY_LEN: usize = 1024;
/// Longest value in bytes.
pub const MAX_VALUE_LEN: usize = 1 << 20;
/// Longest payload of one frame in bytes; a longer `put` is refused.
const MAX_PAYLOAD: usize = 64 << 20;
/// Below this length the file is never rewritten.
const MIN_COMPACT: u64 = 256 << 10;
/// Largest file that is read; compaction keeps it far below.
const MAX_FILE: u64 = 1 << 30;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file of a directory that has been in use is missing.
    #[error("{path}: missing; this directory has been in use, so the votes in it are lost", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A newer release has written it.
    #[error("{path}: {newer}", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        newer: NewerFormat,
    },
    /// Damage that a torn write does not explain: what was promised before is not known any more.
    #[error("{path}: unreadable from byte {position} on", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where the damage begins.
        position: u64,
    },
    /// A key, a value or a whole put is longer than allowed; nothing was written.
    #[error("entry of {len} bytes is longer than {max}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The disk is full; nothing was written and the journal stays usable.
    #[error("{path}: no space left on the disk", path = path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused an operation.
    #[error("cannot {operation} {path}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its words.
        #[source]
        source: io::Error,
    },
    /// An earlier write or sync failed; nothing can be promised any more until the node restarts.
    #[error("{path}: failed earlier and takes no more writes", path = path.display())]
    Failed {
        /// The file.
        path: PathBuf,
    },
}

/// A change: a key with its new value, or `None` to remove it.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// The open journal. All methods may be called from many threads.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    inner: Mutex<Inner>,
    /// Held while syncing. Holds the sequence up to which everything is durable.
    synced: Mutex<u64>,
}

#[derive(Debug)]
struct Inner {
    file: Arc<dyn File>,
    len: u64,
    live: BTreeMap<Vec<u8>, Vec<u8>>,
    live_bytes: u64,
    next_sequence: u64,
    /// What frames say of their predecessors; may lag behind `Journal::synced`.
    synced: u64,
    failed: bool,
}

impl Journal {
    /// Creates an empty journal; durable on return. For a directory that is being initialised.
    ///
    /// # Errors
    ///
    /// `Io`, `Full`.
    pub fn create(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, JournalError> {
        write_whole(&*disk, path, &BTreeMap::new(), 0)?;
        Self::open(disk, path, PreviousStop::Clean)
    }

    /// Opens an existing journal and cuts a torn tail.
    ///
    /// # Errors
    ///
    /// `Missing`; `Newer`, and nothing is cut; `Unreadable` unless the way the previous owner stopped explains the damage: a
    /// kill may leave an incomplete last frame, a power loss anything that no later frame says was synced.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, previous: PreviousStop) -> Result<Self, JournalError> {
        let io = |operation| move |source| io_error(operation, path, source);
        let file = disk.open(path, OpenMode::Write).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => JournalError::Missing {
                path: path.to_owned(),
            },
            _ => io_error("open", path, e),
        })?;
        let len = file.len().map_err(io("measure"))?;
        if len > MAX_FILE {
            return Err(JournalError::Unreadable {
                path: path.to_owned(),
                position: MAX_FILE,
            });
        }
        let mut bytes = vec![0; to_usize(len)];
        file.read_exact_at(&mut bytes, 0).map_err(io("read"))?;
        let unreadable = |at: usize| JournalError::Unreadable {
            path: path.to_owned(),
            position: at as u64,
        };
        check_head(path, &bytes)?;
        let mut replay = Replay::default();
        let end = replay.run(&bytes);
        if end < bytes.len() {
            let tail = &bytes[end..];
            let torn = match previous {
                PreviousStop::Clean => false,
                PreviousStop::Killed | PreviousStop::Failed => is_incomplete(tail),
                PreviousStop::PowerLoss => true,
            };
            let promised = match previous {
                // Unsynced frames reach the disk in any order, so a later one proves nothing by being there.
                PreviousStop::PowerLoss => frame_vouches(tail, replay.next_sequence),
                PreviousStop::Clean | PreviousStop::Killed | PreviousStop::Failed => {
                    frame_follows(tail, replay.next_sequence)
                }
            };
            if !torn || promised {
                return Err(unreadable(end));
            }
            tracing::warn!(path = %path.display(), position = end, bytes = tail.len(), "cut a torn journal tail");
            file.set_len(end as u64).map_err(io("truncate"))?;
        }
        make_durable(&*file, &bytes[..end], previous).map_err(io("sync"))?;
        let live_bytes = replay
            .live
            .iter()
            .map(|(k, v)| entry_len(k, Some(v)) as u64)
            .sum();
        let inner = Inner {
            file,
            len: end as u64,
            live: replay.live,
            live_bytes,
            next_sequence: replay.next_sequence,
            synced: replay.next_sequence,
            failed: false,
        };
        let synced = Mutex::new(inner.next_sequence);
        Ok(Self {
            disk,
            path: path.to_owned(),
            inner: Mutex::new(inner),
            synced,
        })
    }

    /// Applies changes, all or none even across a crash. With `sync` they are durable on return; without, they become
    /// durable with a later synced put.
    ///
    /// # Errors
    ///
    /// `TooLong`, `Full`: nothing happened. `Io`, `Failed`: the journal takes no more writes.
    pub fn put(&self, changes: &[Change], sync: bool) -> Result<(), JournalError> {
        let payload = encode_payload(changes.iter().map(|(k, v)| (k.as_slice(), v.as_deref())))?;
        let sequence = {
            let mut inner = self.inner.lock();
            self.append(&mut inner, &payload)?;
            for (key, value) in changes {
                inner.apply(key, value.as_deref());
            }
            inner.next_sequence
        };
        if sync {
            self.sync_to(sequence)?;
        }
        self.maybe_compact()
    }

    /// The current value of a key.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.lock().live.get(key).cloned()
    }

    /// All keys with a prefix and their values, ascending.
    pub fn iter(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let inner = self.inner.lock();
        let from = inner.live.range(prefix.to_vec()..);
        from.take_while(|(k, _)| k.starts_with(prefix))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.inner.lock().len
    }

    fn append(&self, inner: &mut Inner, payload: &[u8]) -> Result<(), JournalError> {
        if inner.failed {
            return Err(JournalError::Failed {
                path: self.path.clone(),
            });
        }
        let head = frame_head(inner.next_sequence, inner.synced, payload);
        let written = inner
            .file
            .write_at(&mut [IoSlice::new(&head), IoSlice::new(payload)], inner.len);
        if let Err(source) = written {
            let error = io_error("write", &self.path, source);
            let cut = inner.file.set_len(inner.len);
            inner.failed = cut.is_err() || !matches!(error, JournalError::Full { .. });
            return Err(error);
        }
        inner.len += (head.len() + payload.len()) as u64;
        inner.next_sequence += 1;
        Ok(())
    }

    /// Makes every frame below `sequence` durable, or finds that somebody else did while this call waited.
    fn sync_to(&self, sequence: u64) -> Result<(), JournalError> {
        let mut synced = self.synced.lock();
        if *synced >= sequence {
            return Ok(());
        }
        let (file, written) = {
            let inner = self.inner.lock();
            if inner.failed {
                return Err(JournalError::Failed {
                    path: self.path.clone(),
                });
            }
            (inner.file.clone(), inner.next_sequence)
        };
        if let Err(source) = file.sync_data() {
            self.inner.lock().failed = true;
            return Err(io_error("sync", &self.path, source));
        }
        *synced = written;
        self.inner.lock().synced = written;
        Ok(())
    }

    /// Rewrites the file when live entries are less than a quarter of it.
    fn maybe_compact(&self) -> Result<(), JournalError> {
        let worth =
            |inner: &Inner| inner.len > MIN_COMPACT && inner.len > 4 * inner.live_bytes && !inner.failed;
        if !worth(&self.inner.lock()) {
            return Ok(());
        }
        let mut synced = self.synced.lock();
        let mut inner = self.inner.lock();
        if !worth(&inner) {
            return Ok(());
        }
        match write_whole(&*self.disk, &self.path, &inner.live, inner.next_sequence) {
            Ok((file, len)) => {
                inner.file = file;
                inner.len = len;
                inner.next_sequence += 1;
                *synced = inner.next_sequence;
                inner.synced = inner.next_sequence;
                Ok(())
            }
            // The old file is complete and stays in use; the next put tries again.
            Err(JournalError::Full { .. } | JournalError::TooLong { .. }) => Ok(()),
            Err(error) => {
                inner.failed = true;
                Err(error)
            }
        }
    }
}

impl Inner {
    fn apply(&mut self, key: &[u8], value: Option<&[u8]>) {
        let old = match value {
            Some(value) => {
                self.live_bytes += entry_len(key, Some(value)) as u64;
                self.live.insert(key.to_vec(), value.to_vec())
            }
            None => self.live.remove(key),
        };
        if let Some(old) = old {
            self.live_bytes -= entry_len(key, Some(&old)) as u64;
        }
    }
}

/// The first bytes of the file.
fn check_head(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let path = path.to_owned();
    match bytes.first_chunk() {
        Some(head) if head == MAGIC => Ok(()),
        Some([b'T', b'K', b'J', b'R', high, low, 0, 0]) => {
            let (found, known) = (u16::from_be_bytes([*high, *low]), VERSION);
            let newer = NewerFormat { found, known };
            if found > known {
                Err(JournalError::Newer { path, newer })
            } else {
                Err(JournalError::Unreadable { path, position: 0 })
            }
        }
        _ => Err(JournalError::Unreadable { path, position: 0 }),
    }
}

/// What replaying the frames gives.
#[derive(Default)]
struct Replay {
    live: BTreeMap<Vec<u8>, Vec<u8>>,
    next_sequence: u64,
}

impl Replay {
    /// Applies valid frames from the first on; returns where they end.
    fn run(&mut self, bytes: &[u8]) -> usize {
        let mut at = MAGIC.len();
        let mut first = true;
        while let Some(Frame {
            sequence, payload, ..
        }) = parse_frame(&bytes[at..])
        {
            // A rewritten file begins with any sequence; after that they count up.
            if !(first || sequence == self.next_sequence) || self.apply(payload).is_none() {
                break;
            }
            first = false;
            self.next_sequence = sequence + 1;
            at += FRAME_HEAD + payload.len();
        }
        at
    }

    fn apply(&mut self, mut payload: &[u8]) -> Option<()> {
        let b = &mut payload;
        for _ in 0..b.try_get_u32().ok()? {
            let len = usize::from(b.try_get_u16().ok()?);
            let key = b.split_off(..len)?.to_vec();
            match b.try_get_u32().ok()? {
                REMOVED => drop(self.live.remove(&key)),
                len => drop(self.live.insert(key, b.split_off(..len as usize)?.to_vec())),
            }
        }
        b.is_empty().then_some(())
    }
}

fn frame_head(sequence: u64, synced: u64, payload: &[u8]) -> [u8; FRAME_HEAD] {
    let mut head = [0; FRAME_HEAD];
    head[..4].copy_from_slice(&len_u32(payload.len()).to_be_bytes());
    head[8..16].copy_from_slice(&sequence.to_be_bytes());
    head[16..].copy_from_slice(&synced.to_be_bytes());
    let crc = crc32c(&[&head[..4], &head[8..], payload]);
    head[4..8].copy_from_slice(&crc.to_be_bytes());
    head
}

struct Frame<'a> {
    sequence: u64,
    synced: u64,
    payload: &'a [u8],
}

fn parse_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD)?;
    let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let crc = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let payload = rest.get(..len).filter(|p| p.len() <= MAX_PAYLOAD)?;
    let u64_at = |at: usize| {
        let mut x = [0; 8];
        x.copy_from_slice(&head[at..at + 8]);
        u64::from_be_bytes(x)
    };
    let frame = Frame {
        sequence: u64_at(8),
        synced: u64_at(16),
        payload,
    };
    (crc32c(&[&head[..4], &head[8..], payload]) == crc).then_some(frame)
}

/// Whether the bytes end inside the frame that they begin with.
fn is_incomplete(tail: &[u8]) -> bool {
    let Some(len) = tail.first_chunk::<4>() else {
        return true;
    };
    let len = u32::from_be_bytes(*len) as usize;
    len <= MAX_PAYLOAD && tail.len() < FRAME_HEAD + len
}

/// Whether a valid frame of this journal's future begins anywhere behind a damaged one.
fn frame_follows(tail: &[u8], next_sequence: u64) -> bool {
    later_frames(tail).any(|frame| frame.sequence >= next_sequence)
}

/// Whether a later frame says that the damaged one, of sequence `next_sequence`, had been made durable.
fn frame_vouches(tail: &[u8], next_sequence: u64) -> bool {
    later_frames(tail).any(|frame| frame.synced > next_sequence)
}

fn later_frames(tail: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    (1..tail.len()).filter_map(|at| parse_frame(&tail[at..]))
}

fn entry_len(key: &[u8], value: Option<&[u8]>) -> usize {
    6 + key.len() + value.map_or(0, <[u8]>::len)
}

fn encode_payload<'a>(
    entries: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
) -> Result<Vec<u8>, JournalError> {
    let too_long = |len, max| {
        if len > max {
            Err(JournalError::TooLong { len, max })
        } else {
            Ok(())
        }
    };
    let mut total = 4;
    for (key, value) in entries.clone() {
        too_long(key.len(), MAX_KEY_LEN)?;
        too_long(value.map_or(0, <[u8]>::len), MAX_VALUE_LEN)?;
        total += entry_len(key, value);
    }
    too_long(total, MAX_PAYLOAD)?;
    let mut out = Vec::with_capacity(total);
    out.put_u32(len_u32(entries.clone().count()));
    for (key, value) in entries {
        out.put_u16(u16::try_from(key.len()).unwrap_or(u16::MAX));
        out.put_slice(key);
        match value {
            Some(value) => {
                out.put_u32(len_u32(value.len()));
                out.put_slice(value);
            }
            None => out.put_u32(REMOVED),
        }
    }
    Ok(out)
}

/// Syncs what was read, `bytes`: it may never have been, and must not be lost after it was acted upon.
///
/// If a sync of the previous process failed, the page cache calls these bytes clean although the medium never got them:
/// only written again, in place so that a full disk does not stop it, are they synced.
fn make_durable(file: &dyn File, bytes: &[u8], previous: PreviousStop) -> io::Result<()> {
    if matches!(previous, PreviousStop::Killed | PreviousStop::Failed) {
        file.write_at(&mut [IoSlice::new(bytes)], 0)?;
    }
    file.sync_data()
}

/// Writes a new file with one entry for each live key and puts it in place; durable on return.
fn write_whole(
    disk: &dyn Disk,
    path: &Path,
    live: &BTreeMap<Vec<u8>, Vec<u8>>,
    sequence: u64,
) -> Result<(Arc<dyn File>, u64), JournalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(TMP);
    let tmp = PathBuf::from(name);
    let mut bytes = MAGIC.to_vec();
    let payload = encode_payload(live.iter().map(|(k, v)| (k.as_slice(), Some(v.as_slice()))))?;
    bytes.extend_from_slice(&frame_head(sequence, sequence, &payload));
    bytes.extend_from_slice(&payload);
    let file = disk
        .open(&tmp, OpenMode::CreateOrWrite)
        .map_err(|e| io_error("create", &tmp, e))?;
    let written = file
        .set_len(0)
        .and_then(|()| file.write_at(&mut [IoSlice::new(&bytes)], 0))
        .and_then(|()| file.sync_data());
    if let Err(e) = written {
        // Frees the space; the write's error is what the caller hears.
        let _ = disk.remove_file(&tmp);
        return Err(io_error("write", &tmp, e));
    }
    disk.rename(&tmp, path).map_err(|e| io_error("rename", &tmp, e))?;
    let dir = path.parent().unwrap_or(path);
    disk.sync_dir(dir)
        .map_err(|e| io_error("sync directory", dir, e))?;
    Ok((file, bytes.len() as u64))
}

fn io_error(operation: &'static str, path: &Path, source: io::Error) -> JournalError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull if operation == "write" => JournalError::Full { path },
        _ => JournalError::Io {
            operation,
            path,
            source,
        },
    }
}

#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
