//! Changes of the cluster's metadata: checked against the image, proposed to the metadata group, answered once the
//! image shows them.

mod configs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_protocol::record::{Batch, BatchBuilder, Compression, NewRecord, Records};
use takhin_runtime::{Env, Published};
use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

use crate::metadata::{Image, MetadataRecord, Origin, TopicInfo};
use crate::partition::{Acks, Partition};
use crate::raft::Observer;

/// Producer ids fetched from the metadata group at once; unused ones are lost at a restart, never reused.
const PRODUCER_ID_BLOCK: i64 = 1000;

/// How long a change may take to commit and show.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

pub use configs::ConfigTarget;

/// A topic to create.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Valid topic name.
    pub name: String,
    /// Replicas of each partition.
    pub partitions: Vec<Vec<i32>>,
    /// Configuration as given by the user; checked.
    pub overrides: BTreeMap<String, String>,
}

/// Why metadata was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// A configuration entry is wrong.
    #[error("{0}")]
    Config(String),
    /// A configuration entry that is read at start only.
    #[error("{0}")]
    ReadOnlyConfig(String),
    /// The metadata group has no leader here at the moment.
    #[error("the controller is not available")]
    NotController,
    /// The change was proposed but not seen to commit in time; it may still.
    #[error("the change was not committed in time")]
    Timeout,
}

/// The next image for every committed record.
pub(crate) struct MetadataObserver {
    image: Published<Arc<Image>>,
    origin: Origin,
}

impl MetadataObserver {
    pub(crate) fn new(origin: Origin) -> (Arc<Self>, Published<Arc<Image>>) {
        let image = Published::new(Arc::new(Image::first(&origin)));
        let observer = Self {
            image: image.clone(),
            origin,
        };
        (Arc::new(observer), image)
    }
}

impl Observer for MetadataObserver {
    fn committed(&self, batch: &Batch) -> std::io::Result<()> {
        let mut records = Vec::new();
        for record in Records::new(&batch.body, batch.header.records_count) {
            let record = record.map_err(std::io::Error::other)?;
            records.push(
                MetadataRecord::decode(record.value.unwrap_or_default()).map_err(std::io::Error::other)?,
            );
        }
        self.image.update(|image| {
            // Copies only what somebody still reads.
            let image = Arc::make_mut(image);
            for record in &records {
                image.replay(record, &self.origin);
            }
            image.end_offset = batch.header.next_offset();
        });
        Ok(())
    }
}

/// Proposes changes, one at a time.
pub(crate) struct Controller {
    env: Env,
    metadata: Arc<Partition>,
    image: Published<Arc<Image>>,
    origin: Origin,
    /// Held from check to commit, so that no two changes are checked against the same image.
    turn: AsyncMutex<()>,
    producer_ids: Mutex<std::ops::Range<i64>>,
}

impl Controller {
    pub(crate) fn new(
        env: Env,
        metadata: Arc<Partition>,
        image: Published<Arc<Image>>,
        origin: Origin,
    ) -> Self {
        let (turn, producer_ids) = (AsyncMutex::new(()), Mutex::new(0..0));
        Self {
            env,
            metadata,
            image,
            origin,
            turn,
            producer_ids,
        }
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.image.get()
    }

    /// Commits records and waits until the image shows them.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have made its change.
    pub(crate) async fn commit(&self, records: &[MetadataRecord]) -> Result<Arc<Image>, TopicError> {
        let _turn = self.turn.lock().await;
        self.commit_in_turn(records).await
    }

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
            builder.push(NewRecord {
                timestamp,
                key: None,
                value: Some(&value),
                headers: &[],
            });
        }
        builder.build().map_err(|e| TopicError::Config(e.to_string()))
    }

    /// The first image seen whose end is another than `end_offset`.
    pub(crate) async fn image_after(&self, end_offset: i64) -> Arc<Image> {
        self.image.wait_for(|image| image.end_offset != end_offset).await
    }

    pub(crate) async fn create_topic(&self, new: NewTopic) -> Result<Arc<TopicInfo>, TopicError> {
        let _turn = self.turn.lock().await;
        self.check(&new)?;
        let id = Uuid::from_bytes(self.env.rng.uuid());
        let NewTopic {
            name,
            partitions,
            overrides,
        } = new;
        let record = MetadataRecord::CreateTopic {
            name: name.clone(),
            id,
            partitions,
            overrides,
        };
        let image = self.commit_in_turn(&[record]).await?;
        // Deleted again by somebody else in the same moment: then it is unknown.
        image
            .topic(&name)
            .filter(|topic| topic.id == id)
            .cloned()
            .ok_or(TopicError::Unknown)
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

    /// A producer id that nobody has had.
    pub(crate) async fn next_producer_id(&self) -> Result<i64, TopicError> {
        if let Some(id) = self.producer_ids.lock().next() {
            return Ok(id);
        }
        let _turn = self.turn.lock().await;
        // Somebody may have fetched a block while this call waited for its turn.
        if let Some(id) = self.producer_ids.lock().next() {
            return Ok(id);
        }
        let first = self.image().next_producer_id;
        let next = first + PRODUCER_ID_BLOCK;
        self.commit_in_turn(&[MetadataRecord::ProducerIds { next }])
            .await?;
        *self.producer_ids.lock() = first + 1..next;
        Ok(first)
    }
}

fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}
