//! `takhin-cdc` as a process: started, hurt, stopped.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::broker::{free_addresses, http_get, is_ready, metric};
use crate::process::{self, Running};
use crate::{tools, wait};

/// Longest wait for anything, on a machine that does other things too.
pub const LIMIT: Duration = Duration::from_secs(90);

/// A directory, a configuration, and the process; killed when dropped.
#[derive(Debug)]
pub struct Cdc {
    work: TempDir,
    name: String,
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
            name: name.to_owned(),
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

    /// Has it listed with a port of its own, above which a master before 3.1 can connect to it.
    pub fn listed(&mut self) -> Result<&mut Self> {
        let port = loop {
            let [address] = free_addresses()?;
            if TcpListener::bind((address.ip(), address.port() + 1000)).is_ok() {
                break address.port();
            }
        };
        Ok(self.set(&format!("source.listed_as=127.0.0.1:{port}")))
    }

    /// The position in its file, of a database: file and offset.
    pub fn saved(&self, db: &str) -> Option<(u64, u64)> {
        // The later one of two that are written in turns; by hand is later than anything.
        let read = |name| {
            let text = fs::read_to_string(self.work.path().join("data").join(name)).ok()?;
            serde_json::from_str(&text).ok()
        };
        let order = |file: &serde_json::Value| (file["crc32c"].is_null(), file["sequence"].as_u64());
        let files = ["checkpoint.json", "checkpoint-2.json"]
            .into_iter()
            .filter_map(read);
        let file = files.max_by_key(order)?;
        let of = &file["databases"][db];
        Some((of["filenum"].as_u64()?, of["offset"].as_u64()?))
    }

    /// Has it go on from these positions: database, file and offset.
    pub fn go_on_from(&self, replication_id: &str, positions: &[(&str, (u64, u64))]) -> Result<()> {
        let databases: serde_json::Map<String, serde_json::Value> = positions
            .iter()
            .map(|(db, (filenum, offset))| {
                let checkpoint = serde_json::json!({
                    "version": 1, "source_id": self.name, "db": db, "replication_id": replication_id,
                    "filenum": filenum, "offset": offset, "logic_id": 0, "ts_ms": 1,
                });
                ((*db).to_owned(), checkpoint)
            })
            .collect();
        let file = serde_json::json!({ "version": 1, "source_id": self.name, "databases": databases });
        let dir = self.work.path().join("data");
        fs::create_dir_all(&dir)?;
        Ok(fs::write(dir.join("checkpoint.json"), file.to_string())?)
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("it was not started")?.pid())
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
        wait::until("takhin-cdc is ready", LIMIT, || Ok(is_ready(self.admin))).with_context(|| self.tail())
    }

    /// What `/readyz` says.
    pub fn says(&self) -> String {
        http_get(self.admin, "/readyz").unwrap_or_default()
    }

    /// The value of one series of its metrics, named with its labels as it is printed; 0 where there is none yet.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metric(&self, series: &str) -> Result<f64> {
        metric(self.admin, series)
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
        match fs::remove_dir_all(self.work.path().join("data")) {
            // It was killed before it made any.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => Ok(removed?),
        }
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
