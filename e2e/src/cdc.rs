//! `takhin-cdc` as a process: started, hurt, stopped.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::broker::{free_addresses, http_get};
use crate::process::{self, Running};
use crate::{tools, wait};

/// Longest wait for anything, on a machine that does other things too.
pub const LIMIT: Duration = Duration::from_secs(90);

/// A directory, a configuration, and the process; killed when dropped.
#[derive(Debug)]
pub struct Cdc {
    work: TempDir,
    admin: SocketAddr,
    settings: Vec<String>,
    process: Option<Running>,
}

impl Cdc {
    /// Not started yet. It follows the master at this port of loopback, and writes to topics `pika.<name>...` of the brokers.
    pub fn new(name: &str, master: u16, bootstrap: &str) -> Result<Self> {
        let work = tempfile::Builder::new().prefix("takhin-cdc-").tempdir()?;
        let [admin] = free_addresses()?;
        let text = format!(
            "source: {{ host: 127.0.0.1, port: {master}, cluster: {name}, id: {name}, timeout: 5s }}\n\
             sink: {{ bootstrap: [\"{bootstrap}\"] }}\n\
             checkpoint: {{ dir: {}, topic_interval: 100ms }}\n\
             admin: {{ bind: \"{admin}\" }}\n",
            work.path().join("data").display()
        );
        fs::write(work.path().join("cdc.yaml"), text)?;
        Ok(Self {
            work,
            admin,
            settings: Vec::new(),
            process: None,
        })
    }

    /// A setting more, as `--set` takes it.
    pub fn set(&mut self, setting: &str) -> &mut Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Its command, with these words more.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.arg("--config").arg(self.work.path().join("cdc.yaml"));
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.args(words);
        Ok(command)
    }

    /// Starts it and returns at once.
    pub fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let own = self.command(&[])?;
        // The kernel kills it when this process dies, whatever the reason.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(own.get_program())
            .args(own.get_args());
        command
            .stdin(Stdio::null())
            .stdout(File::create(self.work.path().join("out"))?)
            .stderr(log);
        self.process = Some(Running::start(&mut command)?);
        Ok(())
    }

    /// Waits until it follows.
    ///
    /// # Errors
    /// It does not in time; with the end of its log.
    pub fn wait_ready(&self) -> Result<()> {
        wait::until("takhin-cdc is ready", LIMIT, || {
            Ok(http_get(self.admin, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
        })
        .with_context(|| self.tail())
    }

    /// What `/readyz` says.
    pub fn says(&self) -> String {
        http_get(self.admin, "/readyz").unwrap_or_default()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("it was not started")?.freeze()
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("it was not started")?.thaw()
    }

    /// Waits until it ends by itself.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("it was not started")?;
        process.wait(LIMIT).with_context(|| self.tail())
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.as_ref().context("it was not started")?.terminate()?;
        self.wait_end()
    }

    /// Forgets all that it has on its disk.
    pub fn lose_disk(&self) -> Result<()> {
        Ok(fs::remove_dir_all(self.work.path().join("data"))?)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of that, for messages.
    pub fn tail(&self) -> String {
        process::tail(&self.log(), 40)
    }

    fn log_path(&self) -> PathBuf {
        self.work.path().join("log")
    }
}

impl Drop for Cdc {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `TAKHIN_CDC_BIN`, else the newer one of the release and the debug build of this checkout.
fn binary() -> Result<PathBuf> {
    tools::built("TAKHIN_CDC_BIN", "takhin-cdc", "cargo build -p takhin-cdc")
}
