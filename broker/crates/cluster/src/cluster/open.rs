//! Starting a node's cluster layer: data directory, votes, metadata group, partitions; in this order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use takhin_config::node::Durability;
use takhin_config::topic::TopicConfig;
use takhin_protocol::ids::TopicId;
use takhin_runtime::{Env, Published, Shutdown};
use takhin_storage::{
    DataDir, DataDirError, Expected, FlushPolicy, Flusher, LogError, LogManager, StorageContext,
};
use uuid::Uuid;

use super::{Cluster, ClusterOptions, METADATA_TOPIC_ID, wait_for_failure, wait_for_leader};
use crate::controller::{Controller, MetadataObserver, TopicError};
use crate::metadata::{Image, MetadataRecord, Origin};
use crate::metrics::Metrics;
use crate::partition::{Partition, PartitionId};
use crate::raft::{FlushDriver, Group, GroupHost, GroupSpec, HostOptions};

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
    /// No thread for the flusher.
    #[error("no thread can be started")]
    Thread(#[source] std::io::Error),
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
    pub async fn start(env: Env, options: ClusterOptions) -> Result<Arc<Self>, StartError> {
        let Opened {
            data_dir,
            manager,
            context,
        } = open_directory(&env, &options).await?;
        let metrics = Metrics::default();
        let policy = FlushPolicy {
            threads: options.flush_parallelism,
            ..FlushPolicy::default()
        };
        let rounds = Flusher::new(&context, data_dir.partitions(), policy);
        let flusher = FlushDriver::start(&env, rounds).map_err(StartError::Thread)?;
        let host = GroupHost::new(HostOptions {
            env: env.clone(),
            node: u64::from(options.broker.id.unsigned_abs()),
            directory: data_dir.meta().directory_id,
            manager: Arc::clone(&manager),
            flusher: flusher.flusher().clone(),
            journal: Arc::clone(data_dir.journal()),
            metrics: metrics.clone(),
        });
        let origin = Origin {
            broker: options.broker.id,
            settings: Arc::clone(&options.settings),
        };
        let (metadata_group, image) = start_metadata(&host, &origin);
        let metadata = Arc::clone(&metadata_group.spec.partition);
        if let Err(reason) = serving(&env, &metadata).await {
            metadata_group.stop().await;
            flusher.stop(&env).await;
            return Err(StartError::Metadata { reason });
        }
        let controller = Controller::new(env.clone(), metadata, image, origin);
        let cluster = Arc::new(Self {
            env,
            options,
            host,
            data_dir: Mutex::new(Some(data_dir)),
            manager,
            flusher,
            controller,
            metadata_group,
            disk_gate: Arc::default(),
            groups: RwLock::new(BTreeMap::new()),
            reconciled: Published::new(-1),
            stop: Shutdown::new(),
            background: Mutex::new(Vec::new()),
            metrics,
        });
        cluster.found().await.map_err(|e| StartError::Metadata {
            reason: e.to_string(),
        })?;
        cluster.reconcile(&cluster.image()).await;
        cluster.spawn_background();
        Ok(cluster)
    }

    /// Writes the cluster's identity and this broker's registration, where they are missing or have changed.
    async fn found(&self) -> Result<(), TopicError> {
        // Everything committed before this term is applied before the group leads, but the image may be one step
        // behind: an empty commit brings it up to date.
        let image = self.image();
        let mut records = Vec::new();
        if image.cluster_id.is_empty() {
            records.push(MetadataRecord::Cluster {
                cluster_id: cluster_id(&self.env),
            });
        }
        if image.brokers.get(&self.node_id()) != Some(&self.options.broker) {
            records.push(MetadataRecord::RegisterBroker {
                broker: self.options.broker.clone(),
            });
        }
        if !records.is_empty() {
            self.controller.commit(&records).await?;
        }
        Ok(())
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
        Ok(Opened {
            data_dir,
            manager: Arc::new(manager),
            context,
        })
    };
    env.tasks.blocking(open).await
}

fn start_metadata(host: &Arc<GroupHost>, origin: &Origin) -> (Arc<Group>, Published<Arc<Image>>) {
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
    let spec = GroupSpec {
        id,
        partition,
        observer: Some(observer),
    };
    (Group::start(Arc::clone(host), spec), image)
}

/// A cluster id as Kafka's: 16 random bytes in URL-safe base64 without padding, 22 characters.
fn cluster_id(env: &Env) -> String {
    TopicId(Uuid::from_bytes(env.rng.uuid())).to_string()
}
