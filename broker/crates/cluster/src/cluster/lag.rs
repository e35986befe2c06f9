//! How far the followers of partitions led here lag, as metrics.
//!
//! Bounded: the greatest lags have a series for each broker, the replicas themselves for [`MAX_SERIES`] of those that lag, the
//! ones that have done so longest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use takhin_runtime::clock::Instant;

use super::{Cluster, node_number};
use crate::metadata::Image;
use crate::metrics::LAGS;
use crate::raft::Group;

/// How often the metrics are renewed.
const LOOK: Duration = Duration::from_secs(1);

/// Replicas whose lag the metrics show; further ones are left out until there is room.
const MAX_SERIES: usize = 128;

/// Labels of a replica: topic, partition, broker.
type Series = [String; 3];

/// What a replica lacks of what its leader has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Lag {
    seconds: i64,
    records: i64,
    bytes: i64,
}

impl Lag {
    /// Records, bytes, seconds.
    fn values(self) -> [i64; 3] {
        [self.records, self.bytes, self.seconds]
    }

    fn max(self, other: Self) -> Self {
        Self {
            seconds: self.seconds.max(other.seconds),
            records: self.records.max(other.records),
            bytes: self.bytes.max(other.bytes),
        }
    }
}

/// The followers of a partition led here that lack something. Those that are only being added are shown as moves.
fn lagging(cluster: &Cluster, group: &Group, image: &Image, now: Instant, found: &mut Vec<(Lag, Series)>) {
    let id = group.spec.partition.id();
    let (Some(progress), Some(topic)) = (group.progress(), image.topic_by_id(id.topic_id)) else {
        return;
    };
    let own = node_number(cluster.node_id());
    let Some(end) = progress.end_after(progress.last) else {
        return;
    };
    let start = group
        .spec
        .partition
        .log()
        .map_or(0, |log| log.end().log_start_offset);
    let lacks = progress
        .replicas
        .iter()
        .filter(|(node, replica)| **node != own && replica.is_voter && replica.matched < Some(progress.last));
    for (node, replica) in lacks {
        let has = replica.matched.and_then(|index| progress.end_after(index));
        // One that has nothing that the leader still has will have to take all that there is.
        let lag = Lag {
            seconds: replica
                .behind_since
                .map_or(0, |since| as_gauge(now.duration_since(since).as_secs())),
            records: end - has.unwrap_or(start),
            bytes: as_gauge(progress.lag_bytes(Some(replica))),
        };
        let series = [topic.name.clone(), id.index.to_string(), node.to_string()];
        found.push((lag, series));
    }
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Keeps the metrics up to date until the node stops.
pub(super) async fn show(cluster: Arc<Cluster>) {
    let mut shown = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(LOOK) => {}
        }
        let (image, now) = (cluster.image(), cluster.env.clock.instant());
        let mut found = Vec::new();
        // Of a partition at rest all replicas have everything.
        for group in cluster
            .exchange
            .all_groups()
            .iter()
            .filter(|group| !group.is_parked())
        {
            lagging(&cluster, group, &image, now, &mut found);
        }
        let greatest = found.iter().fold(Lag::default(), |most, (lag, _)| most.max(*lag));
        LAGS.set_greatest(greatest.values());
        found.sort_by(|(a, _), (b, _)| b.cmp(a));
        found.truncate(MAX_SERIES);
        let mut now = BTreeSet::new();
        for (lag, series) in found {
            LAGS.show(series.each_ref().map(String::as_str), lag.values());
            now.insert(series);
        }
        for gone in shown.difference(&now) {
            LAGS.forget(gone.each_ref().map(String::as_str));
        }
        shown = now;
    }
}
