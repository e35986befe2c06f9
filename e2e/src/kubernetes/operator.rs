//! `takhin-operator` as a process of its own.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::broker::{free_addresses, http_get, metric};
use crate::process::{self, Running};
use crate::{tools, wait};

/// Time for knowing all resources.
const START_LIMIT: Duration = Duration::from_secs(60);

/// An operator; killed when dropped.
#[derive(Debug)]
pub struct Operator {
    process: Running,
    address: SocketAddr,
    log: PathBuf,
}

impl Operator {
    /// Starts one with the identity in `kubeconfig`; its log goes to a file of that name in `folder`.
    ///
    /// # Errors
    /// There is no program.
    pub fn start(kubeconfig: &Path, folder: &Path, name: &str, arguments: &[&str]) -> Result<Self> {
        let [address] = free_addresses()?;
        let log = folder.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new("setpriv");
        // The kernel ends it when this process dies, whatever the reason.
        command.args(["--pdeathsig", "KILL"]).arg(binary()?).arg("run");
        command.args([
            "--bind",
            &address.to_string(),
            "--identity",
            name,
            "--log-format",
            "text",
        ]);
        command.args(arguments).env("KUBECONFIG", kubeconfig);
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Ok(Self {
            process: Running::start(&mut command)?,
            address,
            log,
        })
    }

    /// Waits until it knows all resources.
    ///
    /// # Errors
    /// It ends, or does not in time.
    pub fn ready(&mut self) -> Result<()> {
        wait::until("the operator to be ready", START_LIMIT, || {
            if let Some(status) = self.ended()? {
                bail!("the operator {status}");
            }
            Ok(http_get(self.address, "/readyz").is_ok_and(|answer| answer.contains(" 200 ")))
        })
        .with_context(|| self.tail())
    }

    /// `takhin-operator check` against it, for objects in this namespace.
    ///
    /// # Errors
    /// It fails; the message has what it says.
    pub fn check(&self, kubeconfig: &Path, namespace: &str) -> Result<()> {
        let mut check = Command::new(binary()?);
        let address = self.address.to_string();
        check
            .args(["check", &address, "--namespace", namespace])
            .env("KUBECONFIG", kubeconfig);
        process::run(&mut check, START_LIMIT).map(drop)
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Result<Option<String>> {
        Ok(self.process.ended()?.map(process::ending))
    }

    /// Whether it is the one that works.
    pub fn leads(&self) -> bool {
        self.metric("takhin_operator_leader")
            .is_ok_and(|value| value == 1.0)
    }

    /// The value of a series of its metrics; 0 where there is none yet.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metric(&self, series: &str) -> Result<f64> {
        metric(self.address, series)
    }

    /// A line of `/proc/PID/status` that is in kB, such as `VmHWM`, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self, line: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let found = status
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes: u64 = found
            .context("no such line")?
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kilobytes * 1024)
    }

    /// Processor time that it has used.
    ///
    /// # Errors
    /// It has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.pid()))?;
        // Behind the name, which may have anything in it, user and system time are fields 12 and 13 (proc(5): 14 and 15).
        let (_, fields) = stat.rsplit_once(')').context("not a stat file")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // USER_HZ, which is part of the interface: 100.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// SIGTERM, and waits for its orderly end.
    ///
    /// # Errors
    /// It does not end, or not with 0.
    pub fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        let status = self
            .process
            .wait(Duration::from_secs(30))
            .with_context(|| self.tail())?;
        ensure!(
            status.success(),
            "the operator {}\n{}",
            process::ending(status),
            self.tail()
        );
        Ok(())
    }

    /// Stops it as if its machine hung.
    ///
    /// # Errors
    /// It has ended.
    pub fn freeze(&self) -> Result<()> {
        self.process.freeze()
    }

    /// Has it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn thaw(&self) -> Result<()> {
        self.process.thaw()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Its whole log.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// The end of its log, for messages.
    pub fn tail(&self) -> String {
        process::tail(&self.log().unwrap_or_default(), 40)
    }
}

/// `TAKHIN_OPERATOR_BIN`, else the newer one of the release and the debug build of this checkout.
fn binary() -> Result<PathBuf> {
    tools::built(
        "TAKHIN_OPERATOR_BIN",
        "takhin-operator",
        "cargo build -p takhin-operator",
    )
}
