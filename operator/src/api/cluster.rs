//! `TakhinCluster`: the wish, as a user writes it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use super::cluster_status::{
    BrokerStatus, ListenerStatus, QuorumStatus, RolloutStatus, TakhinClusterStatus,
};
use super::shared::{IMAGE, SecretKeyRef, annotations_schema, null_is_default};

/// A cluster of Takhin brokers.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "takhin.io",
    version = "v1alpha1",
    kind = "TakhinCluster",
    plural = "takhinclusters",
    singular = "takhincluster",
    namespaced,
    status = "TakhinClusterStatus",
    category = "takhin",
    shortname = "tkc",
    derive = "PartialEq",
    doc = "A cluster of Takhin brokers.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Brokers", type_ = "string", json_path = ".status.brokersSummary"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Progressing")].reason"#
    ),
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
        .message("metadata.name has more than 40 characters: names of pods and labels are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must begin with a letter and have letters, digits and hyphens only: names of Services are made from it")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.storage.type != 'Ephemeral' || self.replicas == 1")
    .message("spec.replicas of storage type Ephemeral can only be 1: of several brokers, the others would refuse for good one that \
              comes back without its data. Set spec.storage.type to PersistentVolumeClaim"))]
pub struct TakhinClusterSpec {
    /// Number of brokers. Fewer than now: replicas move away first, and the change is refused with a reason in the
    /// conditions where they would not fit.
    #[schemars(range(min = 1, max = 99))]
    pub replicas: i32,
    /// Image of the broker; by default the operator's. Another one restarts the brokers one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE))]
    pub image: Option<String>,
    /// When the image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets for the registry of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Where brokers keep their data.
    pub storage: StorageSpec,
    /// Where clients connect; by default one inside of Kubernetes, named internal, on port 9092.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(
        validation = Rule::new("self.all(l, self.exists_one(m, m.port == l.port))")
            .message("spec.listeners: two listeners have the same port"),
        validation = Rule::new("self.all(l, !(l.port in [33145, 9644]))")
            .message("spec.listeners: ports 33145 (brokers among themselves) and 9644 (health and administration) are taken"),
        validation = Rule::new("self.all(l, !(l.name in ['rpc', 'admin']))")
            .message("spec.listeners: the names rpc and admin are taken")
    )]
    pub listeners: Vec<ListenerSpec>,
    /// What racks are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<RackSpec>,
    /// Settings of the brokers, values as text: under Kafka's names those that can be set while brokers run, such as
    /// log.retention.ms, and by their place in the node file all others, such as storage.flush_parallelism. Only the
    /// others restart brokers.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(schema_with = "config_schema")]
    #[x_kube(validation = Rule::new(
        "!self.exists(k, k in ['node.id', 'node.data_dir', 'node.rack', 'broker.rack', 'log.dirs', 'listeners', \
         'advertised.listeners', 'kafka.listeners', 'kafka.allow_insecure', 'cluster.name', 'cluster.seeds', 'rpc.bind', \
         'rpc.advertise', 'rpc.allow_insecure', 'admin.bind', 'admin.allow_insecure', 'admin.token_file', \
         'takhin.rebalance.enable', 'cluster.rebalance.enabled'])"
    )
    .message("spec.config has a key that the operator sets itself, from spec.listeners, spec.rack, spec.rebalance and the pods"))]
    pub config: BTreeMap<String, String>,
    /// Processor and memory of each broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// On which nodes brokers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<SchedulingSpec>,
    /// Labels and annotations that the pods have beside the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_metadata: Option<PodMetadata>,
    /// Seconds that a broker has for stopping; by default 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 3600))]
    pub termination_grace_period_seconds: Option<i64>,
    /// What happens with replicas when brokers have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<RebalanceSpec>,
    /// How brokers are restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
    /// Who may connect to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<ClusterNetworkPolicySpec>,
    /// Namespaces beside this cluster's whose Topics and PikaSources may name this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "namespaces_schema")]
    pub topic_namespaces: Vec<String>,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never.
    Never,
}

/// Where brokers keep their data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type == oldSelf.type")
        .message("spec.storage.type cannot be changed: make another cluster and move the data")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.type != 'PersistentVolumeClaim' || has(self.size)")
        .message("spec.storage.size is missing: type PersistentVolumeClaim needs one, such as 100Gi"),
    validation = Rule::new("self.type != 'Ephemeral' || (!has(self.className) && !has(self.deleteOnRemoval))")
        .message("spec.storage.className and deleteOnRemoval are for type PersistentVolumeClaim only"),
    validation = Rule::new("has(self.className) == has(oldSelf.className)")
        .message("spec.storage.className can be neither added nor removed: claims keep their class")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.size) || has(self.size)")
        .message("spec.storage.size cannot be removed")
        .reason(Reason::FieldValueForbidden)
)]
pub struct StorageSpec {
    /// A claim for each broker, or a directory that goes with the pod.
    #[serde(rename = "type")]
    pub kind: StorageType,
    /// Size of each broker's volume, such as 100Gi. It can only grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 24),
        regex(pattern = r"^[1-9][0-9]*(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
    )]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity(oldSelf)) >= 0")
        .message("spec.storage.size can only grow: volumes cannot shrink")
        .reason(Reason::FieldValueForbidden))]
    pub size: Option<String>,
    /// Storage class of the claims; by default that of the Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.storage.className cannot be changed: claims keep their class")
        .reason(Reason::FieldValueForbidden))]
    pub class_name: Option<String>,
    /// Whether claims are deleted with the broker or the cluster that they belong to. By default they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_on_removal: Option<bool>,
}

