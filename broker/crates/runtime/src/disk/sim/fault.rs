//! Which operation fails, and how.

use std::io;

use rustix::io::Errno;

use crate::rng::Rng;

/// Kind of a disk operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Opening or creating a file, also for a lock.
    Open,
    /// [`File::read_at`](crate::File::read_at).
    Read,
    /// [`File::write_at`](crate::File::write_at).
    Write,
    /// [`File::set_len`](crate::File::set_len).
    SetLen,
    /// [`File::sync_data`](crate::File::sync_data).
    SyncData,
    /// [`Disk::sync_dir`](crate::Disk::sync_dir).
    SyncDir,
    /// [`Disk::sync_fs`](crate::Disk::sync_fs).
    SyncFs,
    /// [`Disk::rename`](crate::Disk::rename); the path is the new name.
    Rename,
    /// [`Disk::remove_file`](crate::Disk::remove_file) and [`Disk::remove_dir_all`](crate::Disk::remove_dir_all).
    Remove,
    /// [`Disk::create_dir_all`](crate::Disk::create_dir_all).
    CreateDir,
    /// [`Disk::read_dir`](crate::Disk::read_dir).
    ReadDir,
}

impl Op {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::SetLen => "set_len",
            Self::SyncData => "sync_data",
            Self::SyncDir => "sync_dir",
            Self::SyncFs => "sync_fs",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::CreateDir => "create_dir",
            Self::ReadDir => "read_dir",
        }
    }
}

/// What an operation does instead of succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fails with `EIO`. A failed sync loses the bytes or names that it should have made durable.
    Eio,
    /// Fails with `ENOSPC`; a sync loses what it should have made durable (delayed allocation).
    Enospc,
    /// A read returns fewer bytes than asked for, at least one, without an error. A write lets a prefix that the
    /// seed chooses (down to nothing, torn at any byte) through and fails with `EIO`. Elsewhere the same as
    /// [`Fault::Eio`].
    Short,
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Eio | Self::Short => Errno::IO.into(),
            Self::Enospc => Errno::NOSPC.into(),
        }
    }
}

/// Which of the matching calls fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// The nth matching call after arming, counted from 1; once.
    Nth(u64),
    /// Every matching call.
    Always,
    /// Each matching call with this probability, 0.0 to 1.0.
    Probability(f64),
}

/// A rule that makes operations fail.
#[derive(Debug, Clone)]
pub struct FaultRule {
    /// Kind of operation.
    pub op: Op,
    /// Part of the path; empty matches every path. A file keeps the path under which it was opened.
    pub path: String,
    /// Which of the matching calls.
    pub when: When,
    /// What happens to them.
    pub fault: Fault,
}

#[derive(Debug, Default)]
pub(super) struct FaultRules {
    rules: Vec<(FaultRule, u64)>,
}

impl FaultRules {
    pub(super) fn arm(&mut self, rule: FaultRule) {
        self.rules.push((rule, 0));
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The fault of the first rule that fires; every matching rule counts the call.
    pub(super) fn fire(&mut self, op: Op, path: &str, rng: &Rng) -> Option<Fault> {
        let mut fired = None;
        for (rule, calls) in &mut self.rules {
            if rule.op != op || !path.contains(&rule.path) {
                continue;
            }
            *calls += 1;
            let hit = match rule.when {
                When::Nth(n) => *calls == n,
                When::Always => true,
                When::Probability(p) => rng.chance(p),
            };
            if hit && fired.is_none() {
                fired = Some(rule.fault);
            }
        }
        fired
    }
}
