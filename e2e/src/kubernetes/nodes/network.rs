//! Namespaces, and the network between them.
//!
//! ```text
//!  node 1: this process   172.31.77.1   bridge node0 ─┬─ veth ── eth0   172.31.77.2   node 2
//!                                                     └─ veth ── eth0   172.31.77.3   node 3
//!  pods of node N: 10.244.N.0/24, with a route from every other node
//! ```
//!
//! Nothing of it is the machine's own: it goes with the processes that hold the namespaces.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, Running};
use crate::wait;

/// Set in a process that is in namespaces of its own.
const INSIDE: &str = "TAKHIN_E2E_INSIDE";

/// Each of the little programs here takes milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

/// Goes on in a network and mounts of its own, as the first node: replaces this process by itself once.
///
/// # Errors
/// It needs root, and the programs of util-linux and iproute2.
pub fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        let mut again = Command::new("unshare");
        again.args(["--net", "--mount", "--propagation", "private", "--"]);
        again
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1));
        let error = again.env(INSIDE, "1").exec();
        return Err(error).context("unshare (package util-linux; run this as root)");
    }
    // Volumes that a kubelet mounts must be seen by containerd, and nobody else.
    run("mount", &["--make-rshared", "/"])?;
    // Pods' networks have their names there, which would outlive them.
    run("mkdir", &["-p", "/run/netns"])?;
    run("mount", &["-t", "tmpfs", "netns", "/run/netns"])?;
    resolve(address(1).into())?;
    ip("link set lo up")?;
    ip("link add node0 type bridge")?;
    ip(&format!("addr add {}/24 dev node0", address(1)))?;
    ip("link set node0 up")?;
    // Addresses of Services are translated on the way out, but only where there is a way.
    ip("route add 10.96.0.0/16 dev node0")?;
    forward(None)
}

/// Has this process, and what it starts, ask a Kubernetes' name server: in mounts of its own.
pub(in crate::kubernetes) fn resolve(server: IpAddr) -> Result<()> {
    let wanted = resolv_conf(server);
    if fs::read_to_string("/etc/resolv.conf").is_ok_and(|has| has == wanted) {
        return Ok(());
    }
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), wanted)?;
    // The mount keeps it when its name is gone.
    run(
        "mount",
        &["--bind", &file.path().to_string_lossy(), "/etc/resolv.conf"],
    )
}

/// How names are resolved.
pub(super) fn resolv_conf(server: IpAddr) -> String {
    format!("nameserver {server}\nsearch svc.cluster.local cluster.local\noptions ndots:5\n")
}

/// The address of node `number`, from 1 on.
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 77, number)
}

/// The network of the pods of node `number`.
pub(super) fn pods(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

/// The namespaces of a node.
#[derive(Debug)]
pub(super) struct Namespaces {
    number: u8,
    /// Nothing for the first node, which is where this process is.
    holder: Option<Running>,
}

impl Namespaces {
    /// Those of node `number`, connected with the first node's.
    pub(super) fn of(number: u8) -> Result<Self> {
        let mut all = Self { number, holder: None };
        if number == 1 {
            return Ok(all);
        }
        let hold = "mount --make-rshared / && mount -t tmpfs netns /run/netns && exec sleep infinity";
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount"]);
        command.args(["--propagation", "private", "sh", "-c", hold]);
        let holder = Running::start(command.stdin(Stdio::null()))?;
        let name = format!("/proc/{}/comm", holder.pid());
        wait::until("namespaces of a node", LIMIT, || {
            Ok(fs::read_to_string(&name)?.trim() == "sleep")
        })?;
        let pid = holder.pid();
        all.holder = Some(holder);
        ip(&format!(
            "link add node0-{number} type veth peer name eth0 netns {pid}"
        ))?;
        ip(&format!("link set node0-{number} master node0 up"))?;
        all.ip("link set lo up")?;
        all.ip(&format!("addr add {}/24 dev eth0", address(number)))?;
        all.ip("link set eth0 up")?;
        all.ip(&format!("route add default via {}", address(1)))?;
        forward(Some(pid))?;
        Ok(all)
    }

    /// The way from here to the pods of another node.
    pub(super) fn route(&self, to: u8) -> Result<()> {
        // Replaced: on the first node the routes of a cluster before this one are still there.
        self.ip(&format!("route replace {} via {}", pods(to), address(to)))
    }

    /// Cuts the node off, or connects it again.
    ///
    /// # Errors
    /// The first node is where everything else is: it cannot be cut off.
    pub(super) fn connect(&self, connected: bool) -> Result<()> {
        if self.holder.is_none() {
            bail!("the first node cannot be cut off");
        }
        let state = if connected { "up" } else { "down" };
        ip(&format!("link set node0-{} {state}", self.number))
    }

    /// A program of this node, which ends with this process.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(holder) = &self.holder {
            let pid = holder.pid().to_string();
            command.args(["nsenter", "-t", &pid, "-n", "-m", "--"]);
        }
        command
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        let mut command = self.command();
        command.arg("ip").args(arguments.split(' '));
        process::run(&mut command, LIMIT).map(drop)
    }
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    process::run(Command::new(program).args(arguments), LIMIT).map(drop)
}

/// Lets packets through from one interface to another, which is a setting of each network.
fn forward(pid: Option<u32>) -> Result<()> {
    let set = "echo 1 >/proc/sys/net/ipv4/ip_forward";
    match pid {
        None => run("sh", &["-c", set]),
        Some(pid) => run("nsenter", &["-t", &pid.to_string(), "-n", "sh", "-c", set]),
    }
}
