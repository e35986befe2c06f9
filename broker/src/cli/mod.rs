//! The command line of `takhin`.

mod check_config;
mod dev_nodes;
mod dump_log;
mod run;
mod wait_for_file;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use takhin_config::{Loaded, Sources};
use takhin_runtime::Env;

const EXAMPLES: &str = "\
Examples:
  takhin dev                                      one broker on 127.0.0.1:9092, data in ./takhin-data
  takhin dev --nodes 3                            a cluster of three, each broker a process, ports counting up
  takhin dev --kafka 127.0.0.1:19092 --set kafka.num_partitions=4
  takhin start --config /etc/takhin/takhin.yaml   production
  takhin check-config --config takhin.yaml        every fault of a configuration, or every value and its origin
  takhin dump-log takhin-data/partitions/*        what is in segment files, offline

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.";

/// A streaming broker that speaks Kafka's protocol.
#[derive(Debug, Parser)]
#[command(name = "takhin", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one broker or a cluster for development; needs no configuration and keeps its data
    Dev(DevArgs),
    /// Run a broker from a configuration file
    Start(StartArgs),
    /// Check a configuration: list every fault, or every value and where it comes from
    CheckConfig(ConfigArgs),
    /// Print what is in a log: one line per batch, with Raft index and Kafka offset
    DumpLog(dump_log::DumpLogArgs),
    /// Wait until a file has a first byte, in a pod whose broker needs what is written into it
    #[command(hide = true)]
    WaitForFile(wait_for_file::WaitForFileArgs),
    /// Print a reference page
    #[command(hide = true)]
    Docs {
        /// Which one
        #[arg(value_enum, default_value_t = Page::KafkaApis)]
        page: Page,
    },
}

/// The pages of docs/reference that this program prints.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Page {
    /// The Kafka APIs, in Markdown
    KafkaApis,
    /// The admin API, as an OpenAPI document
    AdminApi,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  takhin dev
  takhin dev --nodes 3
  takhin dev --data-dir /tmp/t1 --kafka 127.0.0.1:19092 --admin 127.0.0.1:19644
  takhin dev --set storage.durability=cached --set kafka.num_partitions=4

Then, in another terminal:
  echo hello | kcat -P -b 127.0.0.1:9092 -t first
  kcat -C -b 127.0.0.1:9092 -t first -e")]
struct DevArgs {
    /// Directory for everything the broker stores; created if missing, kept afterwards
    #[arg(long, value_name = "DIR", default_value = "./takhin-data")]
    data_dir: PathBuf,
    /// Where Kafka clients connect
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Health, metrics and the admin API over HTTP
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    admin: String,
    /// Brokers of the cluster, each a process of its own; the ports count up from those given
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(dev_nodes::MAX_NODES)))]
    nodes: u16,
    /// Where brokers reach each other [default: 127.0.0.1:33145 with --nodes, a free port without]
    #[arg(long, value_name = "HOST:PORT")]
    rpc: Option<String>,
    /// Any setting of the reference, may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The smallest file:
  node:    { id: 1, data_dir: /var/lib/takhin }
  cluster: { name: demo, seeds: [\"127.0.0.1:33145\"] }

Every setting can also come from the environment (TAKHIN__KAFKA__NUM_PARTITIONS=4) or from --set, which wins.")]
struct StartArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration, in YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Any setting of the reference, may be repeated; wins over file and environment
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// Why a command ends with an error, and the exit code for it.
#[derive(Debug)]
enum Failure {
    /// The user must change something on the command line or in the configuration: 2.
    Usage(anyhow::Error),
    /// Something did not work: 1.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs the program. Returns its exit code: 0 done, 1 failed, 2 wrong usage or configuration.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Dev(args) => dev(args),
        Command::Start(args) => {
            load_file(&args.config).and_then(|loaded| run::run(loaded.config, None, false))
        }
        Command::CheckConfig(args) => load_file(&args).and_then(|loaded| check_config::print(&loaded)),
        Command::DumpLog(args) => dump_log::dump(&args),
        Command::WaitForFile(args) => wait_for_file::wait(&args),
        Command::Docs { page } => print(&match page {
            Page::KafkaApis => crate::docs::kafka_apis(),
            Page::AdminApi => crate::admin::document(),
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => fail(&error, 2),
        Err(Failure::Failed(error)) => fail(&error, 1),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // One line, causes included; where standard error is closed nobody can be told.
    let _ = writeln!(std::io::stderr(), "takhin: {error:#}");
    ExitCode::from(code)
}

/// Writes to standard output. A reader that has gone (`| head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Failed(
            anyhow::Error::new(error).context("cannot write to standard output"),
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn dev(args: DevArgs) -> Result<(), Failure> {
    if args.nodes > 1 {
        return dev_nodes::run(&args);
    }
    let mut sources = Sources::dev(&args.data_dir.to_string_lossy());
    sources.env = environment();
    sources.set = vec![
        format!("kafka.listeners.0.bind={}", args.kafka),
        format!("admin.bind={}", args.admin),
    ];
    sources.set.extend(args.rpc.map(|rpc| format!("rpc.bind={rpc}")));
    sources.set.extend(args.set);
    let loaded = load(&sources)?;
    let is_free = !loaded.is_set("rpc.bind") && !loaded.is_set("cluster.seeds");
    let mut config = loaded.config;
    if is_free {
        // Nobody else needs to find this broker, and several such may run on one machine.
        config.rpc.bind.set_port(0);
        config.cluster.seeds = vec![config.rpc.configured()];
    }
    run::run(config, Some(run::Banner::Dev), args.stop_with_stdin)
}

fn load_file(args: &ConfigArgs) -> Result<Loaded, Failure> {
    let text = read_text(&args.config).map_err(Failure::Usage)?;
    let sources = Sources {
        file: Some((args.config.display().to_string(), text)),
        env: environment(),
        set: args.set.clone(),
        ..Sources::default()
    };
    load(&sources)
}

fn load(sources: &Sources) -> Result<Loaded, Failure> {
    takhin_config::load(sources).map_err(|error| Failure::Usage(anyhow::anyhow!("{error}")))
}

/// Variables that are not UTF-8 cannot be settings.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect()
}

/// Largest configuration file, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

fn read_text(path: &Path) -> anyhow::Result<String> {
    let disk = Env::real().disk;
    let what = || format!("cannot read {}", path.display());
    let file = disk
        .open(path, takhin_runtime::OpenMode::Read)
        .with_context(what)?;
    let len = file.len().with_context(what)?;
    anyhow::ensure!(
        len <= MAX_CONFIG,
        "{} is no configuration: it has {len} bytes",
        path.display()
    );
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).with_context(what)?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
