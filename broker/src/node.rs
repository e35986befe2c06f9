//! A broker as a whole: built from its configuration, started and stopped in order.
//!
//! ```text
//! start   bind listeners, rpc ─▶ open the data directory, recover, elect ─▶ listen, take connections ─▶ ready
//! stop    not ready ─▶ others lead ─▶ take none, finish what is being served ─▶ flush, write the clean marker
//! ```
//!
//! Listeners are bound first: an address in use is the commonest mistake and should not cost a recovery. Clients that
//! come early are refused, and turn to another broker: in a listen queue they would wait for this one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::{BrokerInfo, Cluster, ClusterOptions, Endpoint, Interconnect};
use takhin_config::NodeConfig;
use takhin_config::live::Settings;
use takhin_runtime::net::{Bound, ListenError, Listener};
use takhin_runtime::telemetry::health::{Flag, Health, Probe};
use takhin_runtime::telemetry::http;
use takhin_runtime::{DiskWatch, Env, JoinHandle, Shutdown};
use tracing::{error, info, warn};

use crate::admin::{AdminApi, TokenError};
use crate::auto_create::AutoCreate;
use crate::budget::Budget;
use crate::context::Broker;
use crate::coordinators::Coordinators;
use crate::fetch_session::FetchSessions;
use crate::listener::{self, Acceptor, Gate};
use crate::metrics::Metrics;
use crate::withdraw;

/// Pause between two refreshes of the gauges that are not kept up to date by the way.
const REFRESH: Duration = Duration::from_secs(5);

/// How long a starting broker waits for its partitions to be served. Clients would retry, but need not.
const LEADERS_WAIT: Duration = Duration::from_secs(10);

