//! What is particular to a pod and known only once it has a node: rack, and addresses for clients outside.
//!
//! A pod waits for it before its broker starts, so that its annotations say what the broker was started with. Where they
//! differ from what they would be now, the broker has to be restarted.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::observe::Seen;
use crate::api::{ListenerSpec, ListenerType, NODE_SETTINGS, TakhinCluster};
use crate::build::{
    ASSIGNED, Address, LISTENERS, MANAGER, Names, assignment_needed, balancer_of, listeners, listeners_text,
    node_port_of,
};
use crate::control::context::Context;
use crate::control::error::Error;
use crate::control::metrics;

/// Seconds that a new pod waits for the addresses of all listeners before it starts without those that are missing.
const PATIENCE_SECONDS: i64 = 60;

/// What a pod is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// JSON of the settings that come from the node; without a rack an empty object.
    node_settings: String,
    pub(super) listeners: String,
    /// Listeners without an address.
    pub(super) missing: Vec<String>,
    /// Address by name of the listener.
    addresses: BTreeMap<String, String>,
    /// Address of the node.
    node: Option<String>,
}

impl Assignment {
    /// The address that clients of a listener are told.
    pub(super) fn address_of(&self, listener: &str) -> Option<String> {
        self.addresses.get(listener).cloned()
    }
}

/// The nodes' port that leads to any broker, with the address of a node that one runs on.
pub(super) fn node_port(service: &Service, seen: &Seen) -> Option<Address> {
    Some(Address {
        host: seen.assignments.values().find_map(|told| told.node.clone())?,
        port: node_port_of(service)?,
    })
}

/// Tells pods that were not told yet.
pub(super) async fn assign(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
    seen: &mut Seen,
) -> Result<(), Error> {
    if !assignment_needed(&cluster.spec) {
        return Ok(());
    }
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &names.namespace);
    let mut nodes = Nodes::default();
    for (broker, pod) in &mut seen.pods {
        let Some(node) = nodes.of(context, pod).await? else {
            continue;
        };
        let assignment = assignment(cluster, names, *broker, &node, &seen.services);
        if !pod.annotations().contains_key(ASSIGNED) {
            let created = pod.metadata.creation_timestamp.as_ref();
            let age = created.map_or(0, |at| context.now().as_second() - at.0.as_second());
            if !assignment.missing.is_empty() && age < PATIENCE_SECONDS {
                // Told to nobody yet; the status says what it waits for.
                seen.assignments.insert(*broker, assignment);
                continue;
            }
            let patch = json!({ "metadata": { "annotations": {
                LISTENERS: assignment.listeners,
                NODE_SETTINGS: assignment.node_settings,
                ASSIGNED: "true",
            } } });
            let parameters = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            metrics::patched("Pod");
            *pod = api
                .patch(&pod.name_any(), &parameters, &Patch::Merge(&patch))
                .await?;
        }
        seen.assignments.insert(*broker, assignment);
    }
    Ok(())
}

/// Nodes, each read once.
#[derive(Default)]
struct Nodes(BTreeMap<String, Node>);

impl Nodes {
    async fn of(&mut self, context: &Context, pod: &Pod) -> Result<Option<Node>, Error> {
        let Some(name) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
            return Ok(None);
        };
        if let Some(node) = self.0.get(&name) {
            return Ok(Some(node.clone()));
        }
        let api: Api<Node> = Api::all(context.client.clone());
        let Some(node) = api.get_opt(&name).await? else {
            return Ok(None);
        };
        self.0.insert(name, node.clone());
        Ok(Some(node))
    }
}

fn assignment(
    cluster: &TakhinCluster,
    names: &Names,
    broker: i32,
    node: &Node,
    services: &BTreeMap<String, Service>,
) -> Assignment {
    let rack = cluster.spec.rack.as_ref();
    let mut known = Vec::new();
    let mut missing = Vec::new();
    for listener in listeners(&cluster.spec) {
        let service = services.get(&names.external_broker(&listener.name, broker));
        let found = service.and_then(|service| found(&listener, service, node));
        match listener.advertised(names, broker, found.as_ref()) {
            Some(address) => known.push((listener, address)),
            None => missing.push(listener.name),
        }
    }
    Assignment {
        node_settings: match rack.and_then(|rack| node.labels().get(&rack.topology_key)) {
            Some(rack) => json!({ "rack": rack }).to_string(),
            None => json!({}).to_string(),
        },
        listeners: listeners_text(&known),
        missing,
        addresses: known
            .iter()
            .map(|(listener, address)| (listener.name.clone(), address.to_string()))
            .collect(),
        node: node_address(node),
    }
}

/// The address that a Service of one broker has come to.
fn found(listener: &ListenerSpec, service: &Service, node: &Node) -> Option<Address> {
    match listener.kind {
        ListenerType::Internal => None,
        ListenerType::NodePort => Some(Address {
            host: node_address(node)?,
            port: node_port_of(service)?,
        }),
        ListenerType::LoadBalancer => Some(Address {
            host: balancer_of(service)?,
            port: listener.port,
        }),
    }
}

/// The address under which a node is reached from outside, or at least from its network.
fn node_address(node: &Node) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let of = |kind: &str| addresses.iter().find(|address| address.type_ == kind);
    let best = of("ExternalIP")
        .or_else(|| of("InternalIP"))
        .or_else(|| of("Hostname"));
    best.map(|address| address.address.clone())
}

/// Why a pod has to be restarted because of what it was told, if it has to be.
pub(super) fn reasons(pod: &Pod, assignment: Option<&Assignment>) -> Vec<String> {
    let annotations = pod.annotations();
    let Some(assignment) = assignment.filter(|_| annotations.contains_key(ASSIGNED)) else {
        return Vec::new();
    };
    let mut reasons = Vec::new();
    // An address that is not known at the moment is no reason: the old one may still be right.
    if assignment.missing.is_empty() && annotations.get(LISTENERS) != Some(&assignment.listeners) {
        reasons.push("AddressChanged".to_owned());
    }
    if annotations.get(NODE_SETTINGS) != Some(&assignment.node_settings) {
        reasons.push("RackChanged".to_owned());
    }
    reasons
}
