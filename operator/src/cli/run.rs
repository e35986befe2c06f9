//! `takhin-operator run`: the controllers until SIGTERM or SIGINT, or until another operator leads.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::{Client, Config};
use takhin_config::HttpUrl;
use takhin_runtime::telemetry::health::{Health, Probe};
use takhin_runtime::telemetry::{http, logging, process};
use takhin_runtime::{Env, Shutdown, shutdown};
use takhin_traces::TraceOptions;
use tracing::Level;

use crate::api_calls;
use crate::build::Images;
use crate::control::{Context, Options, lease, run_clusters, run_pika_sources, run_topics};
use crate::fence::Fence;

/// Time that the controllers have for ending what they are doing; less than what another operator waits before it begins.
const STOPPING: Duration = Duration::from_secs(4);

/// Pause between two looks at an operator that is to become ready.
const AGAIN: Duration = Duration::from_millis(500);

const UNUSABLE: &str = "what is configured for the API server cannot be used";

#[derive(Debug, Args)]
#[command(after_help = "\
The API server is found as kubectl finds it: in a pod by its service account, elsewhere by KUBECONFIG.

Examples:
  takhin-operator run
  takhin-operator run --watch-namespaces streaming --broker-image registry.example/takhin:0.1.0
  takhin-operator run --no-leader-election --bind 127.0.0.1:8080 --log-format text

On --bind: /livez (the process), /readyz (all resources are known, or another operator leads), /metrics.")]
pub(super) struct RunArgs {
    /// Namespaces whose resources are looked after, with commas between them; all if there are none
    #[arg(
        long,
        env = "TAKHIN_OPERATOR_WATCH_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE"
    )]
    watch_namespaces: Vec<String>,
    /// Image of brokers whose TakhinCluster names none
    #[arg(long, env = "TAKHIN_OPERATOR_BROKER_IMAGE", value_name = "IMAGE", default_value = concat!("takhin/takhin:", env!("CARGO_PKG_VERSION")))]
    broker_image: String,
    /// Image of takhin-cdc for a PikaSource that names none
    #[arg(long, env = "TAKHIN_OPERATOR_CDC_IMAGE", value_name = "IMAGE", default_value = concat!("takhin/takhin:", env!("CARGO_PKG_VERSION")))]
    cdc_image: String,
    /// What the DNS names of Services end with
    #[arg(
        long,
        env = "TAKHIN_OPERATOR_CLUSTER_DOMAIN",
        value_name = "DOMAIN",
        default_value = "cluster.local"
    )]
    cluster_domain: String,
    /// Clusters that are looked at at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    max_concurrent: u16,
    /// Seconds after which all topics are compared with what their brokers have although nothing has happened
    #[arg(long, env = "TAKHIN_OPERATOR_TOPIC_RESYNC_SECONDS", value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u16).range(5..))]
    topic_resync_seconds: u16,
    /// Health and metrics over HTTP
    #[arg(
        long,
        env = "TAKHIN_OPERATOR_BIND",
        value_name = "HOST:PORT",
        default_value = "0.0.0.0:8080"
    )]
    bind: String,
    /// Work without asking whether another operator does: only where there is none
    #[arg(long, env = "TAKHIN_OPERATOR_NO_LEADER_ELECTION")]
    no_leader_election: bool,
    /// Name of the Lease that operators of the same resources compete for
    #[arg(long, value_name = "NAME", default_value = "takhin-operator")]
    lease_name: String,
    /// Namespace of the Lease [default: that of the pod, or of the kubeconfig]
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,
    /// Namespace of the operator's own pods, which brokers let in [default: unknown, and pods with its name in any are]
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pod_namespace: Option<String>,
    /// Name of this operator in the Lease and in events [default: takhin-operator]
    #[arg(
        long,
        env = "POD_NAME",
        value_name = "NAME",
        default_value = "takhin-operator"
    )]
    identity: String,
    /// Levels by target, such as info,takhin_operator=debug
    #[arg(
        long,
        env = "TAKHIN_OPERATOR_LOG_LEVEL",
        value_name = "FILTER",
        default_value = "info,kube_runtime=warn"
    )]
    log_level: String,
    /// Lines for people or for machines
    #[arg(long, env = "TAKHIN_OPERATOR_LOG_FORMAT", value_enum, default_value_t = Format::Json)]
    log_format: Format,
    /// OpenTelemetry collector that gets spans of passes by OTLP over HTTP, such as http://otel-collector:4318, and those of
    /// takhin-cdc; headers come from OTEL_EXPORTER_OTLP_HEADERS [default: none, and no spans]
    #[arg(long, env = "TAKHIN_OPERATOR_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<HttpUrl>,
}

