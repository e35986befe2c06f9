//! `takhin dev` and `takhin start`: a broker until SIGTERM or SIGINT.

use std::fmt::Write as _;

use anyhow::Context as _;
use takhin_config::NodeConfig;
use takhin_config::node::{LogFormat, LogLevel};
use takhin_runtime::Env;
use takhin_runtime::shutdown::{self, Shutdown};
use takhin_runtime::telemetry::{logging, process};

use super::Failure;
use crate::node::{Node, StartError};

/// What is printed once the broker serves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Banner {
    /// Where everything listens and what to try next.
    Dev,
}

/// Runs a broker until it is told to stop.
pub(super) fn run(config: NodeConfig, banner: Option<Banner>, stop_with_stdin: bool) -> Result<(), Failure> {
    log(&config).map_err(Failure::Usage)?;
    // Who builds a release sets the commit; without it there is none to name.
    process::register(
        env!("CARGO_PKG_VERSION"),
        option_env!("TAKHIN_COMMIT").unwrap_or("unknown"),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("takhin")
        .build()
        .context("cannot start the runtime")?;
    let stop = Shutdown::new();
    if stop_with_stdin {
        shutdown::with_stdin(stop.clone()).context("cannot watch standard input")?;
    }
    runtime.block_on(serve(config, banner, stop))
}

fn log(config: &NodeConfig) -> anyhow::Result<()> {
    let telemetry = &config.telemetry;
    let options = logging::LogOptions {
        format: match telemetry.log_format {
            LogFormat::Text => logging::LogFormat::Text,
            LogFormat::Json => logging::LogFormat::Json,
        },
        filter: filter(telemetry.log_level),
        broker_id: Some(config.node.id),
    };
    logging::init(&options)?;
    Ok(())
}

/// The replication library tells at info what is our debug, and warns of each request that a broker that is away does not
/// answer: thousands of lines a second, which say no more than the one on its link. That a heartbeat was answered after its
/// group was parked it calls an error.
fn filter(level: LogLevel) -> String {
    match level {
        LogLevel::Info | LogLevel::Warn | LogLevel::Error => {
            format!("{},openraft=error,openraft::core::heartbeat=off", level.as_str())
        }
        other => other.as_str().to_owned(),
    }
}

async fn serve(config: NodeConfig, banner: Option<Banner>, stop: Shutdown) -> Result<(), Failure> {
    let env = Env::real();
    env.tasks.spawn("signals", shutdown::signals(stop.clone()));
    let data_dir = config.node.data_dir.display().to_string();
    let starting = Node::start(env, config);
    let node = tokio::select! {
        biased;
        () = stop.wait() => return Ok(()),
        started = starting => started.map_err(|error| cannot_start(error, banner))?,
    };
    if let Some(Banner::Dev) = banner {
        super::print(&cheat_sheet(&node, &data_dir))?;
    }
    let failed = tokio::select! {
        biased;
        () = stop.wait() => false,
        () = node.failed() => true,
    };
    node.stop().await;
    if failed {
        return Err(Failure::Failed(anyhow::anyhow!(
            "the broker stopped because of a failure; the log says which"
        )));
    }
    Ok(())
}

/// Names the flags of `takhin dev` where the remedy names the settings behind them.
fn cannot_start(error: StartError, banner: Option<Banner>) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    match banner {
        Some(Banner::Dev) => {
            let text = format!("{error:#}");
            let text = text
                .replace("kafka.listeners.0.bind", "--kafka")
                .replace("admin.bind", "--admin");
            anyhow::anyhow!("cannot start: {}", text.replace("node.data_dir", "--data-dir"))
        }
        None => error.context("cannot start"),
    }
}

fn cheat_sheet(node: &Node, data_dir: &str) -> String {
    let mut out = String::from("Takhin is ready.\n\n");
    // Writing to a String cannot fail.
    for (name, address) in node.addresses() {
        let _ = writeln!(out, "  Kafka     {address}  (listener {name})");
    }
    let _ = writeln!(
        out,
        "  admin     http://{}  (/readyz, /metrics, /v1/cluster/health)",
        node.admin_address()
    );
    let _ = writeln!(out, "  data      {data_dir}\n");
    if let Some((_, address)) = node.addresses().first() {
        let _ = writeln!(
            out,
            "Try, in another terminal:\n\n  echo hello | kcat -P -b {address} -t first\n  kcat -C -b {address} -t first -e\n"
        );
    }
    out.push_str("Stop with Ctrl-C; the data stays.\n");
    out
}
