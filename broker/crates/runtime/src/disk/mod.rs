//! The disk as two small traits; every file that Takhin touches goes through them.
//!
//! All calls block the calling thread. Callers on an async worker keep them short (page-cache writes of one
//! batch) or move them to `task::blocking`.
//!
//! Durability contract, the same for the real and the simulated disk:
//! - bytes written by [`File::write_at`] are visible to every reader at once and durable only after
//!   [`File::sync_data`] returned `Ok`;
//! - a created, renamed or removed name is durable only after [`Disk::sync_dir`] of its directory;
//! - after a failed sync nothing may be assumed about what is on disk, and a later successful sync proves
//!   nothing about the earlier bytes: callers never retry.

pub mod real;
#[cfg(feature = "test-util")]
pub mod sim;
mod watch;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use watch::DiskWatch;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, reading only.
    Read,
    /// Existing file, reading and writing.
    Write,
    /// Reading and writing; created empty if missing.
    CreateOrWrite,
    /// Reading and writing; must not exist yet.
    CreateNew,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// File name without its directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Size in bytes; 0 for directories.
    pub len: u64,
}

/// Space of the file system that holds a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What is used and what is free together. What is reserved for root is neither, as in `df`.
    pub total: u64,
    /// Bytes an unprivileged process may still write.
    pub free: u64,
}

/// A directory tree on some medium.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Lists a directory, sorted by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Creates a directory and its parents; existing ones are fine. Durable on return.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames, replacing an existing file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes names created, renamed or removed in this directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything written so far to the file system holding `path` durable (`syncfs(2)`).
    fn sync_fs(&self, path: &Path) -> io::Result<()>;
    /// The path from the root of the tree; it need not exist.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf>;
    /// Free and total space.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes the exclusive lock on `path` (created if missing) until the guard drops; `WouldBlock` when another
    /// process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Identifies the current power-on period: equal for two processes exactly when no reboot lies between them.
    fn boot_id(&self) -> io::Result<String>;
}

/// An open file. Positions are explicit; there is no cursor.
pub trait File: Debug + Send + Sync + 'static {
    /// Reads up to `buf.len()` bytes at `pos`; 0 at or past the end.
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize>;
    /// Writes all slices one after the other at `pos`, extending the file as needed. A failed call may have
    /// written a prefix.
    fn write_at(&self, parts: &mut [IoSlice<'_>], pos: u64) -> io::Result<()>;
    /// Makes the bytes and the length durable (`fdatasync(2)`).
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// The descriptor for `sendfile(2)`; `None` on a simulated disk.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
    /// Whether `[pos, pos + len)` can most likely be read without waiting for the medium.
    fn is_cached(&self, pos: u64, len: usize) -> bool;

    /// Reads exactly `buf.len()` bytes at `pos`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, mut buf: &mut [u8], mut pos: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, pos)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    buf = &mut buf[n..];
                    pos += n as u64;
                }
            }
        }
        Ok(())
    }
}