/// Whose spans are sent: those of passes, and of all calls in them.
const TRACED: [(&str, Level); 2] = [("takhin_operator", Level::DEBUG), ("takhin_client", Level::DEBUG)];

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(args: RunArgs) -> anyhow::Result<()> {
    let options = logging::LogOptions {
        format: match args.log_format {
            Format::Text => logging::LogFormat::Text,
            Format::Json => logging::LogFormat::Json,
        },
        filter: args.log_level.clone(),
        broker_id: None,
    };
    let identity = args.identity.clone();
    let traces = match &args.otlp_endpoint {
        Some(endpoint) => Some(takhin_traces::open(
            &Env::real(),
            &TraceOptions {
                endpoint: endpoint.as_str(),
                service: "takhin-operator",
                version: env!("CARGO_PKG_VERSION"),
                instance: &identity,
                crates: &TRACED,
            },
        )?),
        None => None,
    };
    let (layer, sender) = traces.unzip();
    logging::init_with(&options, layer).context("--log-level")?;
    process::register(
        env!("CARGO_PKG_VERSION"),
        option_env!("TAKHIN_COMMIT").unwrap_or("unknown"),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_name("operator")
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let ended = Shutdown::new();
        let sending = sender.map(|sender| Env::real().tasks.spawn("traces", sender.run(ended.clone())));
        let served = serve(args).await;
        ended.trigger();
        if let Some(sending) = sending {
            // It ends by itself, soon.
            let _ = sending.await;
        }
        served
    })
}

/// Whether the operator at this address is ready, or becomes so in time.
pub(super) fn check_ready(address: &str, patience: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let clock = Env::real().clock;
    let http = crate::broker_api::Http::new(clock.clone(), Fence::open(clock.clone()));
    let deadline = clock.instant() + patience;
    let asked = async {
        loop {
            let (is_ready, text) = http.probe(address, "/readyz").await?;
            if is_ready || clock.instant() >= deadline {
                anyhow::ensure!(is_ready, "{address} is not ready: {}", text.trim());
                return Ok(());
            }
            clock.sleep(AGAIN).await;
        }
    };
    runtime.block_on(asked)
}

async fn serve(args: RunArgs) -> anyhow::Result<()> {
    let env = Env::real();
    let stop = Shutdown::new();
    env.tasks.spawn("signals", shutdown::signals(stop.clone()));
    let health = Health::start(&env, &stop);
    let listener = env.net.listen(&args.bind, "--bind").await?;
    let serving = {
        let (env, health, stop) = (env.clone(), health.clone(), stop.clone());
        async move { http::serve(&env, listener, health, None, stop).await }
    };
    env.tasks.spawn("health", serving);
    let config = Config::infer()
        .await
        .context("cannot find an API server: neither a service account nor a kubeconfig")?;
    let identity = format!("{}-{:08x}", args.identity, env.rng.next_u64() & 0xffff_ffff);
    if args.no_leader_election {
        let fence = Fence::open(env.clock.clone());
        return lead(&args, &env, config, fence, &health, stop, None).await;
    }
    let namespace = args.lease_namespace.as_ref().unwrap_or(&config.default_namespace);
    let mut of_lease = config.clone();
    // It tries again by itself, as long as there is time.
    of_lease.default_retry = false;
    let client = Client::try_from(of_lease).context(UNUSABLE)?;
    let client = api_calls::counted(client, config.default_namespace.clone());
    let (renewal, fence) = Fence::new(env.clock.clone());
    let candidate = lease::Candidate::new(
        client,
        env.clone(),
        namespace,
        &args.lease_name,
        &identity,
        renewal,
    );
    if !candidate.acquire(&stop).await {
        return Ok(());
    }
    lead(&args, &env, config, fence, &health, stop, Some(candidate)).await
}

async fn lead(
    args: &RunArgs,
    env: &Env,
    config: Config,
    fence: Fence,
    health: &Health,
    stop: Shutdown,
    candidate: Option<lease::Candidate>,
) -> anyhow::Result<()> {
    let options = Options {
        namespaces: args
            .watch_namespaces
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect(),
        images: Images {
            broker: args.broker_image.clone(),
            cdc: args.cdc_image.clone(),
        },
        domain: args.cluster_domain.clone(),
        home: args.pod_namespace.clone().filter(|name| !name.is_empty()),
        concurrency: args.max_concurrent,
        topic_resync: Duration::from_secs(args.topic_resync_seconds.into()),
        traces: args.otlp_endpoint.as_ref().map(ToString::to_string),
    };
    let client = fence.client(config).context(UNUSABLE)?;
    let context = Context::new(client, fence, env.clone(), options, args.identity.clone());
    let unknown = "not all resources are known yet";
    let clusters = health.flag(Probe::Ready, "clusters", unknown);
    let topics = health.flag(Probe::Ready, "topics", unknown);
    let sources = health.flag(Probe::Ready, "pika-sources", unknown);
    let ending = Shutdown::new();
    let working = async {
        tokio::join!(
            run_clusters(context.clone(), ending.clone(), clusters),
            run_topics(context.clone(), ending.clone(), topics),
            run_pika_sources(context.clone(), ending.clone(), sources),
        );
    };
    let mut working = std::pin::pin!(working);
    crate::control::leads(true);
    let lost = tokio::select! {
        () = &mut working => anyhow::bail!("the controllers have ended"),
        () = stop.wait() => false,
        kept = keep(candidate.as_ref(), &stop) => !kept,
    };
    crate::control::leads(false);
    if lost {
        // Nothing is finished: another one may work already.
        anyhow::bail!("another operator leads, or the Lease could not be renewed in time");
    }
    ending.trigger();
    // The Lease is given back only when nothing is done any more.
    let _ = env.clock.timeout(STOPPING, working).await;
    if let Some(candidate) = candidate {
        candidate.release().await;
    }
    Ok(())
}

async fn keep(candidate: Option<&lease::Candidate>, stop: &Shutdown) -> bool {
    match candidate {
        Some(candidate) => candidate.keep(stop).await,
        None => std::future::pending().await,
    }
}
