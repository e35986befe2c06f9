//! The processes of a control plane.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use tempfile::TempDir;

use super::api::Kube;
use super::audit::{self, Audit};
use super::identities::Identities;
use super::programs::Programs;
use super::server::Server;
use crate::broker::free_addresses;

/// A control plane; everything of it ends with the value.
#[derive(Debug)]
pub struct ControlPlane {
    // In the order in which they are to end.
    controller_manager: Server,
    api_server: Server,
    etcd: Server,
    kube: Kube,
    identities: Identities,
    programs: Programs,
    admin: PathBuf,
    folder: TempDir,
}

/// Where a control plane listens, and for whom.
struct Place<'a> {
    /// etcd, for other members, which there are none.
    peers: SocketAddr,
    /// etcd, for the API server.
    clients: SocketAddr,
    /// The API server.
    secure: SocketAddr,
    /// Names of nodes that may join.
    nodes: &'a [String],
}

impl ControlPlane {
    /// Starts one, and waits until it answers and makes service accounts.
    ///
    /// # Errors
    /// A program is missing, ends, or is not ready in time; the message has the end of its log.
    pub fn start() -> Result<Self> {
        let [peers, clients, secure] = free_addresses()?;
        Self::start_at(&Place {
            peers,
            clients,
            secure,
            nodes: &[],
        })
    }

    /// Starts one for nodes of these names; they and their pods reach it at `address`, which is this machine's.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub(super) fn start_with_nodes(address: Ipv4Addr, nodes: &[String]) -> Result<Self> {
        let [peers, clients] = free_addresses()?;
        Self::start_at(&Place {
            peers,
            clients,
            secure: (address, 6443).into(),
            nodes,
        })
    }

    fn start_at(place: &Place<'_>) -> Result<Self> {
        let begun = Instant::now();
        let programs = Programs::find()?;
        // The path of a socket in it may have 107 bytes.
        let folder = tempfile::Builder::new().prefix("takhin-kube-").tempdir()?;
        let Place {
            peers,
            clients,
            secure,
            nodes,
        } = *place;
        let identities = Identities::make(folder.path(), &format!("https://{secure}"), nodes)?;
        fs::write(folder.path().join("audit-policy.yaml"), audit::POLICY)?;
        let mut etcd = etcd(&programs, folder.path(), clients, peers)?;
        etcd.until("etcd takes connections", || {
            Ok(std::net::TcpStream::connect(clients).is_ok())
        })?;
        let mut api_server = api_server(&programs, folder.path(), place)?;
        let certificate = folder.path().join("certs/apiserver.crt");
        api_server.until("its certificate", || Ok(certificate.exists()))?;
        let admin = identities.kubeconfig("admin")?;
        let kube = Kube::connect(&admin)?;
        api_server.until("the API server to be ready", || Ok(kube.is_ready()))?;
        let mut controller_manager = controller_manager(&programs, folder.path(), &identities)?;
        controller_manager.until("the first service account", || {
            Ok(kube.get("ServiceAccount", "default", "default")?.is_some())
        })?;
        eprintln!(
            "        control plane ready after {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        Ok(Self {
            controller_manager,
            api_server,
            etcd,
            kube,
            identities,
            programs,
            admin,
            folder,
        })
    }

    /// The API, as the administrator.
    pub fn kube(&self) -> &Kube {
        &self.kube
    }

    /// What was asked of the API server.
    pub fn audit(&self) -> Audit {
        Audit::of(&self.folder.path().join("audit.log"))
    }

    /// A folder that goes with the control plane.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Who may ask.
    pub(super) fn identities(&self) -> &Identities {
        &self.identities
    }

    /// The kubeconfig of the administrator.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// The kubeconfig of a service account, good for an hour.
    ///
    /// # Errors
    /// There is no such account.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.kubectl(&["create", "token", name, "-n", namespace, "--duration=1h"])?;
        self.identities
            .write(&format!("{namespace}-{name}"), token.trim(), namespace)
    }

    /// What `kubectl` prints.
    ///
    /// # Errors
    /// It fails; the message has what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.client("kubectl", arguments)
    }

    /// What `helm` prints.
    ///
    /// # Errors
    /// It fails; the message has what it says.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.client("helm", arguments)
    }

    /// What Helm 3 prints, where [`helm`](Self::helm) is Helm 4.
    ///
    /// # Errors
    /// It cannot be built, or fails; the message has what it says.
    pub fn helm3(&self, arguments: &[&str]) -> Result<String> {
        Programs::of(&["helm3"])?.call("helm3", &self.admin, self.folder.path(), arguments)
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.programs
            .call(program, &self.admin, self.folder.path(), arguments)
    }

    /// Stops the API server as if its machine hung; it answers again after [`thaw`](Self::thaw).
    pub fn freeze(&self) -> Result<()> {
        self.api_server.process().freeze()
    }

    /// Has the API server go on.
    pub fn thaw(&self) -> Result<()> {
        self.api_server.process().thaw()
    }

    /// Fails if one of the processes has ended.
    pub fn check(&mut self) -> Result<()> {
        for server in [&mut self.etcd, &mut self.api_server, &mut self.controller_manager] {
            server.check()?;
        }
        Ok(())
    }

    /// The ends of all logs, for messages.
    pub fn logs(&self) -> String {
        let servers = [&self.etcd, &self.api_server, &self.controller_manager];
        servers.map(Server::tail).join("\n")
    }
}

