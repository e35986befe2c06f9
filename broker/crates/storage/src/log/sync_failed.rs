//! The note that a sync failed, for a process that cannot know it.
//!
//! After a failed sync the page cache may show bytes that the medium never got, and call them clean: a later sync then
//! succeeds without writing them (Linux marks pages clean whether or not they were written). In the process where it
//! happened the log is cut to its durable watermark when it is reopened. If the process is killed first, its successor
//! would read those bytes, find them valid, sync them without an error, and lose them at the next power loss, when
//! they have been acknowledged for long. So the failure is noted beside the segments:
//!
//! ```text
//! sync-failed   Checkpoint (53 bytes) | boot id
//! ```
//!
//! The invariant: **as long as a log may show bytes of a failed sync, its directory holds this note**, until recovery
//! has cut them. The note is not synced: it needs to outlive the process only, since a power loss also ends what the
//! page cache pretends. A note of an earlier boot is therefore void. What is left is a process killed between the
//! failure and the note.

use std::path::Path;

use takhin_runtime::disk::Disk;

use crate::entry::Checkpoint;
use crate::error::LogError;
use crate::format::{Kind, SYNC_FAILED};
use crate::segment::remove_if_exists;
use crate::whole::{self, Found};

/// Notes that a sync of the log in `dir` failed while it was durable up to `durable`.
pub(super) fn note(disk: &dyn Disk, dir: &Path, durable: &Checkpoint) -> Result<(), LogError> {
    let path = dir.join(SYNC_FAILED);
    let boot_id = disk
        .boot_id()
        .map_err(|e| LogError::io("read the boot id for", &path, e))?;
    let mut body = durable.encode().to_vec();
    body.extend_from_slice(boot_id.as_bytes());
    whole::write_cache(disk, &path, Kind::SyncFailed, &body).map(|_| ())
}

/// The durable watermark as of a failed sync of this boot, if the log has not been recovered since.
pub(super) fn noted(disk: &dyn Disk, dir: &Path) -> Result<Option<Checkpoint>, LogError> {
    let path = dir.join(SYNC_FAILED);
    let Found::Body(body) = whole::read(disk, &path, Kind::SyncFailed)? else {
        // A damaged one was torn by a power loss, and void anyway.
        return Ok(None);
    };
    let Some((durable, boot_id)) = body.split_at_checked(Checkpoint::LEN) else {
        return Ok(None);
    };
    let now = disk
        .boot_id()
        .map_err(|e| LogError::io("read the boot id for", &path, e))?;
    Ok(Checkpoint::decode(durable).filter(|_| boot_id == now.as_bytes()))
}

/// Removes the note: the log was recovered.
pub(super) fn settle(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    remove_if_exists(disk, &dir.join(SYNC_FAILED))
}
