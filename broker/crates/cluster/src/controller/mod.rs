//! Changes of the cluster's metadata: checked against the image, proposed to the metadata group, answered once the
//! image shows them.

mod configs;
mod decommission;
mod observer;
mod reassign;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use takhin_protocol::ids::TopicId;
use takhin_protocol::record::{Batch, BatchBuilder, Compression, NewRecord};
use takhin_runtime::{Env, Published};
use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

use crate::metadata::{BrokerInfo, Image, MetadataRecord, Origin};
use crate::partition::{Acks, Partition};

/// Producer ids fetched from the metadata group at once; unused ones are lost at a restart, never reused.
pub(crate) const PRODUCER_ID_BLOCK: i64 = 1000;

/// How long a change may take to commit and show.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

pub use configs::ConfigTarget;
pub(crate) use decommission::Surroundings;
pub(crate) use observer::MetadataObserver;
pub(crate) use reassign::Moved;
pub use reassign::ReplicaChange;

/// A topic to create.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct NewTopic {
    /// Valid topic name.
    pub name: String,
    /// Replicas of each partition.
    pub partitions: Vec<Vec<i32>>,
    /// Configuration as given by the user; checked.
    pub overrides: BTreeMap<String, String>,
}

/// Why metadata was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum TopicError {
    /// The name is taken.
    #[error("topic {name} exists")]
    Exists {
        /// The living topic's name.
        name: String,
    },
    /// A living topic's name differs only in `.` and `_`, which would collide in metric names.
    #[error("topic {name} collides with existing topic {existing}: they differ only in '.' and '_'")]
    Collides {
        /// Name asked for.
        name: String,
        /// Name taken.
        existing: String,
    },
    /// No such topic.
    #[error("no such topic")]
    Unknown,
    /// The number of partitions can only grow, and it has changed since the caller looked, or does not grow.
    #[error("topic {name} has {current} partitions; {wanted} would not be an increase by what was assigned")]
    NotAnIncrease {
        /// The topic.
        name: String,
        /// Partitions that it has.
        current: usize,
        /// Partitions asked for.
        wanted: usize,
    },
    /// The replicas asked for cannot be.
    #[error("{0}")]
    Replicas(String),
    /// The number of replicas would change, which the request rules out.
    #[error("the partition has {before} replicas and would have {after}, which the request does not allow")]
    ReplicationFactor {
        /// Replicas before.
        before: usize,
        /// Replicas asked for.
        after: usize,
    },
    /// There is no change of replicas to cancel.
    #[error("no reassignment of the partition is in progress")]
    NoReassignment,
    /// A configuration entry is wrong.
    #[error("{0}")]
    Config(String),
    /// A configuration entry that is read at start only.
    #[error("{0}")]
    ReadOnlyConfig(String),
    /// The node id belongs to a broker with another data directory.
    #[error(
        "node id {id} belongs to a broker with data directory {directory}: start this broker with that directory, or \
         give it an id of its own"
    )]
    NodeIdTaken {
        /// The id.
        id: i32,
        /// Directory of the broker that has it.
        directory: Uuid,
    },
    /// No such broker.
    #[error("no broker {id} is registered")]
    UnknownBroker {
        /// The id asked for.
        id: i32,
    },
    /// The broker cannot go.
    #[error("broker {id} cannot go: {reason}")]
    BrokerNeeded {
        /// The id.
        id: i32,
        /// Why not.
        reason: String,
        /// Whether too few would be left to vote on the metadata. One of an earlier release neither sends nor reads it.
        #[serde(default)]
        to_vote: bool,
    },
    /// The metadata group has no leader here at the moment.
    #[error("the controller is not available")]
    NotController,
    /// The change was proposed but not seen to commit in time; it may still.
    #[error("the change was not committed in time")]
    Timeout,
}

