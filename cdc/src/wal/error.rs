//! What can go wrong with the log.

use std::io;
use std::path::PathBuf;

use super::format::VERSION;

/// Why what was received cannot be kept, or not be read again.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk says no.
    #[error("wal.dir: cannot {what} {}: {source}; nothing more is read from the master", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Somebody else has the directory.
    #[error("wal.dir: another process uses {}; each needs a directory of its own", .0.display())]
    Locked(PathBuf),
    /// What is in a file is not what was written.
    #[error(
        "wal.dir: {} is damaged ({why}): remove the directory to have the master asked again from the saved position on; what it has deleted since is lost with it",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What was received does not begin where the log ends: that was begun anew meanwhile, or has it already.
    #[error("wal.dir: {} does not end where what was received begins; the master is asked again from its end", .0.display())]
    Elsewhere(PathBuf),
    /// What was written fills it.
    #[error(
        "wal.dir: wal.max_size is reached, and what was written in {} could not be deleted: start takhin-cdc again once the disk is \
         right",
        .0.display()
    )]
    Stuck(PathBuf),
    /// A newer build has written it.
    #[error("wal.dir: {} has version {found}, and this takhin-cdc knows {VERSION} at most; start a newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}
