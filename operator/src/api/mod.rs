//! The kinds of group `takhin.io`, version `v1alpha1`.

// What derives a schema writes each type a second time, inside of a function.
#![allow(unreachable_pub, reason = "types in code that is made by kube's derive")]

mod cluster;
mod cluster_status;
mod pika_source;
mod shared;
mod topic;

pub use cluster::{
    Authentication, BrokerAddress, BrokerStatus, ClusterNetworkPolicySpec, ListenerSpec, ListenerStatus,
    ListenerType, PodMetadata, PullPolicy, QuorumStatus, RackSpec, RebalanceMode, RebalanceSpec, RolloutSpec,
    RolloutStatus, SchedulingSpec, StorageSpec, StorageType, TakhinCluster, TakhinClusterSpec,
    TakhinClusterStatus,
};
pub use pika_source::{
    ListingType, PikaListing, PikaPosition, PikaSink, PikaSource, PikaSourceSpec, PikaSourceStatus,
    PikaStart, PikaStorage, PikaUpstream, PikaWal, SnapshotMode, TopicMode,
};
pub use shared::{ClusterRef, DeletionPolicy, NetworkPolicySpec, SecretKeyRef, conditions_schema};
pub use topic::{Topic, TopicSpec, TopicStatus};

use kube::ResourceExt as _;

/// The API group.
pub const GROUP: &str = "takhin.io";

/// Annotation that stops everything but status and the removal of finalizers.
pub const PAUSE: &str = "takhin.io/pause-reconciliation";

/// Annotation of a topic that the operator is not to touch, with value `false`.
pub const MANAGED: &str = "takhin.io/managed";

/// Annotation of a cluster: replicas that would not fit do not keep it from becoming smaller.
pub const SKIP_SCALE_DOWN_CHECK: &str = "takhin.io/skip-scale-down-check";

/// Annotation of a pod, or of a cluster for all of its pods, that asks for a restart. The value is free; a new value asks
/// again.
pub const RESTART: &str = "takhin.io/restart";

/// Label of everything that belongs to a cluster.
pub const CLUSTER_LABEL: &str = "takhin.io/cluster";

/// Annotation of a broker's pod: settings of the section `node` that come from the node that it runs on, as JSON: the rack.
pub const NODE_SETTINGS: &str = "takhin.io/node";

/// Whether an annotation has this value.
pub fn annotated<K: kube::Resource>(object: &K, name: &str, value: &str) -> bool {
    object.annotations().get(name).is_some_and(|found| found == value)
}

#[cfg(test)]
mod tests;