/// Proposes changes, one at a time.
pub(crate) struct Controller {
    env: Env,
    metadata: Arc<Partition>,
    image: Published<Arc<Image>>,
    origin: Origin,
    /// Held from check to commit, so that no two changes are checked against the same image.
    turn: AsyncMutex<()>,
}

impl Controller {
    pub(crate) fn new(
        env: Env,
        metadata: Arc<Partition>,
        image: Published<Arc<Image>>,
        origin: Origin,
    ) -> Self {
        let turn = AsyncMutex::new(());
        Self {
            env,
            metadata,
            image,
            origin,
            turn,
        }
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.image.get()
    }

    /// Commits records and waits until the image shows them. The caller has the turn.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have made its change.
    async fn commit_in_turn(&self, records: &[MetadataRecord]) -> Result<Arc<Image>, TopicError> {
        let batch = self.batch(records)?;
        let change = async {
            let ticket = self
                .metadata
                .produce(batch, Acks::All)
                .map_err(|_| TopicError::NotController)?;
            let place = ticket.await.map_err(|_| TopicError::Timeout)?;
            let shown = |image: &Arc<Image>| image.end_offset > place.base_offset;
            Ok(self.image.wait_for(shown).await)
        };
        self.env
            .clock
            .timeout(CHANGE_TIMEOUT, change)
            .await
            .unwrap_or(Err(TopicError::Timeout))
    }

    fn batch(&self, records: &[MetadataRecord]) -> Result<Batch, TopicError> {
        let mut builder = BatchBuilder::new(Compression::None);
        let timestamp = self.env.clock.now_ms();
        for record in records {
            let value = record.encode();
            // A committed record that no broker can read would end the cluster for good.
            match MetadataRecord::decode(&value) {
                Ok(read) if read == *record => {}
                _ => return Err(TopicError::Config(format!("{record:?} cannot be written down"))),
            }
            builder.push(NewRecord {
                timestamp,
                key: None,
                value: Some(&value),
                headers: &[],
            });
        }
        builder.build().map_err(|e| TopicError::Config(e.to_string()))
    }

    /// The first image seen that ends at `end_offset` or later.
    pub(crate) async fn image_at(&self, end_offset: i64) -> Arc<Image> {
        self.image.wait_for(|image| image.end_offset >= end_offset).await
    }

    /// The first image seen of which `is_so` holds.
    pub(crate) async fn image_where(&self, is_so: impl Fn(&Image) -> bool) -> Arc<Image> {
        self.image.wait_for(|image| is_so(image)).await
    }

    /// The first image seen whose end is another than `end_offset`.
    pub(crate) async fn image_after(&self, end_offset: i64) -> Arc<Image> {
        self.image.wait_for(|image| image.end_offset != end_offset).await
    }

    /// Creates a topic that gets this id, unless it is there already.
    pub(crate) async fn create_topic(&self, id: Uuid, new: NewTopic) -> Result<(), TopicError> {
        let _turn = self.turn.lock().await;
        if self.image().topic(&new.name).is_some_and(|topic| topic.id == id) {
            return Ok(());
        }
        self.check(&new)?;
        let NewTopic {
            name,
            partitions,
            overrides,
        } = new;
        let record = MetadataRecord::CreateTopic {
            name,
            id,
            partitions,
            overrides,
        };
        self.commit_in_turn(&[record]).await?;
        Ok(())
    }

    /// Checks what `create_topic` would refuse, and changes nothing.
    pub(crate) fn check(&self, new: &NewTopic) -> Result<(), TopicError> {
        let image = self.image();
        if image.topic(&new.name).is_some() {
            return Err(TopicError::Exists {
                name: new.name.clone(),
            });
        }
        let collision = collision_key(&new.name);
        if let Some(existing) = image.topics.keys().find(|name| collision_key(name) == collision) {
            return Err(TopicError::Collides {
                name: new.name.clone(),
                existing: existing.clone(),
            });
        }
        image
            .settings
            .topic_defaults
            .with_overrides(&new.overrides)
            .map_err(|e| TopicError::Config(e.to_string()))?;
        Ok(())
    }