fn etcd(programs: &Programs, folder: &Path, clients: SocketAddr, peers: SocketAddr) -> Result<Server> {
    let arguments = [
        "--data-dir=etcd".to_owned(),
        // It need not outlive the machine.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls=http://{clients}"),
        format!("--advertise-client-urls=http://{clients}"),
        format!("--listen-peer-urls=http://{peers}"),
        format!("--initial-advertise-peer-urls=http://{peers}"),
        format!("--initial-cluster=default=http://{peers}"),
    ];
    Server::start_here("etcd", &programs.path("etcd")?, folder, &arguments)
}

fn api_server(programs: &Programs, folder: &Path, place: &Place<'_>) -> Result<Server> {
    let mut arguments: Vec<String> = [
        "--cert-dir=certs",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-signing-key-file=service-accounts.key",
        "--service-account-key-file=service-accounts.pub",
        "--token-auth-file=tokens.csv",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        // As on OpenShift, where some rights are asked for that elsewhere are not.
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        "--audit-policy-file=audit-policy.yaml",
        "--audit-log-path=audit.log",
    ]
    .map(str::to_owned)
    .into();
    arguments.extend([
        format!("--etcd-servers=http://{}", place.clients),
        format!("--bind-address={}", place.secure.ip()),
        format!("--secure-port={}", place.secure.port()),
    ]);
    let reached: &[&str] = if place.nodes.is_empty() {
        // An address for documentation: nobody reaches the API server from a pod, for there is none.
        &["--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"]
    } else {
        &["--kubelet-preferred-address-types=InternalIP"]
    };
    arguments.extend(reached.iter().map(|argument| (*argument).to_owned()));
    Server::start_here(
        "kube-apiserver",
        &programs.path("kube-apiserver")?,
        folder,
        &arguments,
    )
}

fn controller_manager(programs: &Programs, folder: &Path, identities: &Identities) -> Result<Server> {
    let kubeconfig = identities.kubeconfig("controller-manager")?;
    let mut arguments: Vec<String> = [
        "--service-account-private-key-file=service-accounts.key",
        "--root-ca-file=certs/apiserver.crt",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--secure-port=0",
        // A node that is away is noticed after 20 s instead of 50.
        "--node-monitor-grace-period=20s",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(format!("--kubeconfig={}", kubeconfig.display()));
    let program = programs.path("kube-controller-manager")?;
    Server::start_here("kube-controller-manager", &program, folder, &arguments)
}
