//! Running programs: with a deadline, with their output captured, and never left behind.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::wait;

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs `command` to its end with nothing on standard input.
///
/// # Errors
/// When it cannot be started, does not finish within `limit` (it is then killed), or does not exit with 0.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let output = run_any(command, limit)?;
    if !output.status.success() {
        bail!(
            "{}: {}\n{}\n{}",
            describe(command),
            output.status,
            tail(&output.text(), 40),
            tail(&output.stderr, 40)
        );
    }
    Ok(output)
}

/// Like [`run`], but the exit status is the caller's to judge.
pub fn run_any(command: &mut Command, limit: Duration) -> Result<Output> {
    run_with_input(command, Stdio::null(), limit)
}

/// Like [`run_any`], with `input` as standard input.
///
/// Output goes through files, so that a program that writes much never waits for a reader.
pub fn run_with_input(command: &mut Command, input: Stdio, limit: Duration) -> Result<Output> {
    let mut stdout = tempfile::tempfile()?;
    let mut stderr = tempfile::tempfile()?;
    command
        .stdin(input)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let mut child = Running::start(command)?;
    let status = match child.wait(limit) {
        Ok(status) => status,
        Err(late) => {
            child.kill();
            bail!(
                "{late}\n{}",
                tail(&String::from_utf8_lossy(&content(&mut stderr)?), 40)
            );
        }
    };
    let stdout = content(&mut stdout)?;
    let stderr = String::from_utf8_lossy(&content(&mut stderr)?).into_owned();
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

fn content(file: &mut File) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut all)?;
    Ok(all)
}

/// A started program; killed with SIGKILL when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    /// Whether it leads a process group, which then ends with it.
    group: bool,
}

impl Running {
    /// Starts `command` as it is set up.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = describe(command);
        let child = command
            .spawn()
            .with_context(|| format!("{name}: cannot be started; e2e/setup/install.sh installs the tools"))?;
        Ok(Self {
            child,
            name,
            group: false,
        })
    }

    /// Starts `command` as the leader of a process group of its own: signals reach its children too.
    pub fn start_group(command: &mut Command) -> Result<Self> {
        let mut running = Self::start(command.process_group(0))?;
        running.group = true;
        Ok(running)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pipe to its standard input, if it was set up and not yet taken.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// The pipe from its standard output, if it was set up and not yet taken.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`; it goes on running.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait::value(format_args!("the end of {}", self.name), limit, || {
            Ok(child.try_wait()?)
        })
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("no such process")?;
        if self.group {
            rustix::process::kill_process_group(pid, signal)?;
        } else {
            rustix::process::kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone. Fine on one that has ended.
    pub fn kill(&mut self) {
        if self.group {
            // An empty group is fine.
            let _ = self.signal(Signal::KILL);
        }
        // It can fail only because the process has ended, and then the wait returns at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A short name of a command for messages: the program and its first arguments.
fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy())
        .filter(|w| !w.starts_with("-X") && !w.starts_with("-D") && !w.ends_with("/*") && *w != "-cp")
        .take(12)
        .collect();
    words.join(" ")
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// How a process ended, in words for a message.
pub fn ending(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("ended by signal {signal}"),
        None => format!("ended with {status}"),
    }
}
