//! Services, and the addresses that clients are told.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::names::{ADMIN_PORT, KAFKA_PORT, Names, RPC_PORT};
use super::object;
use crate::api::{BrokerAddress, ListenerSpec, ListenerType, TakhinClusterSpec};

/// Where a broker is reached: host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: i32,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The listeners that are wished for.
pub fn listeners(spec: &TakhinClusterSpec) -> Vec<ListenerSpec> {
    if !spec.listeners.is_empty() {
        return spec.listeners.clone();
    }
    vec![ListenerSpec {
        name: "internal".to_owned(),
        port: KAFKA_PORT,
        kind: ListenerType::Internal,
        tls: None,
        authentication: None,
        certificate: None,
        brokers: Vec::new(),
        bootstrap_node_port: None,
        service_annotations: BTreeMap::new(),
        network_policy_peers: Vec::new(),
    }]
}

/// Whether a broker cannot start before the operator has told it its rack and addresses.
pub fn assignment_needed(spec: &TakhinClusterSpec) -> bool {
    spec.rack.is_some()
        || spec
            .listeners
            .iter()
            .any(|listener| listener.kind != ListenerType::Internal)
}

/// The broker's setting `kafka.listeners`, from the listeners that have an address.
pub fn listeners_text(listeners: &[(ListenerSpec, Address)]) -> String {
    let list = listeners.iter().map(|(listener, address)| {
        json!({
            "name": listener.name,
            "bind": format!("0.0.0.0:{}", listener.port),
            "advertise": address.to_string(),
        })
    });
    // JSON is YAML, which is what the setting takes.
    Value::Array(list.collect()).to_string()
}

/// The headless Service, and the one of all ready brokers.
pub fn internal_services(spec: &TakhinClusterSpec, names: &Names) -> Vec<Value> {
    let ports = ports(&listeners(spec));
    let mut headless = object("v1", "Service", &names.headless(), names);
    let mut all = ports.clone();
    all.push(port("rpc", RPC_PORT));
    all.push(port("admin", ADMIN_PORT));
    headless["spec"] = json!({
        "clusterIP": "None",
        // Brokers have to find each other before they are ready.
        "publishNotReadyAddresses": true,
        "selector": names.selector(),
        "ports": all,
    });
    let mut bootstrap = object("v1", "Service", &names.bootstrap(), names);
    bootstrap["spec"] = json!({ "type": "ClusterIP", "selector": names.selector(), "ports": ports });
    vec![headless, bootstrap]
}

fn ports(listeners: &[ListenerSpec]) -> Vec<Value> {
    listeners
        .iter()
        .map(|listener| port(&listener.name, listener.port))
        .collect()
}

fn port(name: &str, number: i32) -> Value {
    json!({ "name": name, "port": number, "targetPort": number, "protocol": "TCP" })
}

/// The Services of listeners that can be reached from outside, for brokers 0 to `brokers`, exclusive.
pub fn external_services(spec: &TakhinClusterSpec, names: &Names, brokers: i32) -> Vec<Value> {
    let mut services = Vec::new();
    for listener in listeners(spec) {
        let kind = match listener.kind {
            ListenerType::Internal => continue,
            ListenerType::NodePort => "NodePort",
            ListenerType::LoadBalancer => "LoadBalancer",
        };
        let mut all = external(&listener, kind, &names.external_bootstrap(&listener.name), names);
        all["spec"]["selector"] = json!(names.selector());
        if let Some(number) = listener.bootstrap_node_port {
            all["spec"]["ports"][0]["nodePort"] = number.into();
        }
        services.push(all);
        for broker in 0..brokers {
            let name = names.external_broker(&listener.name, broker);
            let mut one = external(&listener, kind, &name, names);
            let mut selector = names.selector();
            selector.insert("statefulset.kubernetes.io/pod-name".to_owned(), names.pod(broker));
            one["spec"]["selector"] = json!(selector);
            // Clients come straight to the node that the broker runs on.
            one["spec"]["externalTrafficPolicy"] = "Local".into();
            // A broker that is not ready yet has to be found under the address that it tells.
            one["spec"]["publishNotReadyAddresses"] = true.into();
            if let Some(number) = address_of(&listener, broker).and_then(|address| address.node_port) {
                one["spec"]["ports"][0]["nodePort"] = number.into();
            }
            one["metadata"]["labels"]["takhin.io/broker"] = broker.to_string().into();
            services.push(one);
        }
    }
    services
}

fn external(listener: &ListenerSpec, kind: &str, name: &str, names: &Names) -> Value {
    let mut service = object("v1", "Service", name, names);
    service["metadata"]["labels"]["takhin.io/listener"] = listener.name.as_str().into();
    if !listener.service_annotations.is_empty() {
        service["metadata"]["annotations"] = json!(listener.service_annotations);
    }
    service["spec"] = json!({ "type": kind, "ports": [port(&listener.name, listener.port)] });
    service
}

fn address_of(listener: &ListenerSpec, broker: i32) -> Option<&BrokerAddress> {
    listener.brokers.iter().find(|address| address.broker == broker)
}

/// The port of the nodes that Kubernetes gave a Service of type NodePort.
pub fn node_port_of(service: &k8s_openapi::api::core::v1::Service) -> Option<i32> {
    service.spec.as_ref()?.ports.as_ref()?.first()?.node_port
}

/// The address that a Service of type LoadBalancer was given.
pub fn balancer_of(service: &k8s_openapi::api::core::v1::Service) -> Option<String> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    let first = balancer.ingress.as_ref()?.first()?;
    first.hostname.clone().or_else(|| first.ip.clone())
}

impl ListenerSpec {
    /// The address that clients are told of a broker. `found` is what was found out: host and port of the node or load
    /// balancer. `None` while something is missing.
    pub fn advertised(&self, names: &Names, broker: i32, found: Option<&Address>) -> Option<Address> {
        if self.kind == ListenerType::Internal {
            let host = names.pod_host(&names.pod(broker));
            return Some(Address {
                host,
                port: self.port,
            });
        }
        let given = address_of(self, broker);
        let host = given.and_then(|given| given.advertised_host.clone());
        let port = given.and_then(|given| given.advertised_port);
        Some(Address {
            host: host.or_else(|| found.map(|found| found.host.clone()))?,
            port: port.or_else(|| found.map(|found| found.port))?,
        })
    }
}
