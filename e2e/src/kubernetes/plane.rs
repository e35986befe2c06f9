//! The processes of a control plane.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::api::Kube;
use super::audit::{self, Audit};
use super::identities::Identities;
use super::programs::Programs;
use crate::broker::free_addresses;
use crate::process::{self, Running};
use crate::wait;

/// A start on a machine that is busy with other things.
const START_LIMIT: Duration = Duration::from_secs(120);

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

/// One process, with what it has written.
#[derive(Debug)]
struct Server {
    name: &'static str,
    log: PathBuf,
    process: Running,
}

impl ControlPlane {
    /// Starts one, and waits until it answers and makes service accounts.
    ///
    /// # Errors
    /// A program is missing, ends, or is not ready in time; the message has the end of its log.
    pub fn start() -> Result<Self> {
        let begun = Instant::now();
        let programs = Programs::find()?;
        // The path of a socket in it may have 107 bytes.
        let folder = tempfile::Builder::new().prefix("takhin-kube-").tempdir()?;
        let [peers, clients, secure] = free_addresses()?;
        let identities = Identities::make(folder.path(), &format!("https://{secure}"))?;
        fs::write(folder.path().join("audit-policy.yaml"), audit::POLICY)?;
        let mut etcd = etcd(&programs, folder.path(), clients, peers)?;
        etcd.until("etcd takes connections", || {
            Ok(std::net::TcpStream::connect(clients).is_ok())
        })?;
        let mut api_server = api_server(&programs, folder.path(), clients, secure)?;
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

    fn client(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.programs.client(program, &self.admin)?;
        // What an earlier call has learned of the kinds may be out of date by now.
        let cache = tempfile::tempdir_in(&self.folder)?;
        command.env("KUBECACHEDIR", cache.path());
        Ok(process::run(command.args(arguments), Duration::from_secs(120))?.text())
    }

    /// Stops the API server as if its machine hung; it answers again after [`thaw`](Self::thaw).
    pub fn freeze(&self) -> Result<()> {
        self.api_server.process.freeze()
    }

    /// Has the API server go on.
    pub fn thaw(&self) -> Result<()> {
        self.api_server.process.thaw()
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

impl Server {
    fn start(name: &'static str, program: &Path, folder: &Path, arguments: &[String]) -> Result<Self> {
        let path = folder.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        // The kernel ends it when this process dies, whatever the reason.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .current_dir(folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self {
            name,
            log: path,
            process: Running::start(&mut command)?,
        })
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let waited = wait::until(what, START_LIMIT, || {
            self.check()?;
            holds()
        });
        waited.with_context(|| self.tail())
    }

    fn check(&mut self) -> Result<()> {
        match self.process.ended()? {
            Some(status) => bail!("{} {}\n{}", self.name, process::ending(status), self.tail()),
            None => Ok(()),
        }
    }

    fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        format!(
            "{}:\n{}",
            self.name,
            process::tail(&String::from_utf8_lossy(&text), 30)
        )
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
    Server::start("etcd", &programs.path("etcd")?, folder, &arguments)
}

fn api_server(programs: &Programs, folder: &Path, etcd: SocketAddr, secure: SocketAddr) -> Result<Server> {
    let mut arguments: Vec<String> = [
        "--cert-dir=certs",
        "--service-cluster-ip-range=10.96.0.0/16",
        // An address for documentation: nobody reaches the API server from a pod, for there is none.
        "--advertise-address=192.0.2.1",
        "--endpoint-reconciler-type=none",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-signing-key-file=service-accounts.key",
        "--service-account-key-file=service-accounts.pub",
        "--token-auth-file=tokens.csv",
        "--authorization-mode=RBAC",
        // As on OpenShift, where some rights are asked for that elsewhere are not.
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        "--audit-policy-file=audit-policy.yaml",
        "--audit-log-path=audit.log",
    ]
    .map(str::to_owned)
    .into();
    arguments.extend([
        format!("--etcd-servers=http://{etcd}"),
        format!("--bind-address={}", secure.ip()),
        format!("--secure-port={}", secure.port()),
    ]);
    Server::start(
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
    ]
    .map(str::to_owned)
    .into();
    arguments.push(format!("--kubeconfig={}", kubeconfig.display()));
    let program = programs.path("kube-controller-manager")?;
    Server::start("kube-controller-manager", &program, folder, &arguments)
}
