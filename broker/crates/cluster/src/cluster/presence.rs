//! Which brokers are there, as clients are told: Kafka names no fenced broker in its metadata.
//!
//! A broker counts as fenced once it has not been heard of for [`SESSION`]. One that is cut off from the cluster itself, and
//! so hears of nobody, goes on naming all of them: its clients would know no way back otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use takhin_runtime::clock::Instant;

use super::{Cluster, node_number};

/// How often it is looked who is there.
const LOOK: Duration = Duration::from_millis(500);

/// Silence after which a broker is fenced (`broker.session.timeout.ms`).
const SESSION: Duration = Duration::from_secs(9);

/// Since when each broker that is not there has been missed.
pub(super) type Missed = BTreeMap<i32, Instant>;

impl Cluster {
    /// Whether a broker has not been heard of for as long as Kafka waits before it fences it.
    pub fn is_fenced(&self, id: i32) -> bool {
        self.fenced_for(id).is_some()
    }

    /// The brokers that are fenced now.
    pub fn fenced(&self) -> BTreeSet<i32> {
        let image = self.image();
        let ids = image.brokers.keys().copied();
        ids.filter(|id| self.is_fenced(*id)).collect()
    }

    /// For how long a broker has been fenced, if it is.
    pub(super) fn fenced_for(&self, id: i32) -> Option<Duration> {
        let missed = self.missed.read();
        let since = missed.get(&id)?;
        let others = self.image().brokers.len().saturating_sub(1);
        let silence = self.env.clock.instant().duration_since(*since);
        let fenced = silence.checked_sub(SESSION)?;
        (missed.len() < others).then_some(fenced)
    }

    /// Whether this broker hears of no other one, though there are others: then it knows nothing of any.
    pub(super) fn hears_nobody(&self) -> bool {
        let image = self.image();
        let mut others = image.brokers.keys().filter(|id| **id != self.node_id());
        image.brokers.len() > 1 && !others.any(|id| self.is_there(*id))
    }

    /// Whether a broker is this one or was heard of within the last second.
    pub(super) fn is_there(&self, id: i32) -> bool {
        id == self.node_id() || self.host.is_present(node_number(id))
    }
}

/// Watches the other brokers until the node stops.
pub(super) async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(LOOK) => {}
        }
        let now = cluster.env.clock.instant();
        let image = cluster.image();
        let mut missed = cluster.missed.write();
        missed.retain(|id, _| image.brokers.contains_key(id) && !cluster.is_there(*id));
        for id in image.brokers.keys().filter(|id| !cluster.is_there(**id)) {
            missed.entry(*id).or_insert(now);
        }
    }
}
