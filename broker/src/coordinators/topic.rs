//! `__consumer_offsets`: made when the first group asks for its coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;

use takhin_cluster::{NewTopic, TopicError};
use takhin_protocol::ErrorCode;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::OFFSETS_TOPIC;
use crate::context::Broker;
use crate::placement;

/// Settings of the topic: compacted, synced before an offset is acknowledged, in segments small enough that loading a
/// shard after compaction reads little.
const SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("compression.type", "producer"),
    ("segment.bytes", "104857600"),
    ("takhin.durability", "flushed"),
];

/// The creation of the topic, of which there is one at a time.
#[derive(Debug, Default)]
pub(super) struct Creation {
    turn: Arc<Mutex<()>>,
}

impl Creation {
    /// Returns once the topic exists. Goes on in the background if the caller goes away.
    ///
    /// # Errors
    /// COORDINATOR_NOT_AVAILABLE if it cannot be made now; the log says why.
    pub(super) async fn ensure(&self, broker: &Arc<Broker>) -> Result<(), ErrorCode> {
        if broker.cluster.image().topic(OFFSETS_TOPIC).is_some() {
            return Ok(());
        }
        let (turn, creating) = (Arc::clone(&self.turn), Arc::clone(broker));
        let creation = async move {
            let _turn = turn.lock().await;
            create(&creating).await
        };
        let created = broker.env.tasks.spawn("create offsets topic", creation).await;
        created.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
    }
}

async fn create(broker: &Broker) -> Result<(), ErrorCode> {
    let image = broker.cluster.image();
    if image.topic(OFFSETS_TOPIC).is_some() {
        return Ok(());
    }
    let partitions = super::as_i32(broker.config.kafka.groups.offsets_topic_partitions as usize);
    // More follow when more brokers come.
    let replicas = i16::try_from(image.internal_replicas()).unwrap_or(1);
    let fitness = broker.cluster.fitness();
    let partitions = placement::assign(&image, &fitness, partitions, replicas).map_err(|refused| {
        warn!(reason = refused.message, "{OFFSETS_TOPIC} cannot be created");
        ErrorCode::CoordinatorNotAvailable
    })?;
    let overrides = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let new = NewTopic {
        name: OFFSETS_TOPIC.to_owned(),
        partitions,
        overrides: BTreeMap::from(overrides),
    };
    match broker.cluster.create_topic(new).await {
        Ok(topic) => info!(partitions = topic.partitions.len(), "{OFFSETS_TOPIC} created"),
        Err(TopicError::Exists { .. }) => {}
        Err(error) => {
            warn!(%error, "{OFFSETS_TOPIC} cannot be created");
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
    }
    Ok(())
}
