//! One broker process on loopback: started, waited for, hurt, stopped.

mod kafka;
mod takhin;

use std::fs::{self, File, OpenOptions};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::process::{self, Running};
use crate::wait;
use crate::wire;

pub(crate) use takhin::{http_get, is_ready, metric};

/// Which broker the suites run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Apache Kafka, one KRaft node: proves the suites.
    Kafka,
    /// The broker of this repository.
    Takhin,
}

impl Kind {
    /// `E2E_BROKER`, by default takhin.
    ///
    /// # Errors
    /// When the variable names neither.
    pub fn from_env() -> Result<Self> {
        match std::env::var("E2E_BROKER").as_deref() {
            Ok("kafka") => Ok(Self::Kafka),
            Ok("takhin") | Err(_) => Ok(Self::Takhin),
            Ok(other) => bail!("E2E_BROKER={other}: say kafka or takhin"),
        }
    }
}

/// A start, recovery included, on a shared machine with two cores.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// One broker: its directories and addresses stay the same over restarts. Killed when dropped.
#[derive(Debug)]
pub struct Broker {
    kind: Kind,
    work: TempDir,
    data: PathBuf,
    kafka: SocketAddr,
    admin: SocketAddr,
    /// Only Kafka's: takhin opens no further port while it is alone.
    controller: SocketAddr,
    node_id: u32,
    settings: Vec<(String, String)>,
    wrapper: Vec<String>,
    /// Instead of the takhin that suites run.
    binary: Option<PathBuf>,
    process: Option<Running>,
}

impl Broker {
    /// A broker with a data directory of its own; not started yet.
    pub fn new(kind: Kind) -> Result<Self> {
        let work = tempfile::Builder::new().prefix("takhin-e2e-").tempdir()?;
        let data = work.path().join("data");
        Self::build(kind, work, data)
    }

    /// A broker that keeps its data in `data`, for instance on a mounted image; not started yet.
    pub fn with_data_dir(kind: Kind, data: &Path) -> Result<Self> {
        let work = tempfile::Builder::new().prefix("takhin-e2e-").tempdir()?;
        Self::build(kind, work, data.to_owned())
    }

    fn build(kind: Kind, work: TempDir, data: PathBuf) -> Result<Self> {
        let [kafka, admin, controller] = free_addresses()?;
        Ok(Self {
            kind,
            work,
            data,
            kafka,
            admin,
            controller,
            node_id: 1,
            settings: Vec::new(),
            wrapper: Vec::new(),
            binary: None,
            process: None,
        })
    }

    /// Adds a broker setting, in the words of the kind at hand (`server.properties` or `--set`).
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The number and the address of the broker from the first start on, for suites that expect certain ones.
    pub fn identify(&mut self, node_id: u32, kafka: SocketAddr) -> &mut Self {
        self.node_id = node_id;
        self.kafka = kafka;
        self
    }

    /// Has it listen on an address of its own, at the usual ports, as on a machine of its own. Other machines reach
    /// that, so its configuration must say that this is wanted.
    pub fn place(&mut self, ip: IpAddr) -> &mut Self {
        self.kafka = SocketAddr::new(ip, 9092);
        self.admin = SocketAddr::new(ip, 9644);
        self.controller = SocketAddr::new(ip, 33145);
        self
    }

    /// Other addresses for clients, the admin API and other brokers, from the next start on.
    pub fn relocate(&mut self) -> Result<()> {
        [self.kafka, self.admin, self.controller] = free_addresses()?;
        self.settings.retain(|(key, _)| key != "rpc.bind");
        let peer = self.controller.to_string();
        self.set("rpc.bind", &peer);
        Ok(())
    }

    /// Another data directory, from the next start on.
    pub fn move_to(&mut self, data: &Path) -> &mut Self {
        data.clone_into(&mut self.data);
        self
    }

    /// Words to put before the broker's own command from the next start on, for instance `strace -D`. The wrapper must
    /// leave the broker under the process id that it was started with.
    pub fn wrap(&mut self, wrapper: &[&str]) -> &mut Self {
        self.wrapper = wrapper.iter().map(|&w| w.to_owned()).collect();
        self
    }

    /// Another takhin than the one that suites run, from the next start on; none for that one again.
    pub fn use_binary(&mut self, binary: Option<&Path>) -> &mut Self {
        self.binary = binary.map(Path::to_owned);
        self
    }

    /// Whether it has another takhin than the one that suites run.
    pub fn has_other_binary(&self) -> bool {
        self.binary.is_some()
    }

    /// Which broker this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The number that it has from its next start on, or has.
    pub fn node_id(&self) -> u32 {
        self.node_id
    }

    /// `host:port` for clients.
    pub fn bootstrap(&self) -> String {
        self.kafka.to_string()
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.kafka
    }

    /// A free address for what other brokers ask of it.
    pub fn peer_address(&self) -> SocketAddr {
        self.controller
    }

