//! An open file of the simulated disk.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use parking_lot::MutexGuard;
use rustix::io::Errno;

use super::content::{Content, MAX_LEN};
use super::fault::{Fault, Op};
use super::tree::Ino;
use super::{SimDisk, State, crashed};
use crate::disk::File;
use crate::sim::trace::hash_bytes;

#[derive(Debug)]
pub(super) struct SimFile {
    /// Carries the generation in which the file was opened.
    pub(super) disk: SimDisk,
    pub(super) ino: Ino,
    pub(super) path: PathBuf,
    pub(super) writable: bool,
}

impl SimFile {
    fn state(&self) -> MutexGuard<'_, State> {
        self.disk.shared.state.lock()
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(Errno::BADF.into())
        }
    }

    fn content<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Content> {
        if self
            .disk
            .generation
            .is_some_and(|generation| generation != state.generation)
        {
            return Err(crashed());
        }
        state.tree.file(self.ino)
    }

    /// How many of `len` bytes at `pos` still fit on the disk.
    fn fitting(&self, state: &mut State, pos: u64, len: u64) -> io::Result<u64> {
        let old = self.content(state)?.data().len() as u64;
        let Some(capacity) = state.capacity else {
            return Ok(len);
        };
        let end_limit = old + capacity.saturating_sub(state.tree.used());
        Ok(len.min(end_limit.saturating_sub(pos)))
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let mut state = self.state();
        let fault = self.disk.begin(&mut state, Op::Read, &self.path)?;
        let data = self.content(&mut state)?.data();
        let start = usize::try_from(pos).unwrap_or(usize::MAX).min(data.len());
        let mut n = buf.len().min(data.len() - start);
        match fault {
            None => {}
            Some(Fault::Short) => n = partial(&self.disk, n).max(n.min(1)),
            Some(fault) => return Err(fault.error()),
        }
        buf[..n].copy_from_slice(&data[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], pos: u64) -> io::Result<()> {
        self.check_writable()?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let start = usize::try_from(pos).map_err(|_| Errno::FBIG)?;
        if pos.saturating_add(total as u64) > MAX_LEN {
            return Err(Errno::FBIG.into());
        }
        let mut state = self.state();
        let (keep, result) = match self.disk.begin(&mut state, Op::Write, &self.path)? {
            Some(fault @ Fault::Short) => (partial(&self.disk, total), Err(fault.error())),
            Some(fault) => return Err(fault.error()),
            None => match usize::try_from(self.fitting(&mut state, pos, total as u64)?) {
                Ok(fits) if fits < total => (fits, Err(Errno::NOSPC.into())),
                _ => (total, Ok(())),
            },
        };
        let mut left = keep;
        let mut kept: Vec<&[u8]> = Vec::with_capacity(parts.len());
        let mut numbers = vec![pos, keep as u64];
        for part in parts.iter() {
            let part = &part[..part.len().min(left)];
            left -= part.len();
            numbers.push(hash_bytes(part));
            kept.push(part);
        }
        self.disk.shared.trace.event("written", "", &numbers);
        if keep > 0 {
            self.content(&mut state)?.write(start, &kept);
        }
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        let fault = self.disk.begin(&mut state, Op::SyncData, &self.path)?;
        let content = self.content(&mut state)?;
        match fault {
            None => {
                content.sync();
                Ok(())
            }
            Some(fault) => {
                content.drop_dirty();
                Err(fault.error())
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state();
        self.disk.begin_whole(&mut state, Op::SetLen, &self.path)?;
        let new = usize::try_from(len)
            .ok()
            .filter(|_| len <= MAX_LEN)
            .ok_or(Errno::FBIG)?;
        self.disk.shared.trace.event("len", "", &[len]);
        self.content(&mut state)?.set_len(new);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content(&mut self.state())?.data().len() as u64)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn is_cached(&self, _pos: u64, _len: usize) -> bool {
        !self.state().cold
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.state();
        // A crash closed everything that was open before it.
        if self.disk.generation == Some(state.generation) {
            state.tree.closed(self.ino);
        }
    }
}

/// A seeded length from 0 to `len`, exclusive.
fn partial(disk: &SimDisk, len: usize) -> usize {
    usize::try_from(disk.shared.rng.range(0..len as u64)).unwrap_or(0)
}
