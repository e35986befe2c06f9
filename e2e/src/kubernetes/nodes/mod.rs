//! A whole Kubernetes on this machine: a control plane, and nodes that run pods, each in namespaces of its own.
//!
//! [`enter`] first: everything is in a network of its own, and the test is on the first node. A [`Cluster`] is gone with its
//! processes, pods, control groups and folders when it is dropped.

mod cgroups;
mod network;
mod node;
mod storage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

pub(super) use network::resolve;
pub use network::{address, enter};
pub use storage::CLASS;

use super::api::{Kube, condition};
use super::plane::ControlPlane;
use super::server::Server;
use crate::{process, tools, wait};
use node::Node;
use storage::Storage;

/// A start on a machine that is busy with other things.
const START_LIMIT: Duration = Duration::from_secs(240);

/// Time for building what is missing.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A control plane with nodes.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they are to end.
    nodes: Vec<Node>,
    _storage: Storage,
    dns: Server,
    scheduler: Server,
    plane: ControlPlane,
}

impl Cluster {
    /// Starts one with so many nodes, all of which have the images in these archives.
    ///
    /// # Errors
    /// A program is missing, ends, or is not ready in time; the message has the end of its log.
    pub fn start(nodes: u8, images: &[PathBuf]) -> Result<Self> {
        let begun = Instant::now();
        let names: Vec<String> = (1..=nodes).map(node::name).collect();
        let pause = script("e2e/setup/nodes.sh", &[])?;
        let dns = script("e2e/setup/kubernetes.sh", &["coredns"])?;
        let plane = ControlPlane::start_with_nodes(address(1), &names)?;
        let folder = plane.folder().to_owned();
        // For pods that ask for the node's own.
        fs::write(
            folder.join("resolv.conf"),
            network::resolv_conf(address(1).into()),
        )?;
        let scheduler = scheduler(&plane)?;
        // `KUBE_TEST_BIN` may be several folders.
        let mut programs = std::env::split_paths(&dns).map(|folder| folder.join("coredns"));
        let dns = programs.find(|program| program.exists());
        let dns = self::dns(&plane, &dns.context("no coredns: mend KUBE_TEST_BIN")?)?;
        let mut images = images.to_vec();
        images.push(pause.into());
        // One after the other: a process ends with the thread that started it, which must be this one.
        let nodes = (1..=nodes)
            .map(|number| Node::start(number, &folder, plane.programs(), plane.identities(), &images))
            .collect::<Result<Vec<_>>>()?;
        let folders = nodes.iter().map(|node| (node.name(), node.volumes())).collect();
        let storage = Storage::start(plane.admin(), folders)?;
        let mut cluster = Self {
            nodes,
            _storage: storage,
            dns,
            scheduler,
            plane,
        };
        cluster.connect_pods()?;
        cluster.wait_for_nodes()?;
        eprintln!(
            "        {} nodes ready after {:.1} s",
            cluster.nodes.len(),
            begun.elapsed().as_secs_f64()
        );
        Ok(cluster)
    }

    fn connect_pods(&self) -> Result<()> {
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                self.nodes[from].namespaces().route(u8::try_from(to + 1)?)?;
            }
        }
        Ok(())
    }

    fn wait_for_nodes(&mut self) -> Result<()> {
        for node in 0..self.nodes.len() {
            let name = self.nodes[node].name();
            let waited = wait::until(format_args!("node {name} to be ready"), START_LIMIT, || {
                self.check()?;
                let seen = self.kube().get("Node", "", &name)?.unwrap_or(Value::Null);
                Ok(condition(&seen, "Ready").is_some_and(|(status, ..)| status == "True"))
            });
            waited.with_context(|| self.logs())?;
        }
        Ok(())
    }

    /// The API, as the administrator.
    pub fn kube(&self) -> &Kube {
        self.plane.kube()
    }

    /// What is beneath the nodes.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// Cuts a node off from all others, or connects it again; its pods go on.
    ///
    /// # Errors
    /// There is no such node, or it is the first.
    pub fn connect(&self, node: &str, connected: bool) -> Result<()> {
        let found = self.nodes.iter().find(|found| found.name() == node);
        let found = found.with_context(|| format!("no node is called {node}"))?;
        found.namespaces().connect(connected)
    }

    /// Fails if one of the processes has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.plane.check()?;
        self.dns.check()?;
        self.scheduler.check()?;
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    /// The ends of all logs, for messages.
    pub fn logs(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(Node::logs).collect();
        format!("{}\n{}", self.plane.logs(), nodes.join("\n"))
    }
}

/// Runs a script of this checkout; what it prints.
fn script(path: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("bash");
    command.arg(tools::checkout()?.join(path)).args(arguments);
    Ok(process::run(&mut command, BUILD_LIMIT)?.text().trim().to_owned())
}

fn scheduler(plane: &ControlPlane) -> Result<Server> {
    let kubeconfig = plane.identities().kubeconfig("scheduler")?;
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ];
    let program = plane.programs().path("kube-scheduler")?;
    Server::start_here("kube-scheduler", &program, plane.folder(), &arguments)
}

fn dns(plane: &ControlPlane, program: &Path) -> Result<Server> {
    let kubeconfig = plane.identities().kubeconfig("dns")?;
    let corefile = format!(
        ".:53 {{\n  errors\n  health 127.0.0.1:8181\n  ready 127.0.0.1:8182\n  cache 5\n  \
         kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {}\n    pods insecure\n  }}\n}}\n",
        kubeconfig.display()
    );
    fs::write(plane.folder().join("Corefile"), corefile)?;
    let arguments = ["-conf".to_owned(), "Corefile".to_owned()];
    Server::start_here("coredns", program, plane.folder(), &arguments)
}