    /// The address of takhin's health and metrics.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The value of one series of takhin's metrics, named with its labels as it is printed; 0 where there is none yet.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn metric(&self, series: &str) -> Result<f64> {
        metric(self.admin, series)
    }

    /// Starts the process and waits until it serves clients.
    ///
    /// # Errors
    /// When it is running already, ends, or is not ready in time; the message carries the end of its log.
    pub fn start(&mut self) -> Result<()> {
        self.start_process()?;
        let ready = self.wait_ready();
        if ready.is_err() {
            self.kill();
        }
        ready
    }

    /// Starts the process and returns at once.
    pub fn start_process(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the broker runs already");
        let own = match self.kind {
            Kind::Kafka => kafka::command(self)?,
            Kind::Takhin => takhin::command(self)?,
        };
        // The kernel kills the broker when this process dies, whatever the reason.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(&self.wrapper);
        command.arg(own.get_program()).args(own.get_args());
        for (key, value) in own.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(Running::start(&mut command)?);
        Ok(())
    }

    /// Waits until a started broker serves clients.
    pub fn wait_ready(&mut self) -> Result<()> {
        let (kind, kafka, admin, log) = (self.kind, self.kafka, self.admin, self.log_path());
        let process = self.process.as_mut().context("the broker was not started")?;
        let ready = wait::until(format_args!("{kind:?} to be ready"), START_LIMIT, || {
            if let Some(status) = process.ended()? {
                bail!("{kind:?} {} at start", process::ending(status));
            }
            if kind == Kind::Takhin && !is_ready(admin) {
                return Ok(false);
            }
            Ok(wire::Connection::open(kafka)
                .and_then(|mut c| c.metadata_brokers())
                .is_ok_and(|n| n > 0))
        });
        ready.with_context(|| format!("the end of its log:\n{}", log_tail(&log)))
    }

    /// Asks takhin's admin API, with a token if there is one; returns the status and the JSON of the answer.
    ///
    /// # Errors
    /// When there is no answer, or one that is no JSON.
    pub fn ask_admin(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
    ) -> Result<(u16, serde_json::Value)> {
        let header = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let answer = takhin::http(self.admin, method, path, &header.unwrap_or_default())?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("an answer without a head")?;
        let status = head
            .split_ascii_whitespace()
            .nth(1)
            .context("an answer without a status")?;
        let json = serde_json::from_str(body).with_context(|| format!("{method} {path}: {answer}"))?;
        Ok((status.parse()?, json))
    }

    /// Waits until the process ends by itself; kills it when it does not.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the broker was not started")?;
        process.wait(limit).with_context(|| self.log_tail())
    }

    /// kill -9, and waits until the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP: from here on it says nothing to anybody. What its threads have asked of the kernel goes on.
    pub fn freeze(&self) -> Result<()> {
        self.process
            .as_ref()
            .context("the broker was not started")?
            .freeze()
    }

    /// SIGCONT: it goes on where it was frozen.
    pub fn thaw(&self) -> Result<()> {
        self.process
            .as_ref()
            .context("the broker was not started")?
            .thaw()
    }

    /// SIGTERM, and waits for an orderly end.
    ///
    /// # Errors
    /// When it does not end in time, or ends with a failure.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the broker was not started")?;
        process.terminate()?;
        let status = process.wait(STOP_LIMIT).with_context(|| self.log_tail())?;
        // A JVM ends with 128 + SIGTERM after its orderly shutdown.
        let orderly = status.success() || (self.kind == Kind::Kafka && status.code() == Some(143));
        ensure!(
            orderly,
            "the broker {} on SIGTERM\n{}",
            process::ending(status),
            self.log_tail()
        );
        Ok(())
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> Result<bool> {
        match self.process.as_mut() {
            Some(process) => Ok(process.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// The broker's process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the broker was not started")?.pid())
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// The end of its output, for messages.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log_path())
    }

    /// Where its output goes.
    pub fn log_path(&self) -> PathBuf {
        self.work.path().join("broker.log")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if let Some(dir) = std::env::var_os("E2E_KEEP_LOGS") {
            let name = format!("{:?}-{}-{}.log", self.kind, self.node_id, self.kafka.port());
            // Only a convenience for the person at the keyboard.
            let _ = fs::copy(self.log_path(), Path::new(&dir).join(name));
        }
    }
}

fn log_tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    process::tail(&String::from_utf8_lossy(&text), 40)
}

/// The takhin that suites run: `TAKHIN_BIN`, else the newer one of the builds of this checkout.
///
/// # Errors
/// There is none.
pub fn takhin_binary() -> Result<PathBuf> {
    takhin::binary()
}

/// Ports for brokers: below those that systems give to outgoing connections, of which one might have taken the port of a
/// broker that is down for a moment.
const PORTS: Range<u16> = 10_000..32_000;

/// Loopback addresses that nothing listened on a moment ago, and that this process has not given to anybody yet.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Suites that run side by side begin at places of their own.
    let first = std::process::id().wrapping_mul(7_919);
    let free = (0..count).filter_map(|_| {
        let next = GIVEN.fetch_add(1, Ordering::Relaxed).wrapping_add(first) % count;
        let port = PORTS.start + u16::try_from(next).ok()?;
        let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
        listener.local_addr().ok()
    });
    let free: Vec<SocketAddr> = free.take(N).collect();
    free.try_into().ok().context("free ports between 10000 and 32000")
}

/// Writes a small file of the work directory.
fn write_file(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    File::create(path)?
        .write_all(content.as_bytes())
        .with_context(|| path.display().to_string())
}
