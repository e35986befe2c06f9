//! The machine's own file system.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use rustix::io::{Errno, ReadWriteFlags};

use super::{DirEntry, Disk, File, OpenMode, Space};

/// Most slices that one `pwritev(2)` takes (`IOV_MAX`).
const MAX_SLICES: usize = 1024;

/// The machine's own file system, through plain system calls.
///
/// Files are created with mode 0600, directories with 0700 (both less the umask).
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// From the numbers of all blocks, of those that are free, and of those of them that are not reserved for root, and the size
/// of a block.
fn space([all, free, available]: [u64; 3], size: u64) -> Space {
    let usable = all.saturating_sub(free).saturating_add(available);
    Space {
        total: usable.saturating_mul(size),
        free: available.saturating_mul(size),
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::CreateOrWrite => options.write(true).create(true).truncate(false),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        let file = options.open(path)?;
        // A directory opens for reading; it would only fail later, at the first read.
        if mode == OpenMode::Read && file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // Removed since the listing began.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("file name {} is not UTF-8", name.display()),
                )
            })?;
            let is_dir = meta.is_dir();
            entries.push(DirEntry {
                name,
                is_dir,
                len: if is_dir { 0 } else { meta.len() },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = parent_of(path);
        if !parent.exists() {
            self.create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        self.sync_dir(parent)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn sync_fs(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(fs::File::open(path)?)?)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        let blocks = [stat.f_blocks, stat.f_bfree, stat.f_bavail];
        Ok(space(blocks, stat.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        // flock(2) belongs to the open file description, so that a second open in this process conflicts as well.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        std::path::absolute(path)
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned())
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, pos) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, mut parts: &mut [IoSlice<'_>], mut pos: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0); // drops leading empty slices
        while !parts.is_empty() {
            let batch = &parts[..parts.len().min(MAX_SLICES)];
            match rustix::io::pwritev(&self.0, batch, pos) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    pos += n as u64;
                    IoSlice::advance_slices(&mut parts, n);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not retried on EINTR: after any failed sync the caller must assume the bytes lost.
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn is_cached(&self, pos: u64, len: usize) -> bool {
        // Readahead fills pages in order, so the first and the last byte stand for what lies between them. A file
        // system without RWF_NOWAIT answers "no", which costs a thread hop and is never wrong.
        let cached = |at| {
            let mut byte = [0];
            rustix::io::preadv2(
                &self.0,
                &mut [IoSliceMut::new(&mut byte)],
                at,
                ReadWriteFlags::NOWAIT,
            )
            .is_ok()
        };
        len == 0 || (cached(pos) && cached(pos + (len as u64 - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or a broker with most of its disk left would ask for help.
    #[test]
    fn what_is_reserved_for_root_is_not_in_use() {
        // 252 blocks, 50 of them used, 160 reserved.
        let found = space([252, 202, 42], 10);
        assert_eq!((found.total, found.free), (920, 420));
    }
}
