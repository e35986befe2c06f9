//! How far replicas that are being moved have got, for people and metrics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Cluster, node_number};
use crate::metrics::MOVES;
use crate::partition::PartitionId;
use crate::raft::Group;

/// How often the metrics are renewed.
const LOOK: Duration = Duration::from_secs(1);

/// Replicas of partitions led here whose lag the metrics show; further ones are left out until there is room.
const MAX_SERIES: usize = 128;

/// A change of a partition's replicas that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Name of the topic.
    pub topic: String,
    /// Index of the partition.
    pub partition: i32,
    /// Who leads the partition; -1 if nobody is known to.
    pub leader: i32,
    /// The replicas that there are to be, preferred leader first.
    pub target: Vec<i32>,
    /// Replicas that were not there before.
    pub adding: Vec<Addition>,
    /// Brokers whose replicas go.
    pub removing: Vec<i32>,
}

/// A replica that a partition is being given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addition {
    /// Its broker.
    pub broker: i32,
    /// Bytes of the leader's segments that it lacks, about; `None` unless this broker leads the partition.
    pub lag_bytes: Option<u64>,
}

impl Cluster {
    /// The first `limit` changes of replicas that are under way, in order of topic ids and partitions.
    pub fn moves(&self, limit: usize) -> Vec<Move> {
        self.moves_where(|_| true).take(limit).collect()
    }

    /// Those of partitions that are wanted.
    fn moves_where(&self, is_wanted: impl Fn(&PartitionId) -> bool) -> impl Iterator<Item = Move> {
        let image = self.image();
        let moving: Vec<_> = image.reassigning.iter().copied().collect();
        moving.into_iter().filter_map(move |(topic_id, index)| {
            let id = PartitionId { topic_id, index };
            let topic = image.topic_by_id(topic_id).filter(|_| is_wanted(&id))?;
            let placement = image.partition(topic_id, index)?;
            let moving = placement.reassignment.as_ref()?;
            let progress = self.group(&id).and_then(|group| group.progress());
            let addition = |broker: i32| {
                // A leader that has not begun with it yet has sent it nothing.
                let lag = progress.as_ref().map(|progress| {
                    let replica = progress.replicas.get(&node_number(broker));
                    progress.lag_bytes(replica)
                });
                Addition {
                    broker,
                    lag_bytes: lag,
                }
            };
            Some(Move {
                topic: topic.name.clone(),
                partition: index,
                leader: self.leadership(topic_id, index).map_or(-1, |(leader, _)| leader),
                target: moving.target.clone(),
                adding: moving.adding().into_iter().map(addition).collect(),
                removing: moving.removing(&placement.replicas),
            })
        })
    }

    pub(super) fn group(&self, id: &PartitionId) -> Option<Arc<Group>> {
        self.exchange.groups.read().get(id).cloned()
    }
}

/// Keeps the metrics of moves up to date until the node stops.
pub(super) async fn show(cluster: Arc<Cluster>) {
    let mut shown = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(LOOK) => {}
        }
        let image = cluster.image();
        let own = cluster.node_id();
        let adding = image.reassigning.iter().filter(|(topic, index)| {
            let placement = image.partition(*topic, *index);
            let moving = placement.and_then(|placement| placement.reassignment.as_ref());
            moving.is_some_and(|moving| moving.adding().contains(&own))
        });
        MOVES
            .adding
            .set(i64::try_from(adding.count()).unwrap_or(i64::MAX));
        let is_led = |id: &PartitionId| {
            cluster
                .leadership(id.topic_id, id.index)
                .is_some_and(|(id, _)| id == own)
        };
        let mut led = 0;
        let mut now = BTreeSet::new();
        for moving in cluster.moves_where(is_led) {
            led += 1;
            for addition in &moving.adding {
                let series = [
                    moving.topic.clone(),
                    moving.partition.to_string(),
                    addition.broker.to_string(),
                ];
                if let Some(lag) = addition.lag_bytes.filter(|_| now.len() < MAX_SERIES) {
                    let gauge = MOVES.lag.with(series.each_ref().map(String::as_str));
                    gauge.set(i64::try_from(lag).unwrap_or(i64::MAX));
                    now.insert(series);
                }
            }
        }
        MOVES.led.set(led);
        for gone in shown.difference(&now) {
            MOVES.lag.remove(gone.each_ref().map(String::as_str));
        }
        shown = now;
    }
}
