//! Faults in single system calls of a running broker, by strace.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};
use tempfile::NamedTempFile;

use crate::process::{self, Running};
use crate::wait;

const LIMIT: Duration = Duration::from_secs(20);
/// The calls that make written bytes durable.
const SYNCS: &str = "fdatasync,fsync,syncfs,sync_file_range";

/// Every sync of a process is tampered with until this is dropped.
#[derive(Debug)]
pub struct Tampering {
    strace: Running,
    pid: u32,
    /// What strace writes down.
    said: NamedTempFile,
}

impl Tampering {
    /// Syncs fail with EIO.
    pub fn failing_syncs(pid: u32) -> Result<Self> {
        Self::start(pid, "error=EIO")
    }

    /// Syncs begin `delay` late. Everything else becomes slower too: strace looks at every call.
    pub fn slow_syncs(pid: u32, delay: Duration) -> Result<Self> {
        Self::start(pid, &format!("delay_enter={}", delay.as_micros()))
    }

    fn start(pid: u32, what: &str) -> Result<Self> {
        let mut command = Command::new("strace");
        let said = NamedTempFile::new()?;
        command.args(["--follow-forks", "--signal=none"]);
        command.arg(format!("--trace={SYNCS}"));
        command.arg(format!("--inject={SYNCS}:{what}"));
        command.arg("--output").arg(said.path());
        command.args(["--attach", &pid.to_string()]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut strace = Running::start(&mut command)?;
        wait::until("strace to hold every thread", LIMIT, || {
            if let Some(status) = strace.ended()? {
                bail!("strace {}", process::ending(status));
            }
            threads_are_traced(pid)
        })?;
        Ok(Self { strace, pid, said })
    }

    /// How many syncs have been delayed or failed by now.
    pub fn struck(&self) -> Result<usize> {
        let said = std::fs::read_to_string(self.said.path())?;
        let struck = |line: &&str| line.contains("(DELAYED)") || line.contains("(INJECTED)");
        Ok(said.lines().filter(struck).count())
    }
}

impl Drop for Tampering {
    fn drop(&mut self) {
        // SIGTERM lets it detach; without a tracer the broker runs on.
        let _ = self.strace.terminate();
        let _ = self.strace.wait(LIMIT);
        let _ = wait::until("strace to let go", LIMIT, || Ok(!threads_are_traced(self.pid)?));
    }
}

fn threads_are_traced(pid: u32) -> Result<bool> {
    let mut all = true;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else {
            continue;
        };
        all &= status
            .lines()
            .any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0"));
    }
    Ok(all)
}
