//! `PikaSource`: the changes of a Pika server as records of topics.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{
    ClusterRef, IMAGE, NetworkPolicySpec, SecretKeyRef, annotations_schema, conditions_schema,
    null_is_default,
};

/// Follows a Pika server and writes its data set and its changes to topics of a TakhinCluster.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "takhin.io",
    version = "v1alpha1",
    kind = "PikaSource",
    plural = "pikasources",
    singular = "pikasource",
    namespaced,
    status = "PikaSourceStatus",
    category = "takhin",
    shortname = "pika",
    derive = "PartialEq",
    doc = "Follows a Pika server and writes its data set and its changes to topics of a TakhinCluster.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".status.topic"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.lagSeconds", description = "Seconds"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("metadata.name has more than 40 characters: names of pods and labels are made from it")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(oldSelf.storage) || has(self.storage)")
        .message("spec.storage cannot be removed: what is in the volume may not have been written yet. Make another PikaSource")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.wal) || !has(self.wal.enabled) || !self.wal.enabled || has(self.storage)")
        .message("spec.wal.enabled needs spec.storage: what is in the log the server may delete, and without a volume it goes with the pod"),
    validation = Rule::new(
        "!has(self.wal) || !has(self.wal.maxSize) || !has(self.storage) || quantity(self.wal.maxSize).compareTo(quantity(self.storage.size)) <= 0"
    )
    .message("spec.wal.maxSize is more than spec.storage.size, the volume that has the log: lower it, or raise the size")
)]
pub struct PikaSourceSpec {
    /// The cluster that has the topics. Cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.clusterRef cannot be changed: make another PikaSource")
        .reason(Reason::FieldValueForbidden))]
    pub cluster_ref: ClusterRef,
    /// The server that is followed.
    pub source: PikaUpstream,
    /// Where the records go.
    pub sink: PikaSink,
    /// Where to begin, and when the data set is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PikaStart>,
    /// Whether it stands still. It goes on from its position, or begins with the data set again where spec.startFrom.mode is always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// A volume for what takhin-cdc keeps: its position, the log of what was received and is not written yet, and files of a
    /// data set. Without one that is in a directory that goes with the pod. It can be added, and not removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<PikaStorage>,
    /// The log of what the server has sent and is not written yet. There always is one of servers before 3.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<PikaWal>,
    /// Who may connect to the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicySpec>,
    /// Image of takhin-cdc; by default the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE))]
    pub image: Option<String>,
    /// Processor and memory of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// A volume of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.className) == has(oldSelf.className)")
        .message("spec.storage.className can be neither added nor removed: a claim keeps its class")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new(
        "(has(self.deleteOnRemoval) && self.deleteOnRemoval) == (has(oldSelf.deleteOnRemoval) && oldSelf.deleteOnRemoval)"
    )
    .message("spec.storage.deleteOnRemoval cannot be changed: it is settled when the claim is made")
    .reason(Reason::FieldValueForbidden)
)]
pub struct PikaStorage {
    /// Size of the volume, such as 20Gi: room for the log (spec.wal.maxSize), and for the files of a data set if one is taken. It
    /// can only grow.
    #[schemars(
        length(min = 1, max = 24),
        regex(pattern = r"^[1-9][0-9]*(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
    )]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity(oldSelf)) >= 0")
        .message("spec.storage.size of a PikaSource can only grow: volumes cannot shrink")
        .reason(Reason::FieldValueForbidden))]
    pub size: String,
    /// Storage class of the claim; by default that of the Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.storage.className cannot be changed: a claim keeps its class")
        .reason(Reason::FieldValueForbidden))]
    pub class_name: Option<String>,
    /// Whether the claim is deleted with the PikaSource that it was made for. By default it stays, and one of the same name goes
    /// on with it. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_on_removal: Option<bool>,
}

/// A log of what the server has sent and is not written yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PikaWal {
    /// Whether there is one of servers from 3.1 on too: they are acknowledged what is in it, and delete their binlog by their own
    /// rules however long brokers are away. Needs spec.storage. By default they keep their binlog until it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Most bytes of it, such as 4Gi; when they are used up nothing more is read from the server. By default 4Gi, and no more than
    /// three quarters of spec.storage.size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 24),
        regex(pattern = r"^[1-9][0-9]*(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
    )]
    #[x_kube(validation = Rule::new(
            "isQuantity(self) && quantity(self).compareTo(quantity('1Mi')) >= 0 && quantity(self).compareTo(quantity('1Ti')) <= 0"
        )
        .message("spec.wal.maxSize is a quantity from 1Mi to 1Ti"))]
    pub max_size: Option<String>,
}

