//! The Kubernetes that a suite runs on: one that it makes, or, with `E2E_CLUSTER=existing`, one that is there already.
//!
//! The contract with one that is there: this process reaches the addresses of its nodes, pods and Services, by names too where
//! `E2E_DNS` is its name server; pods reach this process; and its nodes have the images, or can pull them.

use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::api::{Kube, text};
use super::nodes::{self, CLASS, Cluster};
use super::programs::Programs;
use crate::process;

/// Set in a process that asks the name server of the Kubernetes.
const NAMED: &str = "TAKHIN_E2E_NAMED";

/// A Kubernetes with nodes.
#[derive(Debug)]
pub enum Ground {
    /// Made for the suite.
    Made(Box<Cluster>),
    /// Made by somebody else.
    Existing(Box<Existing>),
}

/// A Kubernetes that was there before.
#[derive(Debug)]
pub struct Existing {
    kube: Kube,
    programs: Programs,
    admin: PathBuf,
    class: String,
    folder: TempDir,
}

/// Whether `E2E_CLUSTER` says that there is one already.
///
/// # Errors
/// It says something else.
pub fn exists() -> Result<bool> {
    let said = std::env::var("E2E_CLUSTER").unwrap_or_default();
    match said.as_str() {
        "" | "local" => Ok(false),
        "existing" => Ok(true),
        other => {
            bail!("E2E_CLUSTER={other} is none that the tests know: local or existing, or kind by `make e2e`")
        }
    }
}

/// Goes to where the suite can reach everything; replaces this process by itself once.
///
/// # Errors
/// It needs root where there are namespaces to be made.
pub fn enter() -> Result<()> {
    if !exists()? {
        return nodes::enter();
    }
    let Some(server) = std::env::var_os("E2E_DNS") else {
        return Ok(());
    };
    if std::env::var_os(NAMED).is_none() {
        let mut again = Command::new("unshare");
        again.args(["--mount", "--propagation", "private", "--"]);
        again
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1));
        let error = again.env(NAMED, "1").exec();
        return Err(error).context("unshare (package util-linux; run this as root)");
    }
    let server: IpAddr = server
        .to_string_lossy()
        .parse()
        .with_context(|| format!("E2E_DNS={} is no IP address", server.to_string_lossy()))?;
    nodes::resolve(server)
}

impl Existing {
    /// The one that `KUBECONFIG` names, with volumes of the class `E2E_STORAGE_CLASS` or `standard`.
    ///
    /// # Errors
    /// It does not answer, or has no such class.
    pub fn find() -> Result<Self> {
        let admin = std::env::var_os("KUBECONFIG")
            .context("KUBECONFIG is not set: it names the cluster to test on")?;
        let admin = PathBuf::from(admin);
        let kube = Kube::connect(&admin).with_context(|| format!("KUBECONFIG={}", admin.display()))?;
        let class = std::env::var("E2E_STORAGE_CLASS").unwrap_or_else(|_| "standard".to_owned());
        if kube.get("StorageClass", "", &class)?.is_none() {
            bail!("the cluster has no StorageClass {class}: name one of its own in E2E_STORAGE_CLASS");
        }
        Ok(Self {
            kube,
            programs: Programs::installed()?,
            admin,
            class,
            folder: tempfile::tempdir()?,
        })
    }
}

impl Ground {
    /// The API, as the administrator.
    pub fn kube(&self) -> &Kube {
        match self {
            Self::Made(made) => made.kube(),
            Self::Existing(found) => &found.kube,
        }
    }

    /// What `kubectl` prints.
    ///
    /// # Errors
    /// It fails; the message has what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.call("kubectl", arguments)
    }

    /// What `helm` prints.
    ///
    /// # Errors
    /// It fails; the message has what it says.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.call("helm", arguments)
    }

    fn call(&self, program: &str, arguments: &[&str]) -> Result<String> {
        match self {
            Self::Made(made) => {
                made.plane()
                    .programs()
                    .call(program, made.plane().admin(), self.folder(), arguments)
            }
            Self::Existing(found) => found
                .programs
                .call(program, &found.admin, self.folder(), arguments),
        }
    }

    /// A folder that goes with the suite.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Made(made) => made.plane().folder(),
            Self::Existing(found) => found.folder.path(),
        }
    }

    /// The class of volumes for brokers.
    pub fn class(&self) -> &str {
        match self {
            Self::Made(_) => CLASS,
            Self::Existing(found) => &found.class,
        }
    }

    /// The nodes, for tests that harm them.
    ///
    /// # Errors
    /// They are somebody else's.
    pub fn made(&self) -> Result<&Cluster> {
        match self {
            Self::Made(made) => Ok(made),
            Self::Existing(_) => bail!("this needs nodes of the test's own: E2E_CLUSTER=local"),
        }
    }

    /// An address where node ports answer.
    ///
    /// # Errors
    /// No node has one.
    pub fn node_address(&self) -> Result<IpAddr> {
        let nodes = self.kube().list("Node", "")?;
        let addresses = nodes
            .iter()
            .filter_map(|node| node.pointer("/status/addresses")?.as_array());
        let internal = addresses
            .flatten()
            .find(|address| address["type"] == "InternalIP");
        let found = internal.map(|address: &Value| text(address, "/address"));
        Ok(found.context("no node has an internal address")?.parse()?)
    }

    /// The address under which nodes reach this process.
    ///
    /// # Errors
    /// There is no way to the nodes.
    pub fn own_address(&self) -> Result<IpAddr> {
        // Nothing is sent: the kernel says which way it would go.
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket
            .connect((self.node_address()?, 9))
            .context("no way to the nodes")?;
        Ok(socket.local_addr()?.ip())
    }

    /// Fails if one of the processes has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self {
            Self::Made(made) => made.check(),
            Self::Existing(_) => Ok(()),
        }
    }

    /// The ends of all logs, for messages.
    pub fn logs(&self) -> String {
        match self {
            Self::Made(made) => made.logs(),
            Self::Existing(_) => String::new(),
        }
    }

    /// Runs tests of this binary once more in another process, for which this Kubernetes is one that exists; what it prints.
    ///
    /// # Errors
    /// One of them fails.
    pub fn again(&self, filter: &str, limit: Duration) -> Result<String> {
        let plane = self.made()?.plane();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(filter)
            .env("E2E_CLUSTER", "existing")
            .env("KUBECONFIG", plane.admin())
            .env("KUBE_TEST_BIN", plane.programs().folders()?)
            .env("E2E_STORAGE_CLASS", CLASS)
            .env("E2E_DNS", nodes::address(1).to_string())
            .env_remove(NAMED);
        Ok(process::run(&mut command, limit)?.text())
    }
}