    /// Adds partitions to a topic that has `existing` of them.
    pub(crate) async fn create_partitions(
        &self,
        id: Uuid,
        existing: usize,
        partitions: Vec<Vec<i32>>,
    ) -> Result<(), TopicError> {
        let _turn = self.turn.lock().await;
        let image = self.image();
        let topic = image.topic_by_id(id).ok_or(TopicError::Unknown)?;
        let current = topic.partitions.len();
        if current != existing || partitions.is_empty() {
            return Err(TopicError::NotAnIncrease {
                name: topic.name.clone(),
                current,
                wanted: existing + partitions.len(),
            });
        }
        let record = MetadataRecord::CreatePartitions { id, partitions };
        self.commit_in_turn(&[record]).await?;
        Ok(())
    }

    pub(crate) async fn delete_topic(&self, id: Uuid) -> Result<(), TopicError> {
        let _turn = self.turn.lock().await;
        if self.image().topic_by_id(id).is_none() {
            return Err(TopicError::Unknown);
        }
        self.commit_in_turn(&[MetadataRecord::DeleteTopic { id }]).await?;
        Ok(())
    }

    /// Has a broker lead nothing, or lead again; nothing is written if that is so already.
    pub(crate) async fn set_draining(&self, broker: i32, draining: bool) -> Result<(), TopicError> {
        let _turn = self.turn.lock().await;
        let image = self.image();
        if !image.brokers.contains_key(&broker) {
            return Err(TopicError::UnknownBroker { id: broker });
        }
        if image.draining.contains(&broker) != draining {
            self.commit_in_turn(&[MetadataRecord::DrainBroker { broker, draining }])
                .await?;
        }
        Ok(())
    }

    /// The first of [`PRODUCER_ID_BLOCK`] producer ids that nobody has had.
    pub(crate) async fn producer_id_block(&self) -> Result<i64, TopicError> {
        let _turn = self.turn.lock().await;
        let first = self.image().next_producer_id;
        let next = first + PRODUCER_ID_BLOCK;
        self.commit_in_turn(&[MetadataRecord::ProducerIds { next }])
            .await?;
        Ok(first)
    }

    /// Writes the cluster's identity and the controller's own registration, where they are missing or have changed.
    pub(crate) async fn enter(&self, broker: &BrokerInfo) -> Result<(), TopicError> {
        let turn = self.turn.lock().await;
        if self.image().cluster_id.is_empty() {
            // What was committed before this term is applied, but the image may be one step behind: an empty change
            // brings it up to date.
            self.commit_in_turn(&[MetadataRecord::ProducerIds { next: 0 }])
                .await?;
        }
        if self.image().cluster_id.is_empty() {
            let cluster_id = cluster_id(&self.env);
            self.commit_in_turn(&[MetadataRecord::Cluster { cluster_id }])
                .await?;
        }
        drop(turn);
        self.register(broker.clone()).await
    }

    /// Enters a broker, or what has changed of it.
    pub(crate) async fn register(&self, broker: BrokerInfo) -> Result<(), TopicError> {
        let _turn = self.turn.lock().await;
        let image = self.image();
        if let Some(known) = image.brokers.get(&broker.id) {
            if *known == broker {
                return Ok(());
            }
            if !known.directory.is_nil() && known.directory != broker.directory {
                return Err(TopicError::NodeIdTaken {
                    id: broker.id,
                    directory: known.directory,
                });
            }
        }
        self.commit_in_turn(&[MetadataRecord::RegisterBroker { broker }])
            .await?;
        Ok(())
    }
}

/// A cluster id as Kafka's: 16 random bytes in URL-safe base64 without padding, 22 characters.
fn cluster_id(env: &Env) -> String {
    TopicId(Uuid::from_bytes(env.rng.uuid())).to_string()
}

fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}
