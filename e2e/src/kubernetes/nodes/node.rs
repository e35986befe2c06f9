//! The processes of one node: containerd, kubelet, kube-proxy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::cgroups::Cgroups;
use super::network::{Namespaces, address, pods};
use crate::kubernetes::identities::Identities;
use crate::kubernetes::programs::Programs;
use crate::kubernetes::server::Server;
use crate::process;

/// The image that holds the namespaces of a pod.
const PAUSE: &str = "docker.io/takhin-e2e/pause:1";

/// Time to unpack images.
const IMPORT_LIMIT: Duration = Duration::from_secs(300);

/// A node; everything of it ends with the value.
#[derive(Debug)]
pub(super) struct Node {
    // In the order in which they are to end.
    kubelet: Option<Server>,
    _proxy: Server,
    _shims: Shims,
    containerd: Server,
    _cgroups: Cgroups,
    namespaces: Namespaces,
    number: u8,
    folder: PathBuf,
    kubelet_program: PathBuf,
    kubeconfig: PathBuf,
}

impl Node {
    /// Starts node `number`, with these archives of images.
    pub(super) fn start(
        number: u8,
        folder: &Path,
        programs: &Programs,
        identities: &Identities,
        images: &[PathBuf],
    ) -> Result<Self> {
        let folder = folder.join(name(number));
        fs::create_dir_all(folder.join("cni"))?;
        let namespaces = Namespaces::of(number)?;
        let cgroups = Cgroups::make(&name(number))?;
        fs::write(folder.join("cni/10-test.conflist"), cni(number, &folder))?;
        fs::write(folder.join("containerd.toml"), containerd_config(&folder))?;
        let arguments = [
            "--log-level",
            "warn",
            "--config",
            &path(&folder, "containerd.toml"),
        ]
        .map(str::to_owned);
        let containerd = namespaces.command();
        let mut containerd = Server::start(
            "containerd",
            containerd,
            Path::new("containerd"),
            &folder,
            &arguments,
        )?;
        let socket = folder.join("containerd.sock");
        containerd.until("containerd to answer", || Ok(ctr(&socket, &["version"]).is_ok()))?;
        for archive in images {
            ctr(&socket, &["images", "import", &archive.to_string_lossy()]).context("importing images")?;
        }
        let kubeconfig = identities.kubeconfig(&name(number))?;
        let proxy = proxy(number, &folder, programs, identities, &namespaces)?;
        fs::write(
            folder.join("kubelet.json"),
            kubelet_config(number, &folder, &cgroups),
        )?;
        let mut node = Self {
            kubelet: None,
            _proxy: proxy,
            _shims: Shims(folder.clone()),
            containerd,
            _cgroups: cgroups,
            namespaces,
            number,
            folder,
            kubelet_program: programs.path("kubelet")?,
            kubeconfig,
        };
        node.start_kubelet()?;
        Ok(node)
    }

    /// Starts its kubelet, which does not run.
    fn start_kubelet(&mut self) -> Result<()> {
        let number = self.number;
        let arguments = [
            format!("--config={}", path(&self.folder, "kubelet.json")),
            format!("--kubeconfig={}", self.kubeconfig.display()),
            format!("--root-dir={}", path(&self.folder, "kubelet")),
            format!("--cert-dir={}", path(&self.folder, "pki")),
            format!("--hostname-override={}", name(number)),
            format!("--node-ip={}", address(number)),
            format!("--node-labels=topology.kubernetes.io/zone=z{number}"),
        ];
        let enter = self.namespaces.command();
        self.kubelet = Some(Server::start(
            "kubelet",
            enter,
            &self.kubelet_program,
            &self.folder,
            &arguments,
        )?);
        Ok(())
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        name(self.number)
    }

    /// Where its volumes are.
    pub(super) fn volumes(&self) -> PathBuf {
        self.folder.join("volumes")
    }