/// Why a broker did not start. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The address of a listener cannot be found out.
    #[error("the address of listener {listener} is unknown")]
    Address {
        /// Name of the listener.
        listener: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The token of the admin API cannot be read.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The data directory or what is in it cannot be used.
    #[error(transparent)]
    Cluster(#[from] takhin_cluster::StartError),
}

/// A running broker.
#[derive(Debug)]
pub struct Node {
    broker: Arc<Broker>,
    gate: Arc<Gate>,
    addresses: Vec<(String, SocketAddr)>,
    admin: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    /// Tasks that end last, with `stopped`: health is asked for while the broker stops.
    last_tasks: Vec<JoinHandle<()>>,
    ready: Flag,
    failed: Shutdown,
    stopped: Shutdown,
    /// Of the disk; it ends with the node.
    _watch: Option<DiskWatch>,
}

/// A Kafka listener, with its socket.
struct Named<S> {
    name: String,
    address: SocketAddr,
    socket: S,
}

impl Node {
    /// Starts a broker; on return it takes connections.
    ///
    /// # Errors
    /// [`StartError`], with what to do about it.
    pub async fn start(env: Env, config: NodeConfig) -> Result<Self, StartError> {
        let bound = bind(&env, &config).await?;
        let admin = Admin::start(&env, &config).await?;
        let cluster = match start_cluster(&env, &config, &bound).await {
            Ok(cluster) => cluster,
            Err(error) => {
                admin.stop().await;
                return Err(error);
            }
        };
        admin.started.pass();
        if env.clock.timeout(LEADERS_WAIT, cluster.led()).await.is_err() {
            warn!(
                partitions = cluster.stats().unavailable,
                "taking connections although partitions have no leader yet"
            );
        }
        let listeners = match listen(bound) {
            Ok(listeners) => listeners,
            Err(error) => {
                cluster.stop().await;
                admin.stop().await;
                return Err(error.into());
            }
        };
        let gate = Gate::new();
        let limits = &config.kafka.limits;
        let budget = Budget::new(
            limits.max_request_memory.as_u64(),
            limits.max_request_size.as_u64(),
        );
        let broker = Arc::new(broker(env, config, cluster));
        watch_metadata(&admin.health, &broker);
        let failed = Shutdown::new();
        let watch = withdraw::watch(
            &broker.env,
            &broker.config,
            &broker.cluster,
            &admin.health,
            &failed,
        );
        admin.api.serve(&broker);
        let mut node = Self {
            broker,
            gate,
            addresses: Vec::new(),
            admin: admin.address,
            tasks: Vec::new(),
            last_tasks: vec![admin.task],
            ready: admin.ready,
            failed,
            stopped: admin.stop,
            _watch: watch,
        };
        let keep = Coordinators::keep(Arc::clone(&node.broker));
        node.tasks.push(node.broker.env.tasks.spawn("coordinators", keep));
        let observe = Coordinators::observe(Arc::clone(&node.broker));
        node.tasks
            .push(node.broker.env.tasks.spawn("observe groups", observe));
        for listener in listeners {
            node.accept(listener, &budget);
        }
        let refresh = refresh(Arc::clone(&node.broker), budget);
        node.tasks
            .push(node.broker.env.tasks.spawn("refresh metrics", refresh));
        node.ready.pass();
        Ok(node)
    }

    /// Names and addresses of the Kafka listeners, with the ports that the system chose.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// Address of the admin endpoints, with the port that the system chose.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Returns when something ended that the broker cannot do without; it was logged. The node should be stopped.
    pub async fn failed(&self) {
        self.failed.wait().await;
    }

    /// Stops in order: has other brokers lead what this one leads, takes no more connections, finishes the requests being
    /// served (at most `node.drain_timeout`), flushes everything and marks the data directory as cleanly closed.
    pub async fn stop(self) {
        self.ready.fail("the broker is stopping");
        self.broker.cluster.give_leadership_away().await;
        self.broker.stopping.trigger();
        listener::drain(&self.broker, &self.gate, self.broker.config.node.drain_timeout).await;
        for task in self.tasks {
            // A panic was reported when it happened.
            let _ = task.await;
        }
        self.broker.cluster.stop().await;
        self.stopped.trigger();
        for task in self.last_tasks {
            let _ = task.await;
        }
        info!("stopped");
    }

    fn accept(&mut self, listener: Named<Listener>, budget: &Budget) {
        let Named {
            name,
            address,
            socket,
        } = listener;
        info!(listener = name, %address, "listening");
        let acceptor = Acceptor {
            broker: Arc::clone(&self.broker),
            name: Arc::from(name.as_str()),
            listener: socket,
            gate: Arc::clone(&self.gate),
            budget: budget.clone(),
            metrics: self.broker.metrics.listener(&name),
        };
        self.addresses.push((name.clone(), address));
        let failed = self.failed.clone();
        let accepting = async move {
            if let Err(error) = acceptor.run().await {
                error!(listener = name, %error, "listener is broken; the broker stops");
                failed.trigger();
            }
        };
        self.tasks.push(self.broker.env.tasks.spawn("accept", accepting));
    }
}

/// Health, metrics and administration over HTTP; up before everything else, so that a long recovery can be watched.
struct Admin {
    address: SocketAddr,
    health: Health,
    api: Arc<AdminApi>,
    started: Flag,
    ready: Flag,
    task: JoinHandle<()>,
    stop: Shutdown,
}

impl Admin {
    async fn start(env: &Env, config: &NodeConfig) -> Result<Self, StartError> {
        let listener = env
            .net
            .apart()
            .listen(&config.admin.bind.to_string(), "admin.bind")
            .await?;
        let address = listener.local_addr().map_err(|source| StartError::Address {
            listener: "admin".to_owned(),
            source,
        })?;
        let stop = Shutdown::new();
        let health = Health::start(env, &stop);
        let started = health.flag(
            Probe::Startup,
            "log recovered",
            "the data directory is being opened",
        );
        let ready = health.flag(Probe::Ready, "listeners open", "the broker is starting");
        let api = AdminApi::new(env, &config.admin, &health).await;
        let api = api.inspect_err(|_| stop.trigger())?;
        let endpoints = Some(Arc::clone(&api) as Arc<dyn http::Endpoints>);
        let (env2, health2, stop2) = (env.clone(), health.clone(), stop.clone());
        let task = env.tasks.spawn("admin", async move {
            if let Err(error) = http::serve(&env2, listener, health2, endpoints, stop2).await {
                error!(%error, "admin listener is broken; health and metrics cannot be read");
            }
        });
        Ok(Self {
            address,
            health,
            api,
            started,
            ready,
            task,
            stop,
        })
    }

    async fn stop(self) {
        self.stop.trigger();
        // A panic was reported when it happened.
        let _ = self.task.await;
    }
}

/// A broker whose metadata has no leader is up but not ready for work.
fn watch_metadata(health: &Health, broker: &Arc<Broker>) {
    let cluster = Arc::downgrade(&broker.cluster);
    health.check(Probe::Ready, "metadata served", move || match cluster.upgrade() {
        Some(cluster) if cluster.controller_id() >= 0 => Ok(()),
        Some(_) | None => Err("the metadata group has no leader".to_owned()),
    });
}

async fn start_cluster(
    env: &Env,
    config: &NodeConfig,
    bound: &[Named<Bound>],
) -> Result<Arc<Cluster>, StartError> {
    let rpc = config.rpc.bind.to_string();
    let interconnect = Interconnect::start(env, &rpc, "rpc.bind", config.node.id).await?;
    let options = cluster_options(config, bound, interconnect.local_addr());
    Ok(Cluster::start(env.clone(), options, interconnect).await?)
}

async fn bind(env: &Env, config: &NodeConfig) -> Result<Vec<Named<Bound>>, StartError> {
    let mut bound = Vec::new();
    for (index, listener) in config.kafka.listeners.iter().enumerate() {
        let setting = format!("kafka.listeners.{index}.bind");
        let socket = env.net.bind(&listener.bind.to_string(), &setting).await?;
        let address = socket.local_addr().map_err(|source| StartError::Address {
            listener: listener.name.clone(),
            source,
        })?;
        bound.push(Named {
            name: listener.name.clone(),
            address,
            socket,
        });
    }
    Ok(bound)
}

fn broker(env: Env, config: NodeConfig, cluster: Arc<Cluster>) -> Broker {
    Broker {
        fetch_sessions: FetchSessions::new(&env, config.kafka.fetch_session_slots as usize),
        auto_create: AutoCreate::default(),
        coordinators: Coordinators::default(),
        metrics: Arc::new(Metrics::new()),
        stopping: Shutdown::new(),
        cluster,
        config: Arc::new(config),
        env,
    }
}

fn listen(bound: Vec<Named<Bound>>) -> Result<Vec<Named<Listener>>, ListenError> {
    let listened = bound.into_iter().map(
        |Named {
             name,
             address,
             socket,
         }| {
            let socket = socket.listen()?;
            Ok(Named {
                name,
                address,
                socket,
            })
        },
    );
    listened.collect()
}

fn cluster_options(config: &NodeConfig, bound: &[Named<Bound>], rpc: SocketAddr) -> ClusterOptions {
    let endpoints = config.kafka.listeners.iter().zip(bound).map(|(listener, bound)| {
        let advertised = listener.advertised(bound.address);
        Endpoint {
            listener: bound.name.clone(),
            host: advertised.host,
            port: advertised.port,
        }
    });
    let broker = BrokerInfo {
        id: config.node.id,
        rack: config.node.rack.clone(),
        endpoints: endpoints.collect(),
        rpc: config.rpc.advertised(rpc).to_string(),
        // Known once the data directory is open.
        directory: uuid::Uuid::nil(),
    };
    // A seed list that names this broker by a port that the system was to choose means the one that it chose.
    let configured = config.rpc.configured();
    let seeds = config.cluster.seeds.iter().map(|seed| match *seed == configured {
        true => broker.rpc.clone(),
        false => seed.to_string(),
    });
    let seeds = seeds.collect();
    let storage = &config.storage;
    ClusterOptions {
        broker,
        seeds,
        data_dir: config.node.data_dir.clone(),
        cluster_name: config.cluster.name.clone(),
        settings: Arc::new(Settings::of(config.clone())),
        checkpoint_interval: storage.checkpoint_interval,
        max_open_segments: storage.max_open_segments as usize,
        flush_parallelism: usize::from(storage.flush_parallelism),
        park_after: config.cluster.park_after,
        min_free_bytes: storage.min_free_space.as_u64(),
    }
}

/// Keeps the gauges up to date until the broker stops.
async fn refresh(broker: Arc<Broker>, budget: Budget) {
    loop {
        refresh_gauges(&broker, &budget).await;
        if broker
            .env
            .clock
            .timeout(REFRESH, broker.stopping.wait())
            .await
            .is_ok()
        {
            return;
        }
    }
}

async fn refresh_gauges(broker: &Arc<Broker>, budget: &Budget) {
    let stats = broker.cluster.stats();
    let image = broker.cluster.image();
    let node = &broker.metrics.node;
    node.topics.set(as_gauge(stats.topics));
    node.partitions.set(as_gauge(stats.partitions));
    node.unavailable.set(as_gauge(stats.unavailable));
    node.imbalanced.set(as_gauge(stats.imbalanced));
    node.under_replicated.set(as_gauge(stats.under_replicated));
    node.under_min_isr.set(as_gauge(stats.under_min_isr));
    node.at_min_isr.set(as_gauge(stats.at_min_isr));
    node.offline_replicas.set(as_gauge(stats.offline_replicas));
    node.in_doubt.set(as_gauge(stats.in_doubt));
    node.parked.set(as_gauge(stats.parked));
    node.active.set(as_gauge(stats.active));
    node.fenced.set(as_gauge(stats.fenced));
    node.is_controller.set(i64::from(
        broker.cluster.controller_id() == broker.cluster.node_id(),
    ));
    node.request_memory
        .set(i64::try_from(budget.used()).unwrap_or(i64::MAX));
    node.fetch_sessions.set(as_gauge(broker.fetch_sessions.len()));
    node.fetch_session_partitions
        .set(as_gauge(broker.fetch_sessions.partitions()));
    broker
        .metrics
        .topics
        .refresh(&image, &broker.cluster.storage().bytes_by_topic());
    let (disk, data_dir) = (Arc::clone(&broker.env.disk), broker.config.node.data_dir.clone());
    if let Ok(space) = broker.env.tasks.blocking(move || disk.space(&data_dir)).await {
        node.disk_total
            .set(i64::try_from(space.total).unwrap_or(i64::MAX));
        node.disk_free.set(i64::try_from(space.free).unwrap_or(i64::MAX));
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
