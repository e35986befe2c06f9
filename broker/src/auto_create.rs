//! Topics that come into being because a client asked for their metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use takhin_cluster::{Image, NewTopic, TopicError};
use takhin_protocol::{ErrorCode, TopicName};
use tracing::{info, warn};

use crate::context::Broker;
use crate::error::ToErrorCode as _;
use crate::placement;

/// Creations that may be under way at a time; the client of a topic beyond that asks again and finds a free place.
const MAX_UNDER_WAY: usize = 64;

/// The creations under way.
#[derive(Debug, Default)]
pub(crate) struct AutoCreate {
    under_way: Arc<Mutex<BTreeSet<TopicName>>>,
}

impl AutoCreate {
    /// Begins the creation of a topic that does not exist, unless it has begun. Returns what the client is told
    /// meanwhile.
    pub(crate) fn request(&self, broker: &Arc<Broker>, image: &Image, name: &TopicName) -> ErrorCode {
        let settings = broker.settings();
        let kafka = &settings.node.kafka;
        let partitions = i32::try_from(kafka.num_partitions).unwrap_or(i32::MAX);
        let replication_factor = i16::try_from(kafka.default_replication_factor).unwrap_or(i16::MAX);
        let partitions =
            match placement::assign(image, &broker.cluster.fitness(), partitions, replication_factor) {
                Ok(partitions) => partitions,
                Err(refused) => return refused.code,
            };
        let new = NewTopic {
            name: name.to_string(),
            partitions,
            overrides: BTreeMap::new(),
        };
        if let Err(error) = broker.cluster.check_topic(&new) {
            return error.to_error_code();
        }
        let mut under_way = self.under_way.lock();
        if under_way.len() < MAX_UNDER_WAY && under_way.insert(name.clone()) {
            self.create(broker, name.clone(), new);
        }
        ErrorCode::LeaderNotAvailable
    }

    fn create(&self, broker: &Arc<Broker>, name: TopicName, new: NewTopic) {
        let under_way = Arc::clone(&self.under_way);
        let cluster = Arc::clone(&broker.cluster);
        broker.env.tasks.spawn("auto-create", async move {
            match cluster.create_topic(new).await {
                Ok(_) => info!(topic = %name, "topic created for a client"),
                Err(TopicError::Exists { .. }) => {}
                Err(error) => warn!(topic = %name, %error, "topic could not be created for a client"),
            }
            under_way.lock().remove(&name);
        });
    }
}
