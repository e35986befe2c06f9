//! Keeps the metrics of groups up to date.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use takhin_cluster::Image;
use takhin_coordinator::Shard;
use tokio::sync::{mpsc, oneshot};

use super::Message;
use super::census::{self, Census};
use crate::context::Broker;

/// Pause between two looks.
const REFRESH: Duration = Duration::from_secs(5);

/// Looks at the groups of all shards again and again, until the broker stops.
pub(super) async fn observe(broker: Arc<Broker>) {
    let observing = async {
        loop {
            refresh(&broker).await;
            broker.env.clock.sleep(REFRESH).await;
        }
    };
    tokio::select! {
        biased;
        () = broker.stopping.wait() => {}
        () = observing => {}
    }
}

async fn refresh(broker: &Arc<Broker>) {
    let metrics = &broker.metrics.groups;
    let (listed, image) = (Arc::new(metrics.listed()), broker.cluster.image());
    let series = broker.config.kafka.groups.metric_series as usize;
    let shards = broker.coordinators.inboxes();
    let mut parts = Vec::new();
    // One after the other: each part may be as large as the whole.
    for shard in shards {
        parts.extend(look(broker, &image, &shard, &listed, series).await);
        parts = vec![census::merge(parts, &listed, series)];
    }
    metrics.refresh(&parts.pop().unwrap_or_default());
}

/// The groups of one shard; `None` if it is not served here now.
async fn look(
    broker: &Arc<Broker>,
    image: &Arc<Image>,
    shard: &mpsc::Sender<Message>,
    listed: &Arc<BTreeSet<String>>,
    series: usize,
) -> Option<Census> {
    let (sender, census) = oneshot::channel();
    let (broker, image, listed) = (Arc::clone(broker), Arc::clone(image), Arc::clone(listed));
    let look = move |shard: &Shard| {
        let end = |topic: &str, partition| {
            let topic = image.topic(topic)?;
            let partition = broker.cluster.partition(topic.id, partition)?;
            Some(partition.offsets().high_watermark)
        };
        // Whoever asked may have gone.
        let _ = sender.send(census::take(shard, &listed, series, end));
    };
    shard.send(Message::Look(Box::new(look))).await.ok()?;
    census.await.ok()
}
