//! Files of partitions that have no replica on this broker any more: those that were deleted or moved away while it was not
//! there to see it.
//!
//! Invariants
//! - What is deleted is in none of two images, [`PATIENCE`] apart, of which the first one is not older than this start: the
//!   controller was asked to register the broker, and the image shows what it answered. An image from the broker's own disk
//!   alone may be older than a replica that it has.
//! - Nothing is deleted while groups are brought in step with an image, which may want the same partition again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::forward::Command;
use super::{Cluster, METADATA_TOPIC_ID};
use crate::controller::TopicError;
use crate::metadata::Image;
use crate::partition::PartitionId;

/// How long files stay that nobody needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause before the controller is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Deletes once what was left over when the node started, or ends with the node.
pub(super) async fn sweep(cluster: Arc<Cluster>) {
    tokio::select! {
        biased;
        () = cluster.stop.wait() => {}
        () = cluster.sweep() => {}
    }
}

impl Cluster {
    async fn sweep(&self) {
        if !self.is_known().await {
            return;
        }
        let Some(left_over) = self.left_over().await.filter(|ids| !ids.is_empty()) else {
            return;
        };
        tracing::info!(
            partitions = left_over.len(),
            "files of partitions that have no replica here any more are deleted in a minute"
        );
        self.env.clock.sleep(PATIENCE).await;
        for id in left_over {
            let _turn = self.reconciling.lock().await;
            let is_wanted = self.wants(&self.image(), id) || self.exchange.groups.read().contains_key(&id);
            if !is_wanted {
                tracing::info!(partition = %id, "files of a partition that has no replica here any more are deleted");
                self.delete_files(id).await;
            }
        }
    }

    /// Asks the controller to register this broker until it has answered; whether it is registered.
    ///
    /// One that was unregistered while it was away, and knows only what its own disk says, is so registered again.
    async fn is_known(&self) -> bool {
        loop {
            let own = self.image().brokers.get(&self.node_id()).cloned();
            let own = own.unwrap_or_else(|| self.options.broker.clone());
            match self.command(Command::Register(own)).await {
                Ok(_) => return true,
                Err(error @ (TopicError::NotController | TopicError::Timeout)) => {
                    tracing::debug!(%error, "not known yet whether this broker is registered");
                }
                Err(error) => {
                    tracing::error!(%error, "this broker belongs to its cluster no longer: stop it");
                    return false;
                }
            }
            self.env.clock.sleep(ASK_AGAIN).await;
        }
    }

    /// The partitions that have files here and no replica.
    async fn left_over(&self) -> Option<BTreeSet<PartitionId>> {
        let manager = Arc::clone(&self.manager);
        let found = self.env.tasks.blocking(move || manager.on_disk()).await;
        let found =
            found.map_err(|error| tracing::warn!(%error, "files of partitions are not looked through"));
        let image = self.image();
        let ids = found.ok()?.into_iter().map(|partition| PartitionId {
            topic_id: partition.topic_id.0,
            index: partition.partition.0,
        });
        Some(ids.filter(|id| !self.wants(&image, *id)).collect())
    }

    fn wants(&self, image: &Image, id: PartitionId) -> bool {
        if id.topic_id == METADATA_TOPIC_ID {
            return true;
        }
        let partition = image.partition(id.topic_id, id.index);
        partition.is_some_and(|partition| partition.replicas.contains(&self.node_id()))
    }
}
