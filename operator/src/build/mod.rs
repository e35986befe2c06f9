//! From the wish to the objects that Kubernetes is to have: pure functions, each object as the JSON that is applied.
//!
//! Only fields that the operator owns are in them: what is left out belongs to others.

mod brokers;
mod cdc;
mod names;
mod node_file;
mod policies;
mod services;

pub use brokers::{Images, broker_set, claim_size};
pub use cdc::{
    CDC_PORT, PIKA_SOURCE_LABEL, Surroundings, cdc_children, cdc_claim, cdc_file, cdc_name,
    cdc_network_policy, cdc_selector, cdc_service, cdc_topics,
};
pub use names::{ADMIN_PORT, KAFKA_PORT, Labels, MANAGER, Names, RPC_PORT, labels};
pub use node_file::{NodeFile, node_file};
pub use policies::{POLICY_RULES, disruption_budget, network_policy, service_account};
pub use services::{
    Address, assignment_needed, balancer_of, external_services, internal_services, listeners, listeners_text,
    node_port_of,
};

use serde_json::{Value, json};

/// Annotation of a child: hash of what was applied. It tells that a field was taken out of the wish.
pub const APPLIED: &str = "takhin.io/applied";

/// Annotation of a broker's pod: what decides over a restart in the node file.
pub const CONFIG_HASH: &str = "takhin.io/config-hash";

/// Annotation of a broker's pod: its listeners with the addresses that clients are told.
pub const LISTENERS: &str = "takhin.io/listeners";

/// Annotation of a broker's pod: everything that is particular to it is there, it may start.
pub const ASSIGNED: &str = "takhin.io/assigned";

/// A short hash of a value: 16 hexadecimal digits. The same value has the same hash in every release.
pub fn hash(value: &Value) -> String {
    // FNV-1a over the text, in which maps are sorted. It guards against nothing but chance.
    let text = value.to_string();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// An object with owner and the hash of itself.
pub fn owned(mut object: Value, owner: &Value) -> Value {
    let hash = hash(&object);
    object["metadata"]["ownerReferences"] = json!([owner]);
    object["metadata"]["annotations"][APPLIED] = hash.into();
    object
}

/// Who applied: begins every object.
pub(crate) fn object(api_version: &str, kind: &str, name: &str, names: &Names) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": { "name": name, "namespace": names.namespace, "labels": names.labels() },
    })
}

/// The ConfigMap with the node file.
pub fn config_map(names: &Names, file: &NodeFile) -> Value {
    let mut map = object("v1", "ConfigMap", &names.config(), names);
    map["data"] = json!({ "takhin.yaml": file.text });
    map
}