    /// Its namespaces.
    pub(super) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Fails if one of its processes has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.containerd.check()?;
        self.kubelet.iter_mut().try_for_each(Server::check)
    }

    /// The ends of its logs.
    pub(super) fn logs(&self) -> String {
        let kubelet = self.kubelet.as_ref().map(Server::tail).unwrap_or_default();
        format!("{}:\n{kubelet}\n{}", self.name(), self.containerd.tail())
    }
}

/// Name of node `number`.
pub(super) fn name(number: u8) -> String {
    format!("n{number}")
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_string_lossy().into_owned()
}

fn ctr(socket: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ctr");
    command
        .arg("-a")
        .arg(socket)
        .args(["-n", "k8s.io"])
        .args(arguments);
    process::run(&mut command, IMPORT_LIMIT).map(drop)
}

/// What containerd leaves behind: a process per pod, which outlives it by design.
#[derive(Debug)]
struct Shims(PathBuf);

impl Drop for Shims {
    fn drop(&mut self) {
        let mut kill = Command::new("pkill");
        kill.args(["-KILL", "-f"])
            .arg(format!("containerd-shim.*{}/containerd.sock", self.0.display()));
        // There may be none.
        let _ = process::run_any(&mut kill, Duration::from_secs(10));
        // What pods had mounted keeps the folder from being removed.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = self.0.to_string_lossy().into_owned();
        for mounted in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if mounted.starts_with(&below) {
                let _ = process::run_any(
                    Command::new("umount").args(["-l", mounted]),
                    Duration::from_secs(10),
                );
            }
        }
    }
}

fn proxy(
    number: u8,
    folder: &Path,
    programs: &Programs,
    identities: &Identities,
    namespaces: &Namespaces,
) -> Result<Server> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": identities.kubeconfig("proxy")? },
        "mode": "nftables",
        "clusterCIDR": "10.244.0.0/16",
        "hostnameOverride": name(number),
        "bindAddress": address(number).to_string(),
        "oomScoreAdj": 0,
        // It writes no setting of the whole machine.
        "conntrack": { "maxPerCore": 0 },
    });
    fs::write(folder.join("proxy.json"), config.to_string())?;
    let arguments = [format!("--config={}", path(folder, "proxy.json"))];
    Server::start(
        "kube-proxy",
        namespaces.command(),
        &programs.path("kube-proxy")?,
        folder,
        &arguments,
    )
}

fn kubelet_config(number: u8, folder: &Path, cgroups: &Cgroups) -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", path(folder, "containerd.sock")),
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups.root(),
        "oomScoreAdj": 0,
        "failSwapOn": false,
        "address": address(number).to_string(),
        // Nobody else is in these networks.
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "clusterDomain": "cluster.local",
        "clusterDNS": [address(1).to_string()],
        "resolvConf": path(folder, "../resolv.conf"),
        "podLogsDir": path(folder, "pod-logs"),
        "volumePluginDir": path(folder, "volume-plugins"),
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "10s",
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
    });
    config.to_string()
}

fn containerd_config(folder: &Path) -> String {
    let at = |name: &str| path(folder, name);
    format!(
        "version = 2\n\
         root = \"{}\"\n\
         state = \"{}\"\n\
         [grpc]\n\
         \x20 address = \"{}\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\n\
         \x20 path = \"{}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         \x20 sandbox_image = \"{PAUSE}\"\n\
         \x20 disable_apparmor = true\n\
         \x20 restrict_oom_score_adj = true\n\
         \x20 [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
         \x20   bin_dir = \"/usr/lib/cni\"\n\
         \x20   conf_dir = \"{}\"\n",
        at("containerd"),
        at("state"),
        at("containerd.sock"),
        at("opt"),
        at("cni")
    )
}

fn cni(number: u8, folder: &Path) -> String {
    let addresses = json!({
        "type": "host-local",
        "dataDir": path(folder, "addresses"),
        "ranges": [[{ "subnet": pods(number) }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    let bridge = json!({
        "type": "bridge",
        "bridge": "cbr0",
        "isGateway": true,
        "ipMasq": true,
        "hairpinMode": true,
        "ipam": addresses,
    });
    let ports = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    json!({ "cniVersion": "0.4.0", "name": "test", "plugins": [bridge, ports] }).to_string()
}
