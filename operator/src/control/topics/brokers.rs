//! Clients of the clusters, one each, kept between passes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use parking_lot::Mutex;
use std::time::Duration;
use takhin_client::ClientConfig;

use super::ClusterKey;
use crate::api::TakhinCluster;
use crate::build::{Names, listeners};
use crate::control::context::Context;
use crate::decide::placement::Racks;
use crate::fence::Fence;
use crate::kafka_api::{KafkaApi, KafkaError};

/// Addresses and the client that was made with them.
type Known = (Vec<String>, KafkaApi);

pub(super) struct Clients {
    env: takhin_runtime::Env,
    fence: Fence,
    kubernetes: kube::Client,
    domain: String,
    known: Mutex<BTreeMap<ClusterKey, Known>>,
}

/// Why nobody can be asked.
pub(super) struct NotReady(pub(super) String);

impl Clients {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            env: context.env.clone(),
            fence: context.fence.clone(),
            kubernetes: context.client.clone(),
            domain: context.options.domain.clone(),
            known: Mutex::default(),
        }
    }

    /// Connections of a cluster whose brokers may have changed are not used again.
    pub(super) fn forget(&self, key: &ClusterKey) {
        self.known.lock().remove(key);
    }

    /// A client that begins with the ready pods of a cluster.
    pub(super) async fn of(&self, cluster: &TakhinCluster, key: &ClusterKey) -> Result<KafkaApi, NotReady> {
        let names = Names::of(cluster, &self.domain);
        let api: Api<Pod> = Api::namespaced(self.kubernetes.clone(), &names.namespace);
        let pods = api
            .list(&ListParams::default().labels(&names.selector_text()))
            .await
            .map_err(|error| NotReady(format!("the pods of cluster {} cannot be listed: {error}", key.1)))?;
        // Any will do whose own address it is that clients inside of Kubernetes are told.
        let listeners = listeners(&cluster.spec);
        let inside = listeners
            .iter()
            .find(|listener| listener.kind == crate::api::ListenerType::Internal)
            .or_else(|| listeners.first());
        let port = inside.map_or(crate::build::KAFKA_PORT, |listener| listener.port);
        let mut addresses: Vec<String> = pods
            .items
            .iter()
            .filter(|pod| is_ready(pod))
            .filter_map(|pod| pod.status.as_ref()?.pod_ip.as_deref())
            .map(|ip| address(ip, port))
            .collect();
        addresses.sort();
        if addresses.is_empty() {
            return Err(NotReady(format!("no broker of cluster {} is ready", key.1)));
        }
        let mut known = self.known.lock();
        if let Some((with, client)) = known.get(key)
            && *with == addresses
        {
            return Ok(client.clone());
        }
        let mut config = ClientConfig::new(addresses.clone());
        config.client_id = crate::build::MANAGER.to_owned();
        config.connect_timeout = Duration::from_secs(3);
        config.max_response_bytes = 32 << 20;
        let client = KafkaApi::new(self.env.clone(), self.fence.clone(), config);
        known.insert(key.clone(), (addresses, client.clone()));
        Ok(client)
    }
}

/// Host and port, with brackets where they are needed.
pub(crate) fn address(ip: &str, port: i32) -> String {
    let host = ip.to_owned();
    crate::build::Address { host, port }.to_string()
}

/// Whether a pod says that it is ready, and is not being deleted.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .filter(|condition| condition.type_ == "Ready")
        .any(|condition| condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Brokers that may have replicas: those that are not going.
///
/// # Errors
/// Nobody answers who could be asked.
pub(super) async fn racks(cluster: &TakhinCluster, client: &KafkaApi) -> Result<Racks, KafkaError> {
    let status = cluster.status.as_ref();
    let told: Racks = status
        .iter()
        .flat_map(|status| &status.brokers)
        .filter(|broker| broker.state.is_some() && broker.state.as_deref() != Some("decommissioning"))
        .map(|broker| (broker.id, broker.rack.clone()))
        .collect();
    if !told.is_empty() {
        return Ok(told);
    }
    // Without a word of the cluster controller there are at least the brokers that clients are told of.
    Ok(client.brokers().await?.into_iter().map(|id| (id, None)).collect())
}
