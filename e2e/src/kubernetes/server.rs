//! One server program of a cluster, and its log.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, Running};
use crate::wait;

/// A start on a machine that is busy with other things.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Lines of its log that a failure shows.
const TAIL: usize = 200;

/// One process, with what it has written.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    log: PathBuf,
    process: Running,
}

impl Server {
    /// Starts it where this process is.
    pub(super) fn start_here(
        name: &'static str,
        program: &Path,
        folder: &Path,
        arguments: &[String],
    ) -> Result<Self> {
        // The kernel ends it when this process dies, whatever the reason.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        Self::start(name, command, program, folder, arguments)
    }

    /// Starts it by `command`, which takes a program and its arguments.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        program: &Path,
        folder: &Path,
        arguments: &[String],
    ) -> Result<Self> {
        let path = folder.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        command.arg(program).args(arguments).current_dir(folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self {
            name,
            log: path,
            process: Running::start(&mut command)?,
        })
    }

    /// Waits for something that it does, unless it ends.
    pub(super) fn until(&mut self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let waited = wait::until(what, START_LIMIT, || {
            self.check()?;
            holds()
        });
        waited.with_context(|| self.tail())
    }

    /// Fails if it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.process.ended()? {
            Some(status) => bail!("{} {}\n{}", self.name, process::ending(status), self.tail()),
            None => Ok(()),
        }
    }

    /// The end of what it has written.
    pub(super) fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        format!(
            "{}:\n{}",
            self.name,
            process::tail(&String::from_utf8_lossy(&text), TAIL)
        )
    }

    /// Its process.
    pub(super) fn process(&self) -> &Running {
        &self.process
    }
}
