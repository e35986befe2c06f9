//! The way from a master before 3.5 to the pod: under which address it lists the pod, and what leads from there to it.

use serde_json::{Value, json};

use super::{CDC_PORT, cdc_selector, object};
use crate::api::{ListingType, PikaListing, PikaSourceSpec};
use crate::build::Address;

/// The port that `takhin-cdc` is listed with where it is told nothing.
const LISTED_PORT: i32 = 21_333;

/// What masters connect to is above the port that they list: from 3.1 on the data set and before it changes, and before 3.1 the
/// data set.
const ABOVE: [(&str, i32); 2] = [("listed-1000", 1000), ("listed-3000", 3000)];

/// The variable in which the pod has the address of its node.
const NODE_ADDRESS: &str = "NODE_ADDRESS";

/// The ports that masters connect to, with names.
fn ports(spec: &PikaSourceSpec) -> [(&'static str, i32); 2] {
    let listed = spec.source.listed_as.as_ref();
    let listed = listed.map_or(LISTED_PORT, |listing| listing.port);
    ABOVE.map(|(name, above)| (name, listed + above))
}

/// The Service that leads to the pod, if there is to be one.
pub fn cdc_service(spec: &PikaSourceSpec, namespace: &str, name: &str) -> Option<Value> {
    let listing = spec.source.listed_as.as_ref()?;
    let is_node = listing.kind == ListingType::NodePort;
    let port = |(name, number): (&str, i32)| {
        let mut port = json!({ "name": name, "port": number, "targetPort": number, "protocol": "TCP" });
        if is_node {
            // The master knows one port and counts from there, so that Kubernetes cannot choose.
            port["nodePort"] = number.into();
        }
        port
    };
    let mut service = object("v1", "Service", namespace, name);
    if !listing.service_annotations.is_empty() {
        service["metadata"]["annotations"] = json!(listing.service_annotations);
    }
    service["spec"] = json!({
        "type": if is_node { "NodePort" } else { "LoadBalancer" },
        "selector": cdc_selector(name),
        "ports": ports(spec).map(port),
        // The pod looks at who connects: whatever stands between must keep the master's address.
        "externalTrafficPolicy": "Local",
        // It is not ready before the master has come.
        "publishNotReadyAddresses": true,
    });
    Some(service)
}

/// Who may connect to the pod; `None` if that is nobody's business.
pub fn cdc_network_policy(spec: &PikaSourceSpec, namespace: &str, name: &str) -> Option<Value> {
    if spec.network_policy.as_ref().is_some_and(|policy| !policy.enabled) {
        return None;
    }
    let port = |number: i32| json!({ "protocol": "TCP", "port": number });
    let mut all = vec![port(CDC_PORT)];
    // Which address the master's name has is not known here; the pod takes connections of the master only.
    all.extend(ports(spec).map(|(_, number)| port(number)));
    let mut policy = object("networking.k8s.io/v1", "NetworkPolicy", namespace, name);
    policy["spec"] = json!({
        "podSelector": { "matchLabels": cdc_selector(name) },
        "policyTypes": ["Ingress"],
        "ingress": [{ "ports": all }],
    });
    Some(policy)
}

impl PikaListing {
    /// Whether the address is that of a load balancer, which has to be there first.
    pub fn waits_for_balancer(&self) -> bool {
        self.kind == ListingType::LoadBalancer && self.host.is_none()
    }

    /// The address that is listed, where it is known before the pod has a node.
    pub(super) fn known(&self, balancer: Option<&str>) -> Option<String> {
        let host = match (&self.host, self.kind) {
            (Some(host), _) => host.clone(),
            (None, ListingType::LoadBalancer) => balancer?.to_owned(),
            (None, ListingType::NodePort) => return None,
        };
        Some(
            Address {
                host,
                port: self.port,
            }
            .to_string(),
        )
    }

    /// Gives the container its ports, and the address of its node where it is listed with that.
    pub(super) fn complete(spec: &PikaSourceSpec, container: &mut Value) {
        let Some(listing) = &spec.source.listed_as else {
            return;
        };
        let mut all = vec![json!({ "name": "admin", "containerPort": CDC_PORT })];
        all.extend(ports(spec).map(|(name, number)| json!({ "name": name, "containerPort": number })));
        container["ports"] = all.into();
        if listing.host.is_none() && listing.kind == ListingType::NodePort {
            container["env"] = json!([{ "name": NODE_ADDRESS, "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } }]);
            let setting = format!("source.listed_as=$({NODE_ADDRESS}):{}", listing.port);
            if let Some(words) = container["args"].as_array_mut() {
                words.extend(["--set".into(), setting.into()]);
            }
        }
    }
}
