//! The command line of `takhin-cdc`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use takhin_config::{CdcConfig, Sources, load_cdc, node};
use takhin_runtime::telemetry::health::Health;
use takhin_runtime::telemetry::{http, logging, process};
use takhin_runtime::{Env, OpenMode, Shutdown, shutdown};
use takhin_traces::TraceOptions;

use crate::control::{Control, Pause};
use crate::trace::TRACED;
use crate::{metrics, run};

const EXAMPLES: &str = "\
The smallest file:

  source:     { host: 10.0.0.1, port: 9221, cluster: prod }
  sink:       { bootstrap: [\"127.0.0.1:9092\"] }
  checkpoint: { dir: /var/lib/takhin-cdc }

Examples:
  takhin-cdc --config cdc.yaml
  takhin-cdc --config cdc.yaml --check                     say what is wrong with the configuration, or ok
  takhin-cdc --config cdc.yaml --dry-run --limit 20        show what would be sent, and send nothing
  takhin-cdc --config cdc.yaml --set telemetry.log_level=debug
  TAKHIN__SOURCE__PASSWORD_FILE=/run/secrets/pika takhin-cdc --config cdc.yaml

Later ones win: the file, the environment (TAKHIN__SECTION__KEY), --set. docs/reference/cdc-configuration.md has every setting.

It goes on where it was. The position is in the files checkpoint.json and checkpoint-2.json of checkpoint.dir and in the topic
__pika_port_kafka_offsets; the further one counts. Trouble with the master or the brokers ends nothing: it tries again,
and /readyz on admin.bind says what it waits for. POST /v1/pause there has nothing written until POST /v1/resume. SIGTERM stops it when what is on its way was written.

Exit codes: 0 stopped, 1 failed, 2 wrong usage or configuration.";

/// Follows a Pika master (2.3.3 to 4.0) and writes its data and changes to Kafka topics.
#[derive(Debug, Parser)]
#[command(name = "takhin-cdc", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    /// Configuration, in YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One setting, over file and environment; may be given more than once
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Only read the configuration
    #[arg(long)]
    check: bool,
    /// Print what would be sent, a line of JSON for each event: nothing is sent, acknowledged to the master, or kept
    #[arg(long, conflicts_with = "check")]
    dry_run: bool,
    /// Events after which a dry run ends
    #[arg(long, value_name = "EVENTS", default_value_t = 100, requires = "dry_run",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
}

/// Largest configuration, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// Runs the program. Returns its exit code: 0 stopped, 1 failed, 2 wrong usage or configuration.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match configuration(&cli) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    if cli.check {
        return match writeln!(std::io::stdout(), "ok: the configuration has no faults") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    match start(&config, cli.dry_run.then_some(cli.limit)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn fail(error: &str, code: u8) -> ExitCode {
    // Nothing can be done where even standard error is closed.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}

fn configuration(cli: &Cli) -> Result<CdcConfig, String> {
    let text = read(&cli.config)?;
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let sources = Sources {
        file: Some((cli.config.display().to_string(), text)),
        env,
        set: cli.set.clone(),
        ..Sources::default()
    };
    load_cdc(&sources).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<String, String> {
    let said = |error: std::io::Error| format!("--config: cannot read {}: {error}", path.display());
    let file = Env::real().disk.open(path, OpenMode::Read).map_err(said)?;
    let len = file.len().map_err(said)?;
    if len > MAX_CONFIG {
        return Err(format!(
            "--config: {} is no configuration: it has {len} bytes",
            path.display()
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(said)?;
    String::from_utf8(bytes).map_err(|_| format!("--config: {} is not UTF-8 text", path.display()))
}

fn start(config: &CdcConfig, limit: Option<u32>) -> anyhow::Result<()> {
    let options = logging::LogOptions {
        format: match config.telemetry.log_format {
            node::LogFormat::Text => logging::LogFormat::Text,
            node::LogFormat::Json => logging::LogFormat::Json,
        },
        filter: config.telemetry.log_level.as_str().to_owned(),
        broker_id: None,
    };
    let source = config.source_id();
    let traces = match &config.telemetry.otlp_endpoint {
        Some(endpoint) => Some(takhin_traces::open(
            &Env::real(),
            &TraceOptions {
                endpoint: endpoint.as_str(),
                service: "takhin-cdc",
                version: env!("CARGO_PKG_VERSION"),
                instance: &source,
                crates: &TRACED,
            },
        )?),
        None => None,
    };
    let (layer, sender) = traces.unzip();
    logging::init_with(&options, layer).context("telemetry.log_level")?;
    process::register(
        env!("CARGO_PKG_VERSION"),
        option_env!("TAKHIN_COMMIT").unwrap_or("unknown"),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_name("cdc")
        .build()
        .context("cannot start the runtime")?;
    match limit {
        Some(limit) => runtime.block_on(show(config, limit)),
        None => runtime.block_on(serve(config, sender)),
    }
}

async fn show(config: &CdcConfig, limit: u32) -> anyhow::Result<()> {
    let env = Env::real();
    let stop = Shutdown::new();
    env.tasks.spawn("signals", shutdown::signals(stop.clone()));
    let mut out = std::io::stdout();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let shown = Box::pin(run::dry_run(config, &env, (limit, &mut out), &stop)).await?;
    writeln!(
        std::io::stderr(),
        "dry run: {} events would be sent, {} are left out by filters; nothing was sent, acknowledged or kept",
        shown.events,
        shown.filtered
    )
    .context("cannot write to standard error")
}

async fn serve(config: &CdcConfig, traces: Option<takhin_traces::Sender>) -> anyhow::Result<()> {
    let env = Env::real();
    metrics::register(env.clock.clone());
    let stop = Shutdown::new();
    env.tasks.spawn("signals", shutdown::signals(stop.clone()));
    let health = Health::start(&env, &stop);
    // Before anybody can ask.
    let flags = run::Flags::new(&health);
    let listener = env
        .net
        .listen(&config.admin.bind.to_string(), "admin.bind")
        .await?;
    let pause = Pause::default();
    pause.set(false);
    let control: Arc<dyn http::Endpoints> = Arc::new(Control::new(pause.clone(), config.admin.bind.ip()));
    // Its own end: what is said while stopping is said.
    let ended = Shutdown::new();
    let serving = {
        let (env, health, ended) = (env.clone(), health.clone(), ended.clone());
        async move { http::serve(&env, listener, health, Some(control), ended).await }
    };
    let serving = env.tasks.spawn("health", serving);
    let sending = traces.map(|sender| env.tasks.spawn("traces", sender.run(ended.clone())));
    let done = Box::pin(run::run(config, &env, (&flags, &pause), &stop)).await;
    ended.trigger();
    let _ = serving.await;
    if let Some(sending) = sending {
        let _ = sending.await;
    }
    Ok(done?)
}
