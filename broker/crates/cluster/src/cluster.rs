//! A node's view of the cluster: starts the metadata group, then a group for each partition that lives here, and
//! keeps both in step with the image.

mod balance;
mod cleaner;
mod drain;
mod exchange;
mod forming;
mod forward;
mod interconnect;
mod lag;
mod maintenance;
mod members;
mod moves;
mod open;
mod orphans;
mod passing;
mod peers;
mod presence;
mod quorum;
mod reassign;
mod rebalance;
mod settling;
mod slots;
mod stats;
mod survey;
mod throttle;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use takhin_config::alter::Change;
use takhin_config::live::Settings;
use takhin_config::topic::TopicConfig;
use takhin_runtime::clock::Instant;
use takhin_runtime::{Env, Published, Shutdown};
use takhin_storage::{DataDir, LogManager};
use uuid::Uuid;

use crate::controller::{ConfigTarget, Controller, NewTopic, TopicError};
use crate::disk_gate::DiskGate;
use crate::metadata::{BrokerInfo, Image, PartitionInfo, TopicInfo, is_internal};
use crate::partition::{Partition, PartitionId, Waiter};
use crate::raft::{FlushDriver, Group, GroupHost, GroupSpec, Voter, group_keys};
use crate::survey::DiskReport;

pub use balance::NoElection;
pub use cleaner::MAX_COMPACTED_BATCH;
use exchange::Exchange;
pub use forming::FormingError;
use forward::Command;
pub use interconnect::Interconnect;
pub use moves::{Addition, Move};
pub use open::StartError;
pub use quorum::{Quorum, QuorumReplica};
pub use stats::ClusterStats;

/// The metadata group's topic id, as Kafka's `METADATA_TOPIC_ID`.
const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);

/// How long a new topic's partitions may take to get leaders before the creation is answered without them.
const LEADER_WAIT: Duration = Duration::from_secs(10);

/// How soon partitions are looked at again where nobody tells of a change.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Pause before something is written down again that has to be.
const REMEMBER_AGAIN: Duration = Duration::from_secs(1);

/// What a node brings to its cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// This broker and where clients reach it.
    pub broker: BrokerInfo,
    /// Directory that holds everything this node stores.
    pub data_dir: std::path::PathBuf,
    /// Name of the cluster: nodes of another name are refused.
    pub cluster_name: String,
    /// Where the first members are reached by other brokers; the same on all of them.
    pub seeds: BTreeSet<String>,
    /// Settings at start, of the node and of topics that have none of their own.
    pub settings: Arc<Settings>,
    /// Pause between two checkpoints of all groups.
    pub checkpoint_interval: Duration,
    /// Sealed segments kept open.
    pub max_open_segments: usize,
    /// Files synced in parallel by one flush round.
    pub flush_parallelism: usize,
    /// Idle time after which a partition is parked; zero parks none.
    pub park_after: Duration,
    /// Below this many free bytes on the data directory's file system produce is refused.
    pub min_free_bytes: u64,
}

impl ClusterOptions {
    /// Whether this node founds a cluster of its own.
    fn is_alone(&self) -> bool {
        self.seeds.iter().all(|seed| *seed == self.broker.rpc)
    }
}

/// A node's view of the cluster.
pub struct Cluster {
    env: Env,
    options: ClusterOptions,
    host: Arc<GroupHost>,
    /// Taken when the node closes it.
    data_dir: Mutex<Option<DataDir>>,
    manager: Arc<LogManager>,
    flusher: FlushDriver,
    controller: Controller,
    metadata_group: Arc<Group>,
    disk_gate: Arc<DiskGate>,
    interconnect: Arc<Interconnect>,
    /// The groups of the partitions here, and what others may ask.
    exchange: Arc<Exchange>,
    /// Held while groups are brought in step with an image.
    reconciling: tokio::sync::Mutex<()>,
    /// Version of the image that `groups` reflects.
    reconciled: Published<i64>,
    begun: Instant,
    /// Producer ids that this broker may still give away.
    producer_ids: Mutex<std::ops::Range<i64>>,
    missed: RwLock<presence::Missed>,
    /// What brokers said of their disks last.
    disks: RwLock<BTreeMap<i32, DiskReport>>,
    /// Set once the broker is on its way out.
    is_leaving: AtomicBool,
    stop: Shutdown,
    background: Mutex<Vec<takhin_runtime::JoinHandle<()>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("node", &self.options.broker.id)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// This broker's id.
    pub fn node_id(&self) -> i32 {
        self.options.broker.id
    }

    /// What tells this run of the broker's process from all others.
    pub fn incarnation(&self) -> Uuid {
        self.interconnect.own_incarnation()
    }

