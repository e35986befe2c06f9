//! What bounds and names the pods: disruption budget, network policy, service account.

use serde_json::{Value, json};

use super::names::{ADMIN_PORT, MANAGER, Names, RPC_PORT};
use super::{listeners, object};
use crate::api::TakhinClusterSpec;

/// At most one broker away by somebody's will.
pub fn disruption_budget(names: &Names) -> Value {
    let mut budget = object("policy/v1", "PodDisruptionBudget", &names.cluster, names);
    budget["spec"] = json!({
        "maxUnavailable": 1,
        "selector": { "matchLabels": names.selector() },
        // Otherwise a broker that does not come up keeps nodes from being drained.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    budget
}

/// The brokers' account, which may do nothing.
pub fn service_account(names: &Names) -> Value {
    let mut account = object("v1", "ServiceAccount", &names.service_account(), names);
    account["automountServiceAccountToken"] = false.into();
    account
}

/// Rules of a policy before those of the listeners.
pub const POLICY_RULES: usize = 2;

/// Who may connect to brokers; `None` if that is nobody's business.
pub fn network_policy(spec: &TakhinClusterSpec, names: &Names) -> Option<Value> {
    if spec.network_policy.as_ref().is_some_and(|policy| !policy.enabled) {
        return None;
    }
    let port = |port: i32| json!([{ "protocol": "TCP", "port": port }]);
    let brokers = json!({ "podSelector": { "matchLabels": names.selector() } });
    let operators = json!({
        "namespaceSelector": {},
        "podSelector": { "matchLabels": { "app.kubernetes.io/name": MANAGER } },
    });
    let mut ingress = vec![
        json!({ "from": [brokers], "ports": port(RPC_PORT) }),
        // Metrics are scraped from anywhere; what changes something asks for a token.
        json!({ "ports": port(ADMIN_PORT) }),
    ];
    for listener in listeners(spec) {
        ingress.push(match listener.network_policy_peers.is_empty() {
            true => json!({ "ports": port(listener.port) }),
            false => {
                let mut from: Vec<Value> = listener
                    .network_policy_peers
                    .iter()
                    .map(|peer| json!(peer))
                    .collect();
                // The operator is a client too.
                from.push(operators.clone());
                json!({ "from": from, "ports": port(listener.port) })
            }
        });
    }
    let mut policy = object("networking.k8s.io/v1", "NetworkPolicy", &names.cluster, names);
    policy["spec"] = json!({
        "podSelector": { "matchLabels": names.selector() },
        "policyTypes": ["Ingress"],
        "ingress": ingress,
    });
    Some(policy)
}