/// Kinds of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageType {
    /// A claim for each broker, which outlives its pods.
    PersistentVolumeClaim,
    /// A directory of the pod, for one broker: when its pod is replaced it begins anew, without data.
    Ephemeral,
}

/// One way in for Kafka clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSpec {
    /// Name of the listener; names of Services and ports are made from it.
    #[schemars(length(min = 1, max = 11), regex(pattern = r"^[a-z][a-z0-9]*$"))]
    pub name: String,
    /// Port of the brokers' pods and of the Services.
    #[schemars(range(min = 1024, max = 65_535))]
    pub port: i32,
    /// From where it can be reached.
    #[serde(rename = "type")]
    pub kind: ListenerType,
    /// Whether connections are encrypted. Not supported yet: true is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self")
        .message("tls of a listener is not supported by this release: leave it out or set it to false"))]
    pub tls: Option<bool>,
    /// How clients say who they are. Not supported yet: anything but None is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == 'None'")
        .message("authentication of a listener is not supported by this release: leave it out or set it to None"))]
    pub authentication: Option<Authentication>,
    /// Secret with the certificate. Not supported yet: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("false")
        .message("certificate of a listener is not supported by this release: leave it out"))]
    pub certificate: Option<SecretKeyRef>,
    /// Addresses of single brokers where the ones that are found are not what clients are to be told; for types NodePort and
    /// LoadBalancer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 99), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["broker"]))]
    pub brokers: Vec<BrokerAddress>,
    /// Port of the nodes that leads to any broker; for type NodePort. By default Kubernetes chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub bootstrap_node_port: Option<i32>,
    /// Annotations of the Services, for whoever provides load balancers or names.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(schema_with = "annotations_schema")]
    pub service_annotations: BTreeMap<String, String>,
    /// From where the port can be reached if there is a NetworkPolicy; by default from everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub network_policy_peers: Vec<NetworkPolicyPeer>,
}

/// Who may connect to the brokers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// Whether there is a NetworkPolicy; by default there is one.
    pub enabled: bool,
    /// From where the port of metrics, health and the admin API can be reached beside the cluster's brokers and the operator; by
    /// default from everywhere, with an empty list from nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub metrics_peers: Option<Vec<NetworkPolicyPeer>>,
}

/// From where a listener can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListenerType {
    /// From inside of Kubernetes.
    Internal,
    /// From wherever the nodes can be reached: by a port of the node that a broker runs on.
    NodePort,
    /// By a load balancer for each broker and one for all.
    LoadBalancer,
}

/// How clients say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Authentication {
    /// They do not.
    None,
    /// By name and password (SCRAM-SHA-512).
    ScramSha512,
    /// By a certificate.
    Tls,
}

/// The address of one broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerAddress {
    /// Id of the broker: the number at the end of its pod's name.
    #[schemars(range(min = 0, max = 98))]
    pub broker: i32,
    /// Host that clients are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9.:]*[a-zA-Z0-9])?$")
    )]
    pub advertised_host: Option<String>,
    /// Port that clients are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub advertised_port: Option<i32>,
    /// Port of the nodes, for type NodePort. By default Kubernetes chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub node_port: Option<i32>,
}

/// What racks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RackSpec {
    /// Label of the nodes whose value is the rack, such as topology.kubernetes.io/zone. Replicas are spread over racks.
    #[schemars(
        length(min = 1, max = 317),
        regex(pattern = r"^([a-zA-Z0-9.-]+/)?[a-zA-Z0-9]([-._a-zA-Z0-9]*[a-zA-Z0-9])?$")
    )]
    pub topology_key: String,
}

/// On which nodes brokers run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulingSpec {
    /// Whether two brokers may never share a node, and zones have to be filled evenly; by default both are only preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// Labels that a node must have.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(schema_with = "annotations_schema")]
    pub node_selector: BTreeMap<String, String>,
    /// Takes the place of the operator's rule that brokers avoid each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Taints that brokers tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Takes the place of the operator's rule that brokers spread over zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// What pods have beside what the operator gives them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels; those of the operator win.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(schema_with = "annotations_schema")]
    pub labels: BTreeMap<String, String>,
    /// Annotations; those of the operator win.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(schema_with = "annotations_schema")]
    pub annotations: BTreeMap<String, String>,
}

/// What happens with replicas when brokers have come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebalanceSpec {
    /// Auto (the default): they move onto new brokers until all have about as many.
    pub mode: RebalanceMode,
}

/// Whether replicas move by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum RebalanceMode {
    /// They move onto new brokers.
    #[default]
    Auto,
    /// They stay where they are.
    Disabled,
}

/// How brokers are restarted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// How long the leaders of a broker may take to leave it before it is restarted all the same; by default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_timeout_seconds: Option<i64>,
    /// How long the restart of one broker may take before the cluster counts as degraded; by default 600. It goes on trying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub timeout_seconds: Option<i64>,
}

fn config_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 100,
        "additionalProperties": { "type": "string", "maxLength": 4096 }
    })
}

fn namespaces_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 256,
        "x-kubernetes-list-type": "set",
        "items": { "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" }
    })
}