    /// The metadata as of now.
    pub fn image(&self) -> Arc<Image> {
        self.controller.image()
    }

    /// The first image seen whose end is another than `end_offset`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn image_after(&self, end_offset: i64) -> Arc<Image> {
        self.controller.image_after(end_offset).await
    }

    /// The broker that leads the metadata group, as far as this one knows; -1 while there is none.
    pub fn controller_id(&self) -> i32 {
        if self.is_controller() {
            return self.node_id();
        }
        let leader = self
            .metadata_group
            .leader()
            .and_then(|leader| i32::try_from(leader).ok());
        // This node's own vote without its leadership: it is not yet, or no longer, the controller.
        leader.filter(|leader| *leader != self.node_id()).unwrap_or(-1)
    }

    fn is_controller(&self) -> bool {
        self.metadata_group.spec.partition.leadership().is_some()
    }

    /// The leader of a partition (-1 if it has given up and no other is known) and its epoch, as far as this broker knows;
    /// `None` before the first leader was heard of.
    pub fn leadership(&self, topic_id: Uuid, index: i32) -> Option<(i32, i32)> {
        self.exchange.leaders.leader_of(PartitionId { topic_id, index })
    }

    /// The partition, if a replica of it lives here.
    pub fn partition(&self, topic_id: Uuid, index: i32) -> Option<Arc<Partition>> {
        let groups = self.exchange.groups.read();
        groups
            .get(&PartitionId { topic_id, index })
            .map(|group| Arc::clone(&group.spec.partition))
    }

    /// All partitions on this broker, in order.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.exchange
            .groups
            .read()
            .values()
            .map(|group| Arc::clone(&group.spec.partition))
            .collect()
    }

    /// Those of a partition's `replicas` that have all its committed records: the ISR, as its leader says. Without a
    /// leader the last ISR stands, as in Kafka; before the first one all replicas are equal.
    pub fn in_sync_replicas(&self, topic_id: Uuid, index: i32, replicas: &[i32]) -> Vec<i32> {
        match self.exchange.leaders.of(PartitionId { topic_id, index }) {
            Some(leadership) => leadership.in_sync,
            None => replicas.to_vec(),
        }
    }

    /// The replicas of a partition led here whose brokers were heard of within the last second, of those on `brokers`: each
    /// with its log end offset, as far as it has said. Empty unless this broker leads the partition.
    pub fn log_end_offsets(&self, id: PartitionId, brokers: &[i32]) -> Vec<(i32, i64)> {
        let group = self.exchange.groups.read().get(&id).cloned();
        let Some(progress) = group.and_then(|group| group.progress()) else {
            return Vec::new();
        };
        let is_wanted = |id: &i32| brokers.contains(id) && self.host.is_present(node_number(*id));
        let replicas = progress.replicas.iter();
        let replicas = replicas.filter_map(|(node, replica)| Some((i32::try_from(*node).ok()?, replica)));
        replicas
            .filter(|(id, _)| is_wanted(id))
            .filter_map(|(id, replica)| Some((id, progress.end_after(replica.matched?)?)))
            .collect()
    }

    /// Whether some broker has said that it leads the partition, and not that it no longer does.
    fn is_led(&self, id: &PartitionId) -> bool {
        let leader = self.exchange.leaders.leader_of(*id);
        leader.is_some_and(|(leader, _)| leader >= 0)
    }

    /// Returns once every partition with a replica on this broker has a leader, or its replica here cannot be opened.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn led(&self) {
        self.each_partition(|partition| self.is_led(&partition.id()) || partition.offline_reason().is_some())
            .await;
    }

    /// Returns once `so` holds of every partition with a replica on this broker.
    async fn each_partition(&self, so: impl Fn(&Partition) -> bool) {
        loop {
            let seen = self.exchange.leaders.seen();
            if self.partitions().iter().all(|partition| so(partition)) {
                return;
            }
            tokio::select! {
                biased;
                () = self.exchange.leaders.seen_after(seen) => {}
                () = self.env.clock.sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Statistics of this node's storage.
    pub fn storage(&self) -> &Arc<LogManager> {
        &self.manager
    }

    /// Checks what [`Self::create_topic`] would refuse, and changes nothing.
    ///
    /// # Errors
    /// [`TopicError`].
    pub fn check_topic(&self, new: &NewTopic) -> Result<(), TopicError> {
        self.controller.check(new)
    }

    /// Creates a topic; on return its partitions here have leaders, or ten seconds have passed.
    ///
    /// # Errors
    /// [`TopicError`]; nothing was created, except after [`TopicError::Timeout`], where it may yet be.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have created the topic.
    pub async fn create_topic(&self, new: NewTopic) -> Result<Arc<TopicInfo>, TopicError> {
        let name = new.name.clone();
        let id = Uuid::from_bytes(self.env.rng.uuid());
        let done = self.command(Command::CreateTopic { id, new }).await?;
        self.reconciled(done.end_offset).await;
        let image = self.image();
        // Deleted again by somebody else in the same moment: then it is unknown.
        let topic = image.topic(&name).filter(|topic| topic.id == id);
        let topic = topic.cloned().ok_or(TopicError::Unknown)?;
        // Late leaders show in the metadata as they come.
        let _ = self.env.clock.timeout(LEADER_WAIT, self.leaders(topic.id)).await;
        Ok(topic)
    }

    /// Adds partitions with these replicas to a topic that has `existing` of them; on return those here have leaders,
    /// or ten seconds have passed.
    ///
    /// # Errors
    /// [`TopicError`]; nothing was added, except after [`TopicError::Timeout`], where it may yet be.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have added them.
    pub async fn create_partitions(
        &self,
        id: Uuid,
        existing: usize,
        partitions: Vec<Vec<i32>>,
    ) -> Result<(), TopicError> {
        let command = Command::CreatePartitions {
            id,
            existing,
            partitions,
        };
        let done = self.command(command).await?;
        self.reconciled(done.end_offset).await;
        // Late leaders show in the metadata as they come.
        let _ = self.env.clock.timeout(LEADER_WAIT, self.leaders(id)).await;
        Ok(())
    }

    /// Changes the configuration of a topic or broker, or with `validate_only` finds out whether that can be done; on
    /// return the change is in force here.
    ///
    /// # Errors
    /// [`TopicError`]; nothing was changed, except after [`TopicError::Timeout`], where it may yet be.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have made the change.
    pub async fn alter_config(
        &self,
        target: &ConfigTarget,
        change: &Change,
        validate_only: bool,
    ) -> Result<(), TopicError> {
        let command = Command::AlterConfig {
            target: target.clone(),
            change: change.clone(),
            validate_only,
        };
        let done = self.command(command).await?;
        self.reconciled(done.end_offset).await;
        Ok(())
    }

    /// Deletes a topic; on return its partitions here answer no more.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn delete_topic(&self, id: Uuid) -> Result<(), TopicError> {
        let done = self.command(Command::DeleteTopic { id }).await?;
        self.reconciled(done.end_offset).await;
        Ok(())
    }

    /// Returns once the partitions on this broker are those of the image with this end.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn reconciled(&self, end_offset: i64) {
        self.reconciled.wait_for(|done| *done >= end_offset).await;
    }

    /// Returns once every partition of the topic has a leader that this broker has heard of.
    async fn leaders(&self, topic_id: Uuid) {
        loop {
            let seen = self.exchange.leaders.seen();
            let partitions = self
                .image()
                .topic_by_id(topic_id)
                .map_or(0, |topic| topic.partitions.len());
            let led = |index| self.is_led(&PartitionId { topic_id, index });
            if (0i32..).take(partitions).all(led) {
                return;
            }
            self.exchange.leaders.seen_after(seen).await;
        }
    }

    /// Starts, changes and stops groups until they are those of `image`.
    ///
    /// Invariant: no replica is made or deleted for an image that is older than one for which any was before, also before
    /// a restart (see [`Self::catch_up`]). An older image may know another replica by the same directory, and newer ones
    /// would have its files deleted then.
    async fn reconcile(&self, image: &Image) {
        let _turn = self.reconciling.lock().await;
        let mut wanted = BTreeMap::new();
        // Coordinators write whenever their groups do anything.
        let internal = image.topics.values().filter(|topic| is_internal(&topic.name));
        let internal = internal.map(|topic| topic.id);
        let internal: BTreeSet<Uuid> = internal.collect();
        for topic in image.topics.values() {
            for (index, placement) in (0i32..).zip(&topic.partitions) {
                if placement.replicas.contains(&self.node_id()) {
                    let id = PartitionId {
                        topic_id: topic.id,
                        index,
                    };
                    wanted.insert(id, (Arc::clone(&topic.config), placement));
                }
            }
        }
        // A replica that was removed and added again while nobody looked is another one, and begins empty.
        let is_wanted = |id: &PartitionId, group: &Group| {
            let wanted = wanted.get(id);
            wanted.is_some_and(|(_, placement)| self.voter(placement) == group.spec.voter)
        };
        let (gone, is_changing) = {
            let groups = self.exchange.groups.read();
            let gone = groups.iter().filter(|(id, group)| !is_wanted(id, group));
            let gone: Vec<PartitionId> = gone.map(|(id, _)| *id).collect();
            let is_changing = !gone.is_empty() || wanted.keys().any(|id| !groups.contains_key(id));
            (gone, is_changing)
        };
        if is_changing && !self.remember(image).await {
            return;
        }
        let gone: Vec<Arc<Group>> = {
            let mut groups = self.exchange.groups.write();
            gone.iter().filter_map(|id| groups.remove(id)).collect()
        };
        for group in gone {
            self.delete(&group).await;
        }
        let mut changed = Vec::new();
        {
            let mut groups = self.exchange.groups.write();
            for (id, (config, placement)) in &wanted {
                match groups.entry(*id) {
                    Entry::Occupied(group) => {
                        group.get().prefer(&placement.replicas);
                        if !Arc::ptr_eq(&group.get().spec.partition.config(), config) {
                            changed.push((Arc::clone(group.get()), Arc::clone(config)));
                        }
                    }
                    Entry::Vacant(place) => {
                        let may_park = !internal.contains(&id.topic_id);
                        place.insert(self.start_group(*id, config, placement, may_park));
                    }
                }
            }
        }
        join_all(
            changed
                .iter()
                .map(|(group, config)| self.host.configure(group, config)),
        )
        .await;
        self.reconciled.update(|done| *done = image.end_offset);
    }

    /// Writes down that replicas are made and deleted for this image; `false` if the node stops before it could.
    async fn remember(&self, image: &Image) -> bool {
        let known = self.host.hard_state.image();
        if known.is_ok_and(|known| known >= image.end_offset) {
            return true;
        }
        while let Err(error) = self.host.hard_state.set_image(image.end_offset).await {
            tracing::warn!(%error, "replicas are made and deleted once the journal can be written");
            if self
                .env
                .clock
                .timeout(REMEMBER_AGAIN, self.stop.wait())
                .await
                .is_ok()
            {
                return false;
            }
        }
        true
    }

    fn start_group(
        &self,
        id: PartitionId,
        config: &Arc<TopicConfig>,
        placement: &PartitionInfo,
        may_park: bool,
    ) -> Arc<Group> {
        let partition = Partition::new(id, Arc::clone(config), Arc::clone(&self.disk_gate));
        let founders = placement.founders.iter().map(|(id, directory)| {
            // Records of a release that knew one broker only do not name its directory.
            let directory = match directory.is_nil() && *id == self.node_id() {
                true => self.host.directory,
                false => *directory,
            };
            (node_number(*id), Voter { directory })
        });
        let spec = GroupSpec {
            id,
            partition,
            voter: self.voter(placement),
            founders: founders.collect(),
            preference: preference(placement),
            observer: None,
            may_park,
        };
        Group::start(Arc::clone(&self.host), spec)
    }

    /// What this broker's replica is in the partition's group.
    fn voter(&self, placement: &PartitionInfo) -> Voter {
        let own = placement.voters.get(&self.node_id()).copied();
        // Records of a release that knew one broker only do not name its directory.
        let directory = own.filter(|own| !own.is_nil()).unwrap_or(self.host.directory);
        Voter { directory }
    }

    async fn delete(&self, group: &Group) {
        let id = group.spec.id;
        group.spec.partition.delete();
        group.stop().await;
        self.exchange.leaders.forget(id);
        self.delete_files(id).await;
    }

    async fn delete_files(&self, id: PartitionId) {
        let manager = Arc::clone(&self.manager);
        let delete = move || manager.delete(id.into(), &group_keys(id));
        if let Err(error) = self.env.tasks.blocking(delete).await {
            tracing::warn!(partition = %id, %error, "files of a deleted partition remain");
        }
    }

    /// Ends everything in order: no more changes, groups, a last flush and checkpoint, the clean marker.
    pub async fn stop(&self) {
        self.stop.trigger();
        let background = std::mem::take(&mut *self.background.lock());
        for task in background {
            // A task that panicked was reported when it did.
            let _ = task.await;
        }
        self.close_groups().await;
        self.interconnect.stop().await;
    }
}

fn preference(placement: &PartitionInfo) -> Vec<u64> {
    placement.replicas.iter().copied().map(node_number).collect()
}

/// A broker's id as the number of a voter.
pub(crate) fn node_number(broker: i32) -> u64 {
    u64::from(broker.unsigned_abs())
}

/// Returns why the partition's storage is offline, once it is.
async fn wait_for_failure(partition: &Arc<Partition>) -> String {
    loop {
        let waiter = Waiter::new();
        partition.wait(&waiter);
        if let Some(reason) = partition.offline_reason() {
            return reason;
        }
        waiter.woken().await;
    }
}

/// Returns once the partition has a serving leader here.
async fn wait_for_leader(partition: &Arc<Partition>) {
    loop {
        let waiter = Waiter::new();
        partition.wait(&waiter);
        if partition.leadership().is_some() {
            return;
        }
        waiter.woken().await;
    }
}
