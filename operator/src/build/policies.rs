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

/// Who may connect to brokers; `None` if that is nobody's business. `home` is the namespace of the operator's own pods; where
/// it does not run in a pod, or knows no namespace, pods of any namespace with its name are let in.
pub fn network_policy(spec: &TakhinClusterSpec, names: &Names, home: Option<&str>) -> Option<Value> {
    let wish = spec.network_policy.as_ref();
    if wish.is_some_and(|policy| !policy.enabled) {
        return None;
    }
    let port = |port: i32| json!([{ "protocol": "TCP", "port": port }]);
    let brokers = json!({ "podSelector": { "matchLabels": names.selector() } });
    let operators = operators(home);
    let mut ingress = vec![json!({ "from": [brokers], "ports": port(RPC_PORT) })];
    ingress.push(match wish.and_then(|policy| policy.metrics_peers.as_ref()) {
        // Metrics are scraped from anywhere; what changes something asks for a token.
        None => json!({ "ports": port(ADMIN_PORT) }),
        // Probes need no peer: a pod's own node may always connect.
        Some(peers) => {
            let mut from = vec![brokers, operators.clone()];
            from.extend(peers.iter().map(|peer| json!(peer)));
            json!({ "from": from, "ports": port(ADMIN_PORT) })
        }
    });
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

/// The operator's pods. A label of a pod alone can be had by anybody; Kubernetes itself sets the one of a namespace.
fn operators(home: Option<&str>) -> Value {
    json!({
        "namespaceSelector": match home {
            Some(home) => json!({ "matchLabels": { "kubernetes.io/metadata.name": home } }),
            None => json!({}),
        },
        "podSelector": { "matchLabels": { "app.kubernetes.io/name": MANAGER } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who may connect to each port, where the operator's namespace is `home`; null where everybody may.
    fn let_in(spec: Value, home: Option<&str>) -> Vec<(i64, Value)> {
        let spec: TakhinClusterSpec = serde_json::from_value(spec).unwrap();
        let names = Names {
            namespace: "streaming".to_owned(),
            cluster: "prod".to_owned(),
            domain: "cluster.local".to_owned(),
        };
        let policy = network_policy(&spec, &names, home).unwrap();
        let rules = policy["spec"]["ingress"].as_array().unwrap().iter();
        rules
            .map(|rule| {
                let port = rule["ports"][0]["port"].as_i64().unwrap();
                (port, rule["from"].clone())
            })
            .collect()
    }

    fn spec(policy: Value) -> Value {
        json!({
            "replicas": 1,
            "storage": { "type": "Ephemeral" },
            "listeners": [{
                "name": "internal", "port": 9092, "type": "Internal",
                "networkPolicyPeers": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }],
            }],
            "networkPolicy": policy,
        })
    }

    #[test]
    fn the_operator_is_known_by_its_namespace() {
        let operator = |namespaces: Value| {
            json!({
                "namespaceSelector": namespaces,
                "podSelector": { "matchLabels": { "app.kubernetes.io/name": "takhin-operator" } },
            })
        };
        let its_own = operator(json!({ "matchLabels": { "kubernetes.io/metadata.name": "takhin-system" } }));
        let policy = json!({ "enabled": true, "metricsPeers": [] });
        for (home, expected) in [(Some("takhin-system"), its_own), (None, operator(json!({})))] {
            let rules = let_in(spec(policy.clone()), home);
            assert_eq!(rules[1].0, 9644);
            assert_eq!(rules[1].1[1], expected);
            assert_eq!(rules[2].0, 9092);
            assert_eq!(rules[2].1[1], expected);
        }
    }

    #[test]
    fn metrics_are_for_everybody_or_for_those_that_are_named() {
        let of_admin = |policy: Value| let_in(spec(policy), Some("takhin-system")).remove(1);
        assert_eq!(of_admin(json!({ "enabled": true })), (9644, Value::Null));
        let (_, nobody_else) = of_admin(json!({ "enabled": true, "metricsPeers": [] }));
        let nobody_else = nobody_else.as_array().unwrap().clone();
        assert_eq!(
            nobody_else[0],
            json!({
                "podSelector": {
                    "matchLabels": { "takhin.io/cluster": "prod", "app.kubernetes.io/component": "broker" },
                },
            })
        );
        assert_eq!(nobody_else.len(), 2, "brokers and the operator");
        let peer = json!({ "namespaceSelector": { "matchLabels": { "team": "watch" } } });
        let (_, named) = of_admin(json!({ "enabled": true, "metricsPeers": [peer.clone()] }));
        let mut expected = nobody_else;
        expected.push(peer);
        assert_eq!(named, Value::from(expected));
    }
}
