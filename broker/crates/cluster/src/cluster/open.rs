//! Starting a node's cluster layer: data directory, votes, metadata group, partitions; in this order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use takhin_config::node::Durability;
use takhin_config::topic::TopicConfig;
use takhin_runtime::{Env, Published, Shutdown};
use takhin_storage::{
    DataDir, DataDirError, Expected, FlushPolicy, Flusher, LogError, LogManager, ManagerError, StorageContext,
};
use uuid::Uuid;

use super::exchange::Exchange;
use super::forming::{Forming, FormingError, Standing};
use super::interconnect::Interconnect;
use super::{Cluster, ClusterOptions, METADATA_TOPIC_ID, node_number, wait_for_failure, wait_for_leader};
use crate::controller::{Controller, MetadataObserver};
use crate::leaders::Leaders;
use crate::links::Links;
use crate::metadata::{Image, Origin};
use crate::metrics::Metrics;
use crate::partition::{Partition, PartitionId};
use crate::raft::{FlushDriver, Group, GroupHost, GroupSpec, HostOptions, Voter, group_keys};

/// How long the metadata group may take to elect itself and replay.
const METADATA_START: Duration = Duration::from_secs(60);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is not usable.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The directory of the partitions cannot be read.
    #[error("the partitions cannot be listed")]
    Partitions(#[from] LogError),
    /// A log that was half deleted cannot be deleted.
    #[error("a partition that was being deleted cannot be")]
    Deletion(#[from] ManagerError),
    /// No thread for the flusher.
    #[error("no thread can be started")]
    Thread(#[source] std::io::Error),
    /// The seeds are of another mind.
    #[error(transparent)]
    Forming(#[from] FormingError),
    /// The metadata group did not come up.
    #[error("the cluster's metadata cannot be served: {reason}")]
    Metadata {
        /// What stands in the way.
        reason: String,
    },
}

impl Cluster {
    /// Opens the data directory and starts serving what is in it.
    ///
    /// On return the metadata is complete and every partition's group has been started; leaders follow.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(
        env: Env,
        options: ClusterOptions,
        interconnect: Arc<Interconnect>,
    ) -> Result<Arc<Self>, StartError> {
        let opened = open_directory(&env, &options).await?;
        let cluster = Self::build(env, options, interconnect, opened)?;
        cluster.exchange.serve(&cluster);
        cluster.spawn_elections();
        if let Err(error) = cluster.form().await {
            cluster.abandon().await;
            if matches!(error, StartError::Forming(_)) {
                cluster.leave_no_trace().await;
            }
            return Err(error);
        }
        cluster.learn_draining(&cluster.image());
        cluster.learn_rates(&cluster.image());
        cluster.reconcile(&cluster.image()).await;
        cluster.spawn_background();
        Ok(cluster)
    }

    /// The node's parts around an open directory, with the metadata group started.
    fn build(
        env: Env,
        mut options: ClusterOptions,
        interconnect: Arc<Interconnect>,
        opened: Opened,
    ) -> Result<Arc<Self>, StartError> {
        let Opened {
            data_dir,
            manager,
            context,
        } = opened;
        let directory = data_dir.meta().directory_id;
        options.broker.directory = directory;
        interconnect.identify(directory, &data_dir.meta().cluster_id);
        let metrics = Metrics::default();
        let policy = FlushPolicy {
            threads: options.flush_parallelism,
            ..FlushPolicy::default()
        };
        let rounds = Flusher::new(&context, data_dir.partitions(), policy);
        let flusher = FlushDriver::start(&env, rounds).map_err(StartError::Thread)?;
        let leaders = Arc::new(Leaders::new(options.broker.id, env.clock.clone()));
        let host = GroupHost::new(HostOptions {
            env: env.clone(),
            node: node_number(options.broker.id),
            directory,
            manager: Arc::clone(&manager),
            flusher: flusher.flusher().clone(),
            journal: Arc::clone(data_dir.journal()),
            previous: data_dir.previous_stop(),
            metrics,
            links: Arc::clone(&interconnect) as Arc<dyn Links>,
            leaders: Arc::clone(&leaders),
        });
        let origin = Origin {
            broker: options.broker.id,
            settings: Arc::clone(&options.settings),
        };
        let exchange = Exchange::new(env.clone(), leaders, standing(&options));
        let (metadata_group, image) = start_metadata(&host, &origin, &options);
        // Set once, here.
        let _ = exchange.metadata.set(Arc::clone(&metadata_group));
        interconnect.serve(&exchange);
        let metadata = Arc::clone(&metadata_group.spec.partition);
        let controller = Controller::new(env.clone(), metadata, image, origin);
        Ok(Arc::new(Self {
            begun: env.clock.instant(),
            env,
            options,
            host,
            data_dir: Mutex::new(Some(data_dir)),
            manager,
            flusher,
            controller,
            metadata_group,
            disk_gate: Arc::default(),
            interconnect,
            exchange,
            reconciling: tokio::sync::Mutex::default(),
            reconciled: Published::new(-1),
            producer_ids: Mutex::new(0..0),
            missed: RwLock::default(),
            disks: RwLock::default(),
            is_leaving: AtomicBool::new(false),
            stop: Shutdown::new(),
            background: Mutex::new(Vec::new()),
        }))
    }

    /// Returns once this node belongs to its cluster and has the metadata up to its own registration.
    async fn form(&self) -> Result<(), StartError> {
        let metadata = &self.metadata_group.spec.partition;
        let broken = |reason: String| StartError::Metadata { reason };
        if self.options.is_alone() {
            serving(&self.env, metadata).await.map_err(broken)?;
        }
        let forming = Forming {
            env: &self.env,
            links: &self.host.links,
            exchange: &self.exchange,
            metadata: &self.metadata_group,
            controller: &self.controller,
            options: &self.options,
            remembered: self.host.hard_state.peers(),
        };
        tokio::select! {
            biased;
            formed = forming.run() => formed?,
            reason = wait_for_failure(metadata) => return Err(broken(reason)),
        }
        tokio::select! {
            biased;
            caught_up = self.catch_up() => caught_up.map_err(|e| broken(e.to_string()))?,
            reason = wait_for_failure(metadata) => return Err(broken(reason)),
        }
        let cluster_id = self.image().cluster_id.clone();
        if let Some(data_dir) = &mut *self.data_dir.lock() {
            data_dir.set_cluster_id(&cluster_id)?;
        }
        self.interconnect.identify(self.host.directory, &cluster_id);
        Ok(())
    }

    /// Returns once the image is as new as the newest one that replicas here were made or deleted for. What this broker hears
    /// first of how far its own metadata log is committed may be less.
    async fn catch_up(&self) -> std::io::Result<()> {
        let seen = self.host.hard_state.image()?;
        let mut image = self.image();
        if image.end_offset < seen {
            let heard = image.end_offset;
            tracing::info!(
                heard,
                seen,
                "waiting for metadata as new as those that replicas here were made for"
            );
        }
        while image.end_offset < seen {
            image = self.controller.image_after(image.end_offset).await;
        }
        Ok(())
    }

    /// Ends what a start that failed has begun.
    async fn abandon(&self) {
        self.stop.trigger();
        let background = std::mem::take(&mut *self.background.lock());
        for task in background {
            // A task that panicked was reported when it did.
            let _ = task.await;
        }
        self.metadata_group.stop().await;
        self.flusher.stop(&self.env).await;
        self.interconnect.stop().await;
    }

    /// A broker that is refused on a new directory leaves it empty: under another id it is as good as any.
    async fn leave_no_trace(&self) {
        let Some(data_dir) = self.data_dir.lock().take() else {
            return;
        };
        let discarded = self.env.tasks.blocking(move || data_dir.discard()).await;
        if let Err(error) = discarded {
            // The refusal is what matters; the directory is as usable as after a crash.
            tracing::warn!(error = %error, "the new data directory cannot be emptied");
        }
    }
}

/// Waits until the metadata group leads with everything replayed.
async fn serving(env: &Env, metadata: &Arc<Partition>) -> Result<(), String> {
    let led = env.clock.timeout(METADATA_START, async {
        tokio::select! {
            biased;
            () = wait_for_leader(metadata) => Ok(()),
            reason = wait_for_failure(metadata) => Err(reason),
        }
    });
    led.await
        .unwrap_or_else(|_| Err("no leader was elected in time".into()))
}

struct Opened {
    data_dir: DataDir,
    manager: Arc<LogManager>,
    context: StorageContext,
}

async fn open_directory(env: &Env, options: &ClusterOptions) -> Result<Opened, StartError> {
    let (disk, options) = (Arc::clone(&env.disk), options.clone());
    let expected = Expected {
        node_id: options.broker.id.unsigned_abs(),
        cluster_id: None,
        new_directory_id: Uuid::from_bytes(env.rng.uuid()),
        now_ms: env.clock.now_ms(),
    };
    let open = move || {
        let data_dir = DataDir::open(Arc::clone(&disk), &options.data_dir, &expected)?;
        let context = StorageContext::with_open_segments(disk, options.max_open_segments);
        let (journal, previous) = (Arc::clone(data_dir.journal()), data_dir.previous_stop());
        let manager = LogManager::new(context.clone(), data_dir.partitions(), journal, previous)?;
        for log in manager.half_deleted()? {
            let id = PartitionId {
                topic_id: log.topic_id.0,
                index: log.partition.0,
            };
            manager.delete(log, &group_keys(id))?;
        }
        Ok(Opened {
            data_dir,
            manager: Arc::new(manager),
            context,
        })
    };
    env.tasks.blocking(open).await
}

fn start_metadata(
    host: &Arc<GroupHost>,
    origin: &Origin,
    options: &ClusterOptions,
) -> (Arc<Group>, Published<Arc<Image>>) {
    let (observer, image) = MetadataObserver::new(origin.clone());
    let id = PartitionId {
        topic_id: METADATA_TOPIC_ID,
        index: 0,
    };
    let config = TopicConfig {
        durability: Durability::Flushed,
        ..origin.settings.topic_defaults.clone()
    };
    let partition = Partition::new(id, Arc::new(config), Arc::default());
    // Of several seeds one founds the cluster, see `forming`.
    let alone = options.is_alone().then(|| {
        let directory = host.directory;
        (host.node, Voter { directory })
    });
    let spec = GroupSpec {
        id,
        partition,
        voter: Voter {
            directory: host.directory,
        },
        founders: alone.into_iter().collect(),
        preference: Vec::new(),
        observer: Some(observer),
        may_park: false,
    };
    (Group::start(Arc::clone(host), spec), image)
}

/// How this node stands to its cluster before it has asked anybody.
fn standing(options: &ClusterOptions) -> Standing {
    Standing {
        node: options.broker.id,
        directory: options.broker.directory,
        cluster_name: options.cluster_name.clone(),
        cluster_id: String::new(),
        clock_ms: None,
        seeds: options.seeds.clone(),
        is_member: false,
        controller: -1,
        addresses: BTreeMap::new(),
    }
}
