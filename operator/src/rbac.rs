//! What the operator may do: one table, from which the chart's roles and the plain manifests come.

use serde_json::{Value, json};

/// Where a rule is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// In each namespace that is watched.
    Watched,
    /// In the whole Kubernetes cluster, whatever is watched.
    Everywhere,
    /// In the operator's own namespace.
    Own,
}

/// One rule: API group, resources, verbs.
type Rule = (
    Scope,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const RULES: &[Rule] = &[
    // What takes the finalizers from Topics: roles go with their namespace, often before the Topics in it, and without this
    // nobody could let the namespace go. Finalizers are in the metadata.
    (
        Scope::Everywhere,
        "takhin.io",
        &["topics"],
        &["list", "watch", "patch"],
    ),
    (
        Scope::Everywhere,
        "takhin.io",
        &["takhinclusters"],
        &["list", "watch"],
    ),
    // Whether it goes: a Topic in it is then not held up.
    (Scope::Everywhere, "", &["namespaces"], &["get"]),
    // A PikaSource asks for its cluster.
    (Scope::Watched, "takhin.io", &["takhinclusters"], &["get"]),
    (Scope::Watched, "takhin.io", &["pikasources"], &["list", "watch"]),
    (
        Scope::Watched,
        "takhin.io",
        &["takhinclusters/status", "topics/status", "pikasources/status"],
        &["patch"],
    ),
    (
        Scope::Watched,
        "apps",
        &["statefulsets"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    (
        Scope::Watched,
        "apps",
        &["deployments"],
        &["get", "list", "watch", "create", "patch"],
    ),
    (
        Scope::Watched,
        "",
        &["services"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    (
        Scope::Watched,
        "",
        &["configmaps"],
        &["get", "list", "watch", "create", "patch"],
    ),
    (
        Scope::Watched,
        "",
        &["serviceaccounts"],
        &["get", "create", "patch"],
    ),
    // The token of the admin API is made, and its key again if somebody takes it out; passwords are looked for.
    (Scope::Watched, "", &["secrets"], &["get", "create", "patch"]),
    (
        Scope::Watched,
        "",
        &["pods"],
        &["list", "watch", "patch", "delete"],
    ),
    (
        Scope::Watched,
        "",
        &["persistentvolumeclaims"],
        &["get", "list", "watch", "create", "patch"],
    ),
    (
        Scope::Watched,
        "policy",
        &["poddisruptionbudgets"],
        &["get", "list", "watch", "create", "patch"],
    ),
    (
        Scope::Watched,
        "networking.k8s.io",
        &["networkpolicies"],
        &["get", "create", "patch", "delete"],
    ),
    (Scope::Watched, "events.k8s.io", &["events"], &["create", "patch"]),
    // Why no pod is made for a StatefulSet is told in events only.
    (Scope::Watched, "", &["events"], &["list"]),
    // Racks, and the addresses of nodes for listeners of type NodePort.
    (Scope::Everywhere, "", &["nodes"], &["get"]),
    // Whether volumes may grow.
    (Scope::Everywhere, "storage.k8s.io", &["storageclasses"], &["get"]),
    (
        Scope::Own,
        "coordination.k8s.io",
        &["leases"],
        &["get", "create", "update"],
    ),
];

fn rules(scope: Scope) -> Value {
    let of_scope = RULES.iter().filter(|(of, ..)| *of == scope);
    let rule = |(_, group, resources, verbs): &Rule| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    Value::Array(of_scope.map(rule).collect())
}

/// The rules by scope, for the chart: `watched`, `everywhere`, `own`.
pub fn table() -> Value {
    json!({
        "watched": rules(Scope::Watched),
        "everywhere": rules(Scope::Everywhere),
        "own": rules(Scope::Own),
    })
}

/// The operator in namespace `takhin-system`, for all namespaces, as plain objects.
pub fn manifests() -> Vec<Value> {
    let name = crate::build::MANAGER;
    let namespace = "takhin-system";
    let labels = json!({ "app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "takhin" });
    let meta = |namespaced: bool| {
        let mut meta = json!({ "name": name, "labels": labels });
        if namespaced {
            meta["namespace"] = namespace.into();
        }
        meta
    };
    let binding = |kind: &str, role: &str, namespaced: bool| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": meta(namespaced),
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": namespace }],
        })
    };
    let mut everywhere = rules(Scope::Watched);
    if let (Value::Array(all), Value::Array(more)) = (&mut everywhere, rules(Scope::Everywhere)) {
        all.extend(more);
    }
    let role = |kind: &str, rules: Value, namespaced: bool| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": meta(namespaced),
            "rules": rules,
        })
    };
    let space = json!({
        "name": namespace,
        "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
    });
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": space }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(true) }),
        role("ClusterRole", everywhere, false),
        binding("ClusterRoleBinding", "ClusterRole", false),
        role("Role", rules(Scope::Own), true),
        binding("RoleBinding", "Role", true),
        deployment(&meta(true), &labels),
    ]
}

fn deployment(meta: &Value, labels: &Value) -> Value {
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let probe = |path: &str| json!({ "httpGet": { "path": path, "port": "http" }, "periodSeconds": 5, "timeoutSeconds": 3 });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app.kubernetes.io/name": crate::build::MANAGER } },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "serviceAccountName": crate::build::MANAGER,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [{
                        "name": "operator",
                        "image": format!("takhin/takhin-operator:{}", env!("CARGO_PKG_VERSION")),
                        "args": ["run"],
                        "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace")],
                        "ports": [{ "name": "http", "containerPort": 8080 }],
                        "livenessProbe": probe("/livez"),
                        "readinessProbe": probe("/readyz"),
                        "resources": {
                            "requests": { "cpu": "50m", "memory": "64Mi" },
                            "limits": { "memory": "256Mi" },
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": { "drop": ["ALL"] },
                        },
                    }],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_is_wider_than_its_words() {
        for (scope, group, resources, verbs) in RULES {
            let all = resources.iter().chain(*verbs);
            assert!(
                all.clone().all(|word| !word.contains('*')),
                "{group} {resources:?}"
            );
            assert!(!verbs.contains(&"escalate") && !verbs.contains(&"bind"));
            let lists_secrets =
                resources.contains(&"secrets") && (verbs.contains(&"list") || verbs.contains(&"watch"));
            assert!(!lists_secrets, "{scope:?}");
        }
    }
}
