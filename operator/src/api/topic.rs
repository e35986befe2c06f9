//! `Topic`: a topic in a running cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::shared::{ClusterRef, DeletionPolicy, conditions_schema, null_is_default};

/// A topic of a TakhinCluster. What stands here is brought into the cluster; what somebody changes there is reverted.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "takhin.io",
    version = "v1alpha1",
    kind = "Topic",
    plural = "topics",
    singular = "topic",
    namespaced,
    status = "TopicStatus",
    category = "takhin",
    shortname = "tt",
    derive = "PartialEq",
    doc = "A topic of a TakhinCluster. What stands here is brought into the cluster; what somebody changes there is reverted.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicationFactor"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Topic", type_ = "string", json_path = ".status.topicName", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("has(self.spec.topicName) || self.metadata.name.size() <= 249")
        .message("metadata.name is the topic's name and longer than the 249 characters that Kafka takes: set spec.topicName")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.topicName) == has(oldSelf.topicName)")
        .message("spec.topicName can be neither added nor removed: it would be another topic; make another Topic")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new(
        "!has(oldSelf.partitions) || (has(self.partitions) && self.partitions >= oldSelf.partitions)"
    )
    .message("spec.partitions can only grow and not be removed: Kafka cannot take partitions away")
    .reason(Reason::FieldValueForbidden)
)]
pub struct TopicSpec {
    /// The cluster that has the topic. Cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.clusterRef cannot be changed: make another Topic")
        .reason(Reason::FieldValueForbidden))]
    pub cluster_ref: ClusterRef,
    /// Name of the topic in the cluster; by default metadata.name. For names that Kubernetes does not take, such as ones
    /// with capitals. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("spec.topicName cannot be changed: it would be another topic; make another Topic")
            .reason(Reason::FieldValueForbidden),
        validation = Rule::new("!self.startsWith('__')")
            .message("spec.topicName begins with two underscores: such topics belong to the brokers"),
        validation = Rule::new("self != '.' && self != '..'").message("spec.topicName cannot be . or ..")
    )]
    pub topic_name: Option<String>,
    /// Number of partitions; can only grow. By default the broker's when the topic is created, and not looked at later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub partitions: Option<i32>,
    /// Replicas of each partition. By default the broker's when the topic is created, and not looked at later. A change
    /// moves replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7))]
    pub replication_factor: Option<i32>,
    /// What happens to the topic when this resource is deleted: `Delete` (default) deletes it with its records, `Retain`
    /// leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Topic settings under Kafka's names, values as text. Settings that are not named are left alone; one that is removed
    /// here goes back to the broker's default.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(schema_with = "config_schema")]
    pub config: BTreeMap<String, String>,
}

/// Text by text, both bounded.
pub(super) fn config_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 100,
        "additionalProperties": { "type": "string", "maxLength": 4096 }
    })
}

/// What is known of a topic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// Generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name of the topic in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_name: Option<String>,
    /// Kafka's id of the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Partitions that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// Replicas that its partitions have; the smallest number where they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i32>,
    /// Values in force of the settings that this resource manages.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    #[schemars(schema_with = "config_schema")]
    pub config: BTreeMap<String, String>,
    /// Ready, and Drifted where a change was reverted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

impl Topic {
    /// Name of the topic in the cluster.
    pub fn topic_name(&self) -> &str {
        let own = || self.metadata.name.as_deref().unwrap_or_default();
        self.spec.topic_name.as_deref().unwrap_or_else(own)
    }

    /// What becomes of the topic when the resource is deleted.
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy.unwrap_or_default()
    }
}
