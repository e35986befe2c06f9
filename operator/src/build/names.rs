//! Names and labels of what belongs to a cluster.

use std::collections::BTreeMap;

use kube::ResourceExt as _;

use crate::api::{CLUSTER_LABEL, TakhinCluster};

/// Field manager of everything that the operator writes, and the value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "takhin-operator";

/// Port on which brokers reach each other.
pub const RPC_PORT: i32 = 33145;

/// Port of health, metrics and the admin API.
pub const ADMIN_PORT: i32 = 9644;

/// Port that clients have when no listener is configured.
pub const KAFKA_PORT: i32 = 9092;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// A cluster's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Namespace of cluster and children.
    pub namespace: String,
    /// Name of the cluster: also of StatefulSet, PodDisruptionBudget and NetworkPolicy.
    pub cluster: String,
    /// DNS name that all names of Services end with.
    pub domain: String,
}

impl Names {
    /// The names of `cluster` where Services' names end with `domain`.
    pub fn of(cluster: &TakhinCluster, domain: &str) -> Self {
        Self {
            namespace: cluster.namespace().unwrap_or_default(),
            cluster: cluster.name_any(),
            domain: domain.to_owned(),
        }
    }

    /// The Service that gives each pod its name.
    pub fn headless(&self) -> String {
        format!("{}-brokers", self.cluster)
    }

    /// The Service of all ready brokers.
    pub fn bootstrap(&self) -> String {
        format!("{}-bootstrap", self.cluster)
    }

    /// The ConfigMap with the node file.
    pub fn config(&self) -> String {
        format!("{}-config", self.cluster)
    }

    /// The Secret with the token of the admin API.
    pub fn admin_token(&self) -> String {
        format!("{}-admin-token", self.cluster)
    }

    /// The brokers' ServiceAccount.
    pub fn service_account(&self) -> String {
        format!("{}-broker", self.cluster)
    }

    /// The Service of an external listener for all brokers.
    pub fn external_bootstrap(&self, listener: &str) -> String {
        format!("{}-{listener}-bootstrap", self.cluster)
    }

    /// The Service of an external listener for one broker.
    pub fn external_broker(&self, listener: &str, broker: i32) -> String {
        format!("{}-{listener}-{broker}", self.cluster)
    }

    /// The pod of a broker.
    pub fn pod(&self, broker: i32) -> String {
        format!("{}-{broker}", self.cluster)
    }

    /// The claim of a broker.
    pub fn claim(&self, broker: i32) -> String {
        format!("data-{}-{broker}", self.cluster)
    }

    /// DNS name of a Service.
    pub fn service_host(&self, service: &str) -> String {
        format!("{service}.{}.svc.{}", self.namespace, self.domain)
    }

    /// DNS name of a broker's pod; `pod` may be a reference to an environment variable.
    pub fn pod_host(&self, pod: &str) -> String {
        format!("{pod}.{}", self.service_host(&self.headless()))
    }

    /// The broker that a pod of this cluster is: the number at the end of its name.
    pub fn broker_of(&self, pod: &str) -> Option<i32> {
        pod.strip_prefix(&self.cluster)?.strip_prefix('-')?.parse().ok()
    }

    /// Labels that never change: what selectors are made of.
    pub fn selector(&self) -> Labels {
        labels([
            (CLUSTER_LABEL, self.cluster.as_str()),
            ("app.kubernetes.io/component", "broker"),
        ])
    }

    /// The selector as text.
    pub fn selector_text(&self) -> String {
        format!(
            "{CLUSTER_LABEL}={},app.kubernetes.io/component=broker",
            self.cluster
        )
    }

    /// Labels of the pods' template, which do not change with the operator's release.
    pub fn pod_labels(&self) -> Labels {
        labels([
            (CLUSTER_LABEL, self.cluster.as_str()),
            ("app.kubernetes.io/component", "broker"),
            ("app.kubernetes.io/name", "takhin"),
            ("app.kubernetes.io/instance", self.cluster.as_str()),
            ("app.kubernetes.io/managed-by", MANAGER),
            ("app.kubernetes.io/part-of", "takhin"),
        ])
    }

    /// Labels of everything else.
    pub fn labels(&self) -> Labels {
        let mut all = self.pod_labels();
        all.insert(
            "app.kubernetes.io/version".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        );
        all
    }
}

/// Pairs as labels.
pub fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}
