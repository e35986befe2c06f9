//! The programs that are compared, as processes.

mod kafka;
mod takhin;
mod trio;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) use self::trio::Trio;
use crate::admin::Admin;

/// How long a broker may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(180);

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Apache Kafka.
    Kafka,
    /// Takhin.
    Takhin,
    /// A broker that reads Produce requests, acknowledges them and stores nothing: a limit, never a side.
    #[value(skip)]
    Sink,
}

impl Kind {
    /// Name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Takhin => "takhin",
            Self::Sink => "sink",
        }
    }
}

/// When a record counts as written (both sides with one replica).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// In the page cache: Kafka's default.
    Cached,
    /// After fsync: Takhin's default, `flush.messages=1` in Kafka.
    Flushed,
}

impl Durability {
    /// Name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Flushed => "flushed",
        }
    }
}

/// How to start brokers.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    /// Directory for data and logs of all brokers of this run.
    pub(crate) work_dir: PathBuf,
    /// The directory of Kafka's jars, once known.
    pub(crate) kafka_jars: Option<PathBuf>,
    /// Takhin's program.
    pub(crate) takhin: PathBuf,
    /// Core for brokers, if they are pinned.
    pub(crate) core: Option<usize>,
}

/// Which member of a cluster a broker is.
struct Member<'a> {
    /// Its id, from 1 on.
    id: usize,
    /// Where the members find each other, in the order of ids.
    peers: &'a [SocketAddr],
}

impl Member<'_> {
    fn own(&self) -> SocketAddr {
        self.peers[self.id - 1]
    }
}

/// A running broker; killed when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    /// Which program.
    pub(crate) kind: Kind,
    /// Its Kafka listener.
    pub(crate) addr: SocketAddr,
    /// Its data.
    pub(crate) dir: PathBuf,
    /// Where it serves `/metrics`, if it does.
    pub(crate) admin: Option<SocketAddr>,
    child: Child,
}

impl Launcher {
    /// Prepares `name`'s directory, formatting it where the program wants that, and starts a broker on it.
    pub(crate) fn start_new(&self, kind: Kind, name: &str) -> Result<Broker> {
        let own = Member {
            id: 1,
            peers: &[free_addr()?],
        };
        let dir = self.prepare(kind, name, &own)?;
        self.start(kind, &dir)
    }

    /// Prepares the directory `name` for a member of a cluster.
    fn prepare(&self, kind: Kind, name: &str, member: &Member<'_>) -> Result<PathBuf> {
        let dir = self.work_dir.join(name);
        std::fs::create_dir_all(&dir)?;
        match kind {
            Kind::Kafka => kafka::format(self, &dir, member)?,
            Kind::Takhin => takhin::prepare(&dir, member)?,
            Kind::Sink => {}
        }
        Ok(dir)
    }

    /// Starts a broker on a directory that was used before.
    pub(crate) fn start(&self, kind: Kind, dir: &Path) -> Result<Broker> {
        let mut broker = self.spawn(kind, dir)?;
        broker.wait_until_ready()?;
        Ok(broker)
    }

    /// Starts a broker and does not wait for it.
    pub(crate) fn spawn(&self, kind: Kind, dir: &Path) -> Result<Broker> {
        let (command, addr, admin) = match kind {
            Kind::Kafka => (kafka::command(self, dir)?, kafka::listener(dir)?, None),
            Kind::Takhin => takhin::command(self, dir)?,
            Kind::Sink => {
                let addr = free_addr()?;
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("sink").arg(addr.to_string());
                (command, addr, None)
            }
        };
        let mut command = self.bound(&command);
        let log = dir.join("broker.log");
        let log = File::options().create(true).append(true).open(log)?;
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Broker {
            kind,
            addr,
            dir: dir.to_owned(),
            admin,
            child,
        })
    }

    /// The command on the brokers' core, if there is one, and so that it ends with this process, however that ends.
    fn bound(&self, command: &Command) -> Command {
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL", "--"]);
        if let Some(core) = self.core {
            bound.args(["taskset", "-c"]).arg(core.to_string());
        }
        bound.arg(command.get_program()).args(command.get_args());
        bound
    }
}

impl Broker {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it answers as a member of its cluster.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let ready = match self.kind {
                Kind::Sink => std::net::TcpStream::connect(self.addr).is_ok(),
                Kind::Kafka | Kind::Takhin => Admin::connect(self.addr)
                    .and_then(|mut admin| admin.is_ready())
                    .unwrap_or(false),
            };
            if ready {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.kind.name(), self.last_words());
            }
            ensure!(
                Instant::now() < give_up,
                "{} does not answer: {}",
                self.kind.name(),
                self.last_words()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops it with SIGTERM.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < give_up, "{} does not stop", self.kind.name());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it with SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?).context("pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Topic settings for a durability.
    pub(crate) fn topic_configs(&self, durability: Durability) -> Vec<(&'static str, &'static str)> {
        match (self.kind, durability) {
            (Kind::Kafka, Durability::Flushed) => vec![("flush.messages", "1")],
            (Kind::Takhin, durability) => vec![("takhin.durability", durability.name())],
            (Kind::Kafka, Durability::Cached) | (Kind::Sink, _) => Vec::new(),
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("broker.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on loopback that was free a moment ago.
fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