/// The server that is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PikaUpstream {
    /// Host name or address.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9.:]*[a-zA-Z0-9])?$")
    )]
    pub host: String,
    /// Port for clients. Those 2000 and 10001 above it have to be reachable too.
    #[schemars(range(min = 1, max = 55_534))]
    pub port: i32,
    /// Secret with the password, if the server asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// The way to the pod for a server before 3.5 that cannot reach pods by their own addresses: such servers connect to
    /// whoever follows them. Without it they have to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_as: Option<PikaListing>,
}

/// Under which address the server lists the pod among its slaves. It connects to the ports 1000 and 3000 above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PikaListing {
    /// What Service leads to the pod.
    #[serde(rename = "type")]
    pub kind: ListingType,
    /// Port that the server lists. Those 1000 and 3000 above it are the Service's, for type NodePort ports of the nodes: with
    /// the usual ones, 30000 to 32767, it is between 29000 and 29767.
    #[schemars(range(min = 1024, max = 62_535))]
    #[x_kube(validation = Rule::new("!(self in [6654, 8654])")
        .message("spec.source.listedAs.port can be neither 6654 nor 8654: the server would connect to 9654 (health and metrics)"))]
    pub port: i32,
    /// Host that the server lists; by default the address of the node that the pod runs on, or of the load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9.:]*[a-zA-Z0-9])?$")
    )]
    pub host: Option<String>,
    /// Annotations of the Service, for whoever provides load balancers.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(schema_with = "annotations_schema")]
    pub service_annotations: BTreeMap<String, String>,
}

/// What Service leads a server to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListingType {
    /// By ports of the node that the pod runs on.
    NodePort,
    /// By a load balancer that keeps the address that connections come from. For servers from 3.1 on: older ones want to hear
    /// from the address that they list.
    LoadBalancer,
}

/// Where the records go: one topic for everything, or a snapshot topic and a binlog topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.topic) != has(self.topicPrefix)")
        .message("spec.sink needs topic or topicPrefix, and not both"),
    validation = Rule::new("!has(self.mode) || has(self.topicPrefix)")
        .message("spec.sink.mode is for topicPrefix: with topic everything goes to that one, so leave mode out")
)]
pub struct PikaSink {
    /// The one topic for snapshot and changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub topic: Option<String>,
    /// What the topics' names begin with: PREFIX.stream, or PREFIX.snapshot and PREFIX.binlog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 240), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub topic_prefix: Option<String>,
    /// One topic or two; only with topicPrefix. By default Single.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TopicMode>,
}

/// How snapshot and changes share topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TopicMode {
    /// One topic has both.
    #[default]
    Single,
    /// Each has its own.
    Dual,
}

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PikaStart {
    /// Which snapshot is taken, by the names that Debezium has for them.
    pub mode: SnapshotMode,
}

/// Which snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// One if there is no position yet, then the changes. A position that the server does not have any more is an error.
    #[default]
    Initial,
    /// None: changes from now on. A position that the server does not have any more is an error.
    NoData,
    /// One if there is no position, or if the server does not have it any more.
    WhenNeeded,
    /// One at each start of the pod, then the changes. Not of servers before 3.1.
    Always,
    /// One if there is no position yet, and no changes. Not of servers before 3.1.
    InitialOnly,
}

impl PikaSourceSpec {
    /// When the data set is taken.
    pub fn snapshot_mode(&self) -> SnapshotMode {
        let start = self.start_from.as_ref();
        start.map(|start| start.mode).unwrap_or_default()
    }
}

impl SnapshotMode {
    /// The name that takhin-cdc has for it, as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::NoData => "no_data",
            Self::WhenNeeded => "when_needed",
            Self::Always => "always",
            Self::InitialOnly => "initial_only",
        }
    }

    /// Whether the data set is taken again where the position is lost.
    pub fn takes_again(self) -> bool {
        matches!(self, Self::WhenNeeded | Self::Always)
    }
}

/// What is known of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PikaSourceStatus {
    /// Generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What it does: Pending, Snapshot, Streaming, Paused and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub phase: Option<String>,
    /// The topic or topics that it writes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 600))]
    pub topic: Option<String>,
    /// How far it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<PikaPosition>,
    /// Bytes of binlog that it lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<i64>,
    /// Seconds that it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
    /// Pods wished for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Times that containers of the pod have been started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<i32>,
    /// Ready, SourceConnected, SinkConnected, SnapshotComplete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// A place in a binlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PikaPosition {
    /// Number of the file.
    pub file: i64,
    /// Bytes from its beginning.
    pub offset: i64,
}
