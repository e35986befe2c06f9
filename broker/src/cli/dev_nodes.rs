//! `takhin dev --nodes N`: a cluster of brokers on one machine, each a process of its own.
//!
//! Ports count up from the given ones. The brokers stop when this process stops or is gone: each holds the other end of
//! its standard input. One that is killed alone stays away, which is how failover is watched; the others go on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{DevArgs, Failure, print};
use takhin_runtime::Env;
use takhin_runtime::shutdown::{self, Shutdown};

/// Most brokers that make sense on one machine.
pub(super) const MAX_NODES: u16 = 9;

/// Where the first broker of a cluster is reached by the others.
const RPC: &str = "127.0.0.1:33145";

/// Replicas of a topic created without a number, where there are as many brokers.
const REPLICAS: u16 = 3;

/// A broker of the cluster.
struct Node {
    id: u16,
    kafka: String,
    admin: String,
    data_dir: PathBuf,
    child: Child,
    /// Its end tells the broker to stop; apart from `child`, which would close it to wait.
    stdin: Option<ChildStdin>,
}

/// An address whose port counts up.
struct Ports {
    host: String,
    first: u16,
}

impl Ports {
    fn parse(address: &str, flag: &str) -> Result<Self, Failure> {
        let parts = address.rsplit_once(':');
        let parsed = parts.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        match parsed {
            Some((host, first)) if first > 0 => Ok(Self { host, first }),
            Some(_) | None => Err(Failure::Usage(anyhow::anyhow!(
                "--{flag} {address}: with --nodes it takes HOST:PORT with a port from which the brokers count up"
            ))),
        }
    }

    fn of(&self, node: u16) -> Result<String, Failure> {
        let port = self.first.checked_add(node - 1);
        port.map(|port| format!("{}:{port}", self.host)).ok_or_else(|| {
            Failure::Usage(anyhow::anyhow!(
                "port {} leaves no room for {node} brokers",
                self.first
            ))
        })
    }
}

/// Runs the cluster until SIGTERM or SIGINT, or until all brokers have ended.
pub(super) fn run(args: &DevArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: &DevArgs) -> Result<(), Failure> {
    let stop = Shutdown::new();
    let env = Env::real();
    env.tasks.spawn("signals", shutdown::signals(stop.clone()));
    let mut nodes = start(args)?;
    let ready = tokio::select! {
        biased;
        () = stop.wait() => Ok(()),
        ready = all_ready(&mut nodes) => ready,
    };
    if ready.is_ok() && !stop.is_triggered() {
        print(&cheat_sheet(&nodes))?;
        tokio::select! {
            biased;
            () = stop.wait() => {}
            () = all_ended(&mut nodes) => {}
        }
    }
    for node in &mut nodes {
        node.stdin = None;
    }
    for node in &mut nodes {
        node.child.wait().await.context("cannot wait for a broker")?;
    }
    ready.map_err(Failure::Failed)
}

fn start(args: &DevArgs) -> Result<Vec<Node>, Failure> {
    let kafka = Ports::parse(&args.kafka, "kafka")?;
    let admin = Ports::parse(&args.admin, "admin")?;
    let rpc = Ports::parse(args.rpc.as_deref().unwrap_or(RPC), "rpc")?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let seeds: Result<Vec<String>, Failure> = (1..=args.nodes).map(|id| rpc.of(id)).collect();
    let seeds = seeds?
        .iter()
        .map(|seed| format!("{seed:?}"))
        .collect::<Vec<_>>()
        .join(",");
    let mut nodes = Vec::new();
    for id in 1..=args.nodes {
        let (kafka, admin, rpc) = (kafka.of(id)?, admin.of(id)?, rpc.of(id)?);
        let data_dir = args.data_dir.join(format!("node-{id}"));
        let mut command = Command::new(&program);
        command
            .args([
                "dev",
                "--stop-with-stdin",
                "--kafka",
                &kafka,
                "--admin",
                &admin,
                "--data-dir",
            ])
            .arg(&data_dir)
            .args(["--set", &format!("node.id={id}")])
            .args(["--set", &format!("rpc.bind={rpc}")])
            .args(["--set", &format!("cluster.seeds=[{seeds}]")])
            .args([
                "--set",
                &format!("kafka.default_replication_factor={}", args.nodes.min(REPLICAS)),
            ]);
        for set in &args.set {
            command.args(["--set", set]);
        }
        // A process group of its own: the terminal's Ctrl-C reaches this process alone, which stops them in order.
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start broker {id}"))?;
        nodes.push(Node {
            id,
            kafka,
            admin,
            data_dir,
            stdin: child.stdin.take(),
            child,
        });
    }
    Ok(nodes)
}

/// Returns once every broker has said that it is ready.
async fn all_ready(nodes: &mut [Node]) -> anyhow::Result<()> {
    for node in nodes {
        let stdout = node.child.stdout.take().context("a broker without output")?;
        if !says_something(stdout).await {
            let status = node.child.wait().await?;
            anyhow::bail!(
                "broker {} did not start ({status}); what it wrote above says why",
                node.id
            );
        }
    }
    Ok(())
}

/// Whether a line comes before the end. What comes after it is read and forgotten, so that the broker never waits.
async fn says_something(stdout: ChildStdout) -> bool {
    let mut lines = BufReader::new(stdout).lines();
    let said = matches!(lines.next_line().await, Ok(Some(_)));
    if said {
        let rest = async move { while let Ok(Some(_)) = lines.next_line().await {} };
        drop(Env::real().tasks.spawn("broker output", rest));
    }
    said
}

/// Says which broker ends, and returns once all have.
async fn all_ended(nodes: &mut [Node]) {
    let waits = nodes.iter_mut().map(|node| async {
        let id = node.id;
        match node.child.wait().await {
            Ok(status) => eprintln!("takhin: broker {id} has ended ({status}); the others go on"),
            Err(error) => eprintln!("takhin: broker {id} cannot be watched: {error}"),
        }
    });
    futures_util::future::join_all(waits).await;
}

fn cheat_sheet(nodes: &[Node]) -> String {
    let mut out = format!("Takhin is ready: {} brokers.\n\n", nodes.len());
    // Writing to a String cannot fail.
    for node in nodes {
        let Node {
            id,
            kafka,
            admin,
            data_dir,
            ..
        } = node;
        let pid = node.child.id().unwrap_or_default();
        let data_dir = Path::display(data_dir);
        let _ = writeln!(
            out,
            "  broker {id}  Kafka {kafka}  admin http://{admin}  pid {pid}  data {data_dir}"
        );
    }
    let bootstrap: Vec<&str> = nodes.iter().map(|node| node.kafka.as_str()).collect();
    let bootstrap = bootstrap.join(",");
    let _ = writeln!(
        out,
        "\nTry, in another terminal:\n\n  echo hello | kcat -P -b {bootstrap} -t first\n  kcat -C -b {bootstrap} -t first -e\n  \
         kcat -L -b {bootstrap}\n"
    );
    out.push_str("Kill one to watch the others take over. Stop all with Ctrl-C; the data stays.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_count_up_and_end_at_the_last() {
        let ports = Ports::parse("127.0.0.1:65534", "kafka").ok().unwrap();
        assert_eq!(ports.of(1).ok().as_deref(), Some("127.0.0.1:65534"));
        assert_eq!(ports.of(2).ok().as_deref(), Some("127.0.0.1:65535"));
        assert!(ports.of(3).is_err());
        assert!(Ports::parse("127.0.0.1:0", "kafka").is_err());
        assert!(Ports::parse("9092", "kafka").is_err());
    }
}
