//! The command line of `takhin-operator`.

mod check;
mod run;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use takhin_runtime::{Env, OpenMode};

use crate::build::Images;
use crate::{crds, rbac, render};

const EXAMPLES: &str = "\
Examples:
  takhin-operator crd | kubectl apply --server-side -f -   install or upgrade the kinds
  takhin-operator manifests | kubectl apply -f -           install the operator without a chart
  takhin-operator render cluster.yaml                      what the operator would make of a manifest
  takhin-operator run                                      all namespaces, with the cluster that kubectl talks to
  takhin-operator run --watch-namespaces streaming,data --no-leader-election

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Kubernetes controllers for clusters of Takhin brokers, topics and Pika sources.
#[derive(Debug, Parser)]
#[command(name = "takhin-operator", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controllers until SIGTERM or SIGINT
    Run(run::RunArgs),
    /// Print the CustomResourceDefinitions as YAML
    Crd {
        /// Only this kind
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// As a template of the chart
        #[arg(long, hide = true)]
        helm: bool,
    },
    /// Print what the operator would make of the resources in a file; asks no API server
    Render {
        /// TakhinClusters and PikaSources, in YAML
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Image of brokers and takhin-cdc where the resource names none
        #[arg(long, value_name = "IMAGE", default_value = concat!("takhin/takhin:", env!("CARGO_PKG_VERSION")))]
        image: String,
        /// Namespace of the operator's own pods, which brokers let in [default: unknown, and pods with its name in any are]
        #[arg(long, value_name = "NAMESPACE")]
        operator_namespace: Option<String>,
    },
    /// Ask an operator whether it is ready: 0 if it is
    CheckReady {
        /// Where its health is served
        #[arg(value_name = "HOST:PORT")]
        address: String,
    },
    /// Ask an operator whether it is ready, and the API server whether it knows the kinds of this release; makes nothing
    Check {
        /// Where the operator's health is served
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// Where objects of each kind would be made
        #[arg(long, value_name = "NAMESPACE")]
        namespace: String,
    },
    /// Print everything that the operator needs but the CustomResourceDefinitions, as YAML
    Manifests,
    /// Print the rules of the operator's roles, for the chart
    #[command(hide = true)]
    Rules,
}

/// Runs the program. Returns its exit code: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => run::run(args).map_err(|error| format!("{error:#}")),
        Command::Crd { kind, helm } => crds::print(kind.as_deref(), helm).and_then(|text| print(&text)),
        Command::Render {
            file,
            image,
            operator_namespace,
        } => read(&file).and_then(|text| {
            let images = Images {
                broker: image.clone(),
                cdc: image,
            };
            render::render(&text, &images, "cluster.local", operator_namespace.as_deref())
                .and_then(|text| print(&text))
        }),
        Command::CheckReady { address } => {
            run::check_ready(&address, Duration::ZERO).map_err(|error| format!("{error:#}"))
        }
        Command::Check { address, namespace } => run::check_ready(&address, JUST_INSTALLED)
            .and_then(|()| check::kinds(&namespace))
            .map_err(|error| format!("{error:#}")),
        Command::Manifests => documents(&rbac::manifests()).and_then(|text| print(&text)),
        Command::Rules => documents(&[rbac::table()]).and_then(|text| print(&text)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done where even standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How long an operator that was installed just now may take to know all resources.
const JUST_INSTALLED: Duration = Duration::from_secs(30);

/// Largest manifest, in bytes.
const MAX_MANIFEST: u64 = 4 << 20;

fn read(path: &Path) -> Result<String, String> {
    let said = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = Env::real().disk.open(path, OpenMode::Read).map_err(said)?;
    let len = file.len().map_err(said)?;
    if len > MAX_MANIFEST {
        return Err(format!("{} is no manifest: it has {len} bytes", path.display()));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(said)?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
}

/// Values as YAML documents.
fn documents(values: &[serde_json::Value]) -> Result<String, String> {
    let texts: Result<Vec<String>, _> = values.iter().map(takhin_config::yaml::to_string).collect();
    Ok(texts.map_err(|error| error.to_string())?.join("---\n"))
}

fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))
}
