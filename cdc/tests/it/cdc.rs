//! The program under test, as a process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use takhin_pika::Position;
use takhin_pika_testing::master::Master;
use tempfile::TempDir;

use crate::broker::{free_address, get, until};

/// A directory, a configuration, and the process; killed when dropped.
pub(crate) struct Cdc {
    dir: TempDir,
    /// Part of the names of its topics.
    pub(crate) cluster: String,
    pub(crate) admin: SocketAddr,
    child: Option<Child>,
    settings: Vec<String>,
    source: String,
}

impl Cdc {
    /// Not started yet. `sink` is the broker.
    pub(crate) fn new(master: &Master, sink: SocketAddr) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cluster = format!("t{}-{number}", std::process::id());
        let mut cdc = Self {
            dir: tempfile::tempdir().unwrap(),
            source: format!("source-{cluster}"),
            cluster,
            admin: free_address(),
            child: None,
            settings: Vec::new(),
        };
        let (port, dir) = (master.port(), cdc.dir.path().display());
        let text = format!(
            "source: {{ host: 127.0.0.1, port: {port}, cluster: {}, id: {}, timeout: 5s }}\n\
             sink: {{ bootstrap: [\"{sink}\"] }}\n\
             checkpoint: {{ dir: {dir}/data, topic_interval: 100ms }}\n\
             admin: {{ bind: \"{}\" }}\n",
            cdc.cluster, cdc.source, cdc.admin
        );
        fs::write(cdc.dir.path().join("cdc.yaml"), text).unwrap();
        cdc.set("snapshot.mode=no_data");
        cdc
    }

    /// A setting more.
    pub(crate) fn set(&mut self, setting: &str) -> &mut Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Has it go on from these positions.
    pub(crate) fn go_on_from(&self, replication_id: &str, positions: &BTreeMap<String, Position>) {
        let databases: serde_json::Map<String, serde_json::Value> = positions
            .iter()
            .map(|(db, position)| {
                let checkpoint = serde_json::json!({
                    "version": 1, "source_id": self.source, "db": db, "replication_id": replication_id,
                    "filenum": position.filenum, "offset": position.offset, "logic_id": 0, "ts_ms": 1,
                });
                (db.clone(), checkpoint)
            })
            .collect();
        let file = serde_json::json!({ "version": 1, "source_id": self.source, "databases": databases });
        fs::create_dir_all(self.data()).unwrap();
        fs::write(self.data().join("checkpoint.json"), file.to_string()).unwrap();
    }

    /// Has it listed with a port of its own, above which the master can connect to it, and push. Returns the port.
    pub(crate) fn listed(&mut self) -> u16 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let spread = std::process::id().wrapping_mul(6131);
        let port = loop {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            // Below the ports of masters, and of what the kernel hands out. The two above it are never those of another one.
            let port = 4000 + u16::try_from(spread.wrapping_add(step.wrapping_mul(37)) % 2000).unwrap();
            let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            if is_free(port + 1000) && is_free(port + 3000) {
                break port;
            }
        };
        self.set(&format!("source.listed_as=127.0.0.1:{port}"));
        port
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The file with positions that was written last.
    pub(crate) fn positions(&self) -> Vec<u8> {
        self.newest_positions().unwrap().0
    }

    fn newest_positions(&self) -> Option<(Vec<u8>, serde_json::Value)> {
        let read = |name| {
            let bytes = fs::read(self.data().join(name)).ok()?;
            // Torn where it is being written.
            let file = serde_json::from_slice(&bytes).ok()?;
            Some((bytes, file))
        };
        let order =
            |(_, file): &(_, serde_json::Value)| (file["crc32c"].is_null(), file["sequence"].as_u64());
        let files = ["checkpoint.json", "checkpoint-2.json"]
            .into_iter()
            .filter_map(read);
        files.max_by_key(order)
    }

    /// Puts back a file of before.
    pub(crate) fn put_back(&self, positions: &[u8]) {
        let _ = fs::remove_file(self.data().join("checkpoint-2.json"));
        fs::write(self.data().join("checkpoint.json"), positions).unwrap();
    }

    /// Forgets the file with positions.
    pub(crate) fn lose_file(&self) {
        fs::remove_dir_all(self.data()).unwrap();
    }

    /// The position in the file, of a database.
    pub(crate) fn saved(&self, db: &str) -> Option<Position> {
        let (_, file) = self.newest_positions()?;
        let of = &file["databases"][db];
        let filenum = u32::try_from(of["filenum"].as_u64()?).unwrap();
        Some(Position::new(filenum, of["offset"].as_u64()?))
    }

    /// Runs it with these words more, until it ends.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command().args(words).stdin(Stdio::null()).output().unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_takhin-cdc"));
        command.arg("--config").arg(self.dir.path().join("cdc.yaml"));
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command
    }

    pub(crate) fn start(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let child = self.command().stdin(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    /// Starts it and waits until it follows.
    pub(crate) fn start_and_wait(&mut self) {
        self.start();
        until("takhin-cdc is ready", || self.is_ready());
    }

    pub(crate) fn is_ready(&self) -> bool {
        get(self.admin, "/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// What `/readyz` says.
    pub(crate) fn says(&self) -> String {
        get(self.admin, "/readyz")
            .map(|(_, text)| text)
            .unwrap_or_default()
    }

    /// The value of a series; 0 where there is none.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let (_, text) = get(self.admin, "/metrics").unwrap_or_default();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// The most memory that it has had at a time, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let pid = self.child.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        kib / 1024
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let mut ended = None;
        until("takhin-cdc ends", || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// The process's own end.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let mut ended = None;
        until("takhin-cdc ends by itself", || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn topic(&self, end: &str) -> String {
        format!("pika.{}.{end}", self.cluster)
    }
}

impl Drop for Cdc {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("takhin-cdc has logged:\n{}", self.log());
        }
    }
}
