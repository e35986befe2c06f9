//! Small files that are written whole and never changed in place.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use takhin_runtime::disk::{Disk, File, OpenMode};

use crate::error::LogError;
use crate::format::{FRAME_LEN, FrameError, Kind, MAX_BODY_LEN, TMP, seal, to_usize, unseal};

/// What reading a whole file found.
#[derive(Debug)]
pub(crate) enum Found {
    /// The body.
    Body(Vec<u8>),
    /// No such file.
    Missing,
    /// Unacceptable content.
    Bad(FrameError),
}

/// Writes `body` so that after a crash the file holds either its old or its new content; durable on return.
pub(crate) fn write_durable(disk: &dyn Disk, path: &Path, kind: Kind, body: &[u8]) -> Result<(), LogError> {
    let (file, tmp) = write_tmp(disk, path, kind, body)?;
    file.sync_data().map_err(|e| LogError::io("sync", &tmp, e))?;
    disk.rename(&tmp, path)
        .map_err(|e| LogError::io("rename", &tmp, e))?;
    let dir = path.parent().unwrap_or(path);
    disk.sync_dir(dir)
        .map_err(|e| LogError::io("sync directory", dir, e))
}

/// Writes `body` without making it durable, for files that can be rebuilt; returns the file, still to be synced.
pub(crate) fn write_cache(
    disk: &dyn Disk,
    path: &Path,
    kind: Kind,
    body: &[u8],
) -> Result<Arc<dyn File>, LogError> {
    let (file, tmp) = write_tmp(disk, path, kind, body)?;
    disk.rename(&tmp, path)
        .map_err(|e| LogError::io("rename", &tmp, e))?;
    Ok(file)
}

fn write_tmp(
    disk: &dyn Disk,
    path: &Path,
    kind: Kind,
    body: &[u8],
) -> Result<(Arc<dyn File>, PathBuf), LogError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(TMP);
    let tmp = PathBuf::from(name);
    let bytes = seal(kind, body);
    let file = disk
        .open(&tmp, OpenMode::CreateOrWrite)
        .map_err(|e| LogError::io("create", &tmp, e))?;
    let written = file
        .set_len(0)
        .and_then(|()| file.write_at(&mut [IoSlice::new(&bytes)], 0));
    if let Err(e) = written {
        // Frees the space of a half-written file; the caller hears of the write's error either way.
        let _ = disk.remove_file(&tmp);
        return Err(LogError::io("write", &tmp, e));
    }
    Ok((file, tmp))
}

/// Reads a whole file. Only errors of the operating system are errors; content is judged in [`Found`].
pub(crate) fn read(disk: &dyn Disk, path: &Path, kind: Kind) -> Result<Found, LogError> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(e) => return Err(LogError::io("open", path, e)),
    };
    let len = to_usize(file.len().map_err(|e| LogError::io("measure", path, e))?);
    if len > FRAME_LEN + MAX_BODY_LEN {
        return Ok(Found::Bad(FrameError::Damaged));
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|e| LogError::io("read", path, e))?;
    match unseal(kind, &bytes) {
        Ok(_) => {
            bytes.drain(..FRAME_LEN);
            Ok(Found::Body(bytes))
        }
        Err(e) => Ok(Found::Bad(e)),
    }
}
