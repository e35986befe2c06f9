//! Moving replicas when brokers have come or are to go: the controller carries out, step by step, what the planner
//! (`placement/planner.rs`) says.
//!
//! All that is remembered is in the metadata: who is to go, whether replicas are to become even, and what is being moved. So
//! the next controller goes on where the last one stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::Cluster;
use super::forward::Command;
use crate::controller::{Surroundings, TopicError};
use crate::metadata::Image;
use crate::placement::{self, Fitnesses, Plan, View};

/// How often it is looked for what is to be moved.
const LOOK: Duration = Duration::from_secs(1);

/// How often while nothing could be begun last time: a look goes through all partitions.
const REST: Duration = Duration::from_secs(5);

/// How often brokers are asked how much room they have.
const ASK: Duration = Duration::from_secs(30);

impl Cluster {
    /// Has a broker lose all its replicas, its vote on the metadata and all that it leads, or lets it have some again; on
    /// return that is decided, and this broker's image shows it. Replicas move in the background. Does nothing if it is so
    /// already.
    ///
    /// # Errors
    /// [`TopicError::UnknownBroker`]; [`TopicError::BrokerNeeded`] if the brokers that are left are too few;
    /// [`TopicError::NotController`] and [`TopicError::Timeout`], after which it may yet be decided.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have made the change.
    pub async fn set_decommissioning(&self, broker: i32, decommissioning: bool) -> Result<(), TopicError> {
        let command = Command::Decommission {
            broker,
            decommissioning,
        };
        self.command(command).await.map(drop)
    }

    /// Forgets a broker that has no replicas and no vote, and does not run.
    ///
    /// # Errors
    /// As of [`Self::set_decommissioning`].
    ///
    /// # Cancel safety
    /// A dropped call may or may not have made the change.
    pub async fn unregister_broker(&self, broker: i32) -> Result<(), TopicError> {
        self.command(Command::Unregister { broker }).await.map(drop)
    }

    /// How fit each broker is to take one more replica, as far as this one knows.
    pub fn fitness(&self) -> Fitnesses {
        let image = self.image();
        let disks = self.disks.read();
        let max_disk_usage = image.settings.node.cluster.rebalance.max_disk_usage;
        // Clients are told of a silent broker for a while yet, but replicas that go to it now may never get there.
        let absent = |id| {
            self.fenced_for(id)
                .or_else(|| (!self.is_there(id)).then_some(Duration::ZERO))
        };
        placement::judge(&image, &disks, absent, max_disk_usage)
    }

    pub(super) async fn decommission_as_told(
        &self,
        broker: i32,
        decommissioning: bool,
    ) -> Result<(), TopicError> {
        let surroundings = self.surroundings()?;
        self.controller
            .set_decommissioning(broker, decommissioning, &surroundings)
            .await
    }

    pub(super) async fn unregister_as_told(&self, broker: i32) -> Result<(), TopicError> {
        let surroundings = self.surroundings()?;
        self.controller.unregister(broker, &surroundings).await
    }

    /// What the controller knows beside the metadata.
    fn surroundings(&self) -> Result<Surroundings, TopicError> {
        let members = self.metadata_group.members();
        // While voters change, it is not known who they are.
        let members = members.filter(|members| !members.is_changing);
        let members = members.ok_or(TopicError::NotController)?;
        let voters = members.voters.iter().filter_map(|id| i32::try_from(*id).ok());
        let is_there = |id: &i32| self.is_there(*id);
        Ok(Surroundings {
            voters: voters.collect(),
            present: self.image().brokers.keys().copied().filter(is_there).collect(),
        })
    }

    fn plan(&self, image: &Image) -> Plan {
        let settings = &image.settings.node.cluster.rebalance;
        let has_leader = |topic_id: Uuid, index: i32| {
            let leader = self.leadership(topic_id, index).map(|(leader, _)| leader);
            leader.is_some_and(|leader| leader >= 0 && self.is_there(leader))
        };
        placement::plan(&View {
            image,
            fitness: &self.fitness(),
            has_leader: &has_leader,
            max_moves: usize::from(settings.max_moves),
            is_enabled: settings.enabled,
        })
    }
}

/// Moves replicas while this broker is the controller, until the node stops.
pub(super) async fn keep(cluster: Arc<Cluster>) {
    let mut pause = LOOK;
    loop {
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(pause) => {}
        }
        pause = LOOK;
        let image = cluster.image();
        let is_wanted = image.rebalance_due.is_some() || !image.decommissioning.is_empty();
        // What is planned by one that hears of nobody may be decided later, when it is heard itself.
        if !is_wanted || !cluster.is_controller() || cluster.hears_nobody() {
            continue;
        }
        let begun = tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            begun = cluster.controller.rebalance(|image| cluster.plan(image)) => begun,
        };
        match begun {
            Ok(0) if image.reassigning.is_empty() => pause = REST,
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "replicas of partitions begin to move"),
            // The next look finds it as it is.
            Err(error) => tracing::info!(%error, "replicas do not begin to move"),
        }
    }
}

/// Asks the brokers how much room they have, until the node stops.
pub(super) async fn watch_disks(cluster: Arc<Cluster>) {
    loop {
        let image = cluster.image();
        let asked = image.brokers.keys().map(async |id| {
            let report = match *id == cluster.node_id() {
                true => Some(cluster.report().await),
                false => cluster.ask_report(*id).await,
            };
            Some((*id, report?.disk?))
        });
        let disks: BTreeMap<_, _> = tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            disks = join_all(asked) => disks.into_iter().flatten().collect(),
        };
        {
            let mut known = cluster.disks.write();
            known.retain(|id, _| image.brokers.contains_key(id));
            known.extend(disks);
        }
        tokio::select! {
            biased;
            () = cluster.stop.wait() => return,
            () = cluster.env.clock.sleep(ASK) => {}
        }
    }
}
