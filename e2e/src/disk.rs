//! File systems that lose power or fill up, on a loop device and in memory. Needs root.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::{self, Running};

const LIMIT: Duration = Duration::from_secs(60);

/// A mounted file system; unmounted and removed when dropped.
#[derive(Debug)]
pub struct Mount {
    /// Where it is mounted.
    at: PathBuf,
    /// Holds the image; removed with this.
    _dir: TempDir,
    /// The loop image, or none for memory.
    image: Option<PathBuf>,
    /// How many are mounted there, one over the other.
    layers: usize,
}

impl Mount {
    /// XFS in a sparse file of `bytes` (at least 300 MiB), on a loop device.
    pub fn xfs(bytes: u64) -> Result<Self> {
        let dir = new_dir()?;
        let image = dir.path().join("image");
        File::create(&image)?.set_len(bytes)?;
        process::run(Command::new("mkfs.xfs").arg("-q").arg(&image), LIMIT)?;
        let mount = Self {
            at: dir.path().join("mnt"),
            _dir: dir,
            image: Some(image),
            layers: 1,
        };
        fs::create_dir(mount.path())?;
        mount.mount(&[])?;
        Ok(mount)
    }

    /// The same in the place of a directory that nobody uses at the moment, with all that is in it.
    pub fn xfs_over(directory: &Path, bytes: u64) -> Result<Self> {
        let mut mount = Self::xfs(bytes)?;
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(directory.join(".")).arg(mount.path());
        process::run(&mut copy, LIMIT)?;
        process::run(Command::new("umount").arg(mount.path()), LIMIT)?;
        directory.clone_into(&mut mount.at);
        mount.mount(&[])?;
        Ok(mount)
    }

    /// A tmpfs of `bytes`.
    pub fn memory(bytes: u64) -> Result<Self> {
        let dir = new_dir()?;
        let mount = Self {
            at: dir.path().join("mnt"),
            _dir: dir,
            image: None,
            layers: 1,
        };
        fs::create_dir(mount.path())?;
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(mount.path());
        process::run(&mut command, LIMIT)?;
        Ok(mount)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.at.clone()
    }

    /// Cuts the power: from now on every call fails with EIO, and what was not made durable is gone for good.
    ///
    /// `XFS_IOC_GOINGDOWN` without a log flush: neither dirty pages nor unwritten log records reach the image. The
    /// image itself survives, so this is the loss of a machine's memory, not of a disk's own volatile cache.
    pub fn cut_power(&self) -> Result<()> {
        process::run(
            Command::new("xfs_io")
                .args(["-x", "-c", "shutdown"])
                .arg(self.path()),
            LIMIT,
        )?;
        Ok(())
    }

    /// Mounts again after [`Mount::cut_power`]; the processes that used it must have ended.
    pub fn restore_power(&self) -> Result<()> {
        process::run(Command::new("umount").arg(self.path()), LIMIT)?;
        self.mount(&[])
    }

    /// Puts a disk with the same content in its place after [`Mount::cut_power`]. Files that a process still has open go
    /// on failing.
    pub fn replace(&mut self) -> Result<()> {
        let image = self.image.as_mut().context("only an image can be replaced")?;
        let copy = image.with_extension("new");
        let mut cp = Command::new("cp");
        process::run(cp.arg("--sparse=always").arg(&*image).arg(&copy), LIMIT)?;
        // The old one lives on in the kernel, and holds its image.
        fs::rename(&copy, image)?;
        // On top of the old one: without it, what lies below would be seen for a moment.
        self.mount(&["nouuid"])?;
        self.layers += 1;
        Ok(())
    }

    /// Freezes it: whoever writes waits in the kernel, and cannot even be killed, until what is returned is dropped.
    ///
    /// Another process holds it frozen, and thaws it when this one dies.
    pub fn freeze(&self) -> Result<Frozen> {
        let path = self.path();
        let mut command = Command::new("sh");
        let script = "trap : INT TERM; fsfreeze -f \"$0\" && echo frozen; read -r _; fsfreeze -u \"$0\"";
        command.args(["-c", script]).arg(&path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut frozen = Frozen {
            holder: Running::start(&mut command)?,
        };
        let stdout = frozen.holder.stdout().context("the pipe of the holder")?;
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said)?;
        ensure!(said == "frozen\n", "fsfreeze {} failed", path.display());
        Ok(frozen)
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) -> Result<()> {
        process::run(Command::new("sync").arg("-f").arg(self.path()), LIMIT)?;
        Ok(())
    }

    fn mount(&self, options: &[&str]) -> Result<()> {
        let image = self
            .image
            .as_ref()
            .context("only an image can be mounted again")?;
        process::run(
            Command::new("mount")
                .args(["-o", &[&["loop"], options].concat().join(",")])
                .arg(image)
                .arg(self.path()),
            LIMIT,
        )?;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that is just being killed must not keep the mount for ever.
        for _ in 0..self.layers {
            let _ = process::run(Command::new("umount").arg("-l").arg(self.path()), LIMIT);
        }
    }
}

/// A frozen file system; thawed when dropped.
#[derive(Debug)]
pub struct Frozen {
    holder: Running,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.holder.stdin());
        // It waits for nothing but the kernel. Killed before it has thawed the file system that would stay frozen.
        let _ = self.holder.wait(LIMIT);
    }
}

fn new_dir() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("takhin-e2e-disk-").tempdir()?)
}

/// A file that takes `bytes` of a file system's space until it is removed.
pub fn fill(path: &Path, bytes: u64) -> Result<()> {
    let file = File::create(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    Ok(())
}
