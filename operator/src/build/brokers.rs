//! The StatefulSet of the brokers.

use serde_json::{Map, Value, json};

use super::names::{ADMIN_PORT, Names, RPC_PORT};
use super::node_file::{NodeFile, TOKEN_FILE, VOLUME};
use super::{ASSIGNED, CONFIG_HASH, LISTENERS, listeners, listeners_text, object};
use crate::api::{NODE_SETTINGS, StorageType, TakhinCluster, TakhinClusterSpec};

/// User that brokers run as, and group of their volumes.
const USER: i64 = 65532;

/// Seconds that a broker has for stopping unless the wish says otherwise.
const GRACE_SECONDS: i64 = 120;

/// Seconds that a pod waits to be told its rack and addresses; then its container is started anew.
const ASSIGNMENT_SECONDS: u32 = 120;

/// Images that a wish without its own gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Of the broker.
    pub broker: String,
    /// Of takhin-cdc.
    pub cdc: String,
}

/// The StatefulSet with `replicas` brokers. The pods are replaced by the operator, never by Kubernetes.
pub fn broker_set(
    cluster: &TakhinCluster,
    names: &Names,
    file: &NodeFile,
    images: &Images,
    replicas: i32,
) -> Value {
    let spec = &cluster.spec;
    let delete = spec.storage.delete_on_removal.unwrap_or(false);
    let retention = if delete { "Delete" } else { "Retain" };
    let mut set = object("apps/v1", "StatefulSet", &names.cluster, names);
    set["spec"] = json!({
        "replicas": replicas,
        "serviceName": names.headless(),
        "podManagementPolicy": "Parallel",
        "updateStrategy": { "type": "OnDelete" },
        "revisionHistoryLimit": 3,
        "selector": { "matchLabels": names.selector() },
        "template": template(cluster, names, file, images),
    });
    if let Some(claim) = claim(spec) {
        set["spec"]["volumeClaimTemplates"] = json!([claim]);
        set["spec"]["persistentVolumeClaimRetentionPolicy"] =
            json!({ "whenScaled": retention, "whenDeleted": retention });
    }
    set
}

fn template(cluster: &TakhinCluster, names: &Names, file: &NodeFile, images: &Images) -> Value {
    let spec = &cluster.spec;
    let extra = spec.pod_metadata.clone().unwrap_or_default();
    let mut labels = extra.labels;
    labels.extend(names.pod_labels());
    let mut annotations = extra.annotations;
    annotations.insert(CONFIG_HASH.to_owned(), file.hash.clone());
    if let Some(restart) = cluster
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(crate::api::RESTART))
    {
        annotations.insert(crate::api::RESTART.to_owned(), restart.clone());
    }
    let mut pod = Map::new();
    pod.insert("containers".to_owned(), json!([container(spec, names, images)]));
    if super::assignment_needed(spec) {
        pod.insert("initContainers".to_owned(), json!([init_container(spec, images)]));
    }
    pod.insert("volumes".to_owned(), volumes(spec, names));
    pod.insert("serviceAccountName".to_owned(), names.service_account().into());
    pod.insert("automountServiceAccountToken".to_owned(), false.into());
    pod.insert("enableServiceLinks".to_owned(), false.into());
    let grace = spec.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS);
    pod.insert("terminationGracePeriodSeconds".to_owned(), grace.into());
    pod.insert("securityContext".to_owned(), pod_security());
    if !spec.image_pull_secrets.is_empty() {
        pod.insert("imagePullSecrets".to_owned(), json!(spec.image_pull_secrets));
    }
    scheduling(spec, names, &mut pod);
    json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": pod })
}

fn image(spec: &TakhinClusterSpec, images: &Images) -> Value {
    spec.image.as_deref().unwrap_or(&images.broker).into()
}

/// What Pod Security "restricted" asks of a pod.
pub(super) fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// What Pod Security "restricted" asks of a container.
pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

fn container(spec: &TakhinClusterSpec, names: &Names, images: &Images) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": "admin" },
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        })
    };
    let mut ports: Vec<Value> = listeners(spec)
        .iter()
        .map(|listener| json!({ "name": listener.name, "containerPort": listener.port }))
        .collect();
    ports.push(json!({ "name": "rpc", "containerPort": RPC_PORT }));
    ports.push(json!({ "name": "admin", "containerPort": ADMIN_PORT }));
    let mut container = json!({
        "name": "broker",
        "image": image(spec, images),
        "args": ["start", "--config", "/etc/takhin/config/takhin.yaml"],
        "env": environment(spec, names),
        "ports": ports,
        // Recovery of a large log takes its time: an hour.
        "startupProbe": probe("/livez", 2, 1800),
        "readinessProbe": probe("/readyz", 2, 2),
        // The process only; a lost quorum must not have everybody started again.
        "livenessProbe": probe("/livez", 10, 6),
        // Why it ended, for the status of the pod and of the cluster.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": container_security(),
        "volumeMounts": [
            { "name": "data", "mountPath": VOLUME },
            { "name": "config", "mountPath": "/etc/takhin/config", "readOnly": true },
            { "name": "admin-token", "mountPath": TOKEN_FILE.trim_end_matches("/token"), "readOnly": true },
        ],
    });
    pull_policy(spec, &mut container);
    if let Some(resources) = &spec.resources {
        container["resources"] = json!(resources);
    }
    container
}

fn pull_policy(spec: &TakhinClusterSpec, container: &mut Value) {
    if let Some(policy) = spec.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
}

/// What differs from broker to broker.
fn environment(spec: &TakhinClusterSpec, names: &Names) -> Value {
    let field = |name: &str, path: String| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let annotation = |name: &str| format!("metadata.annotations['{name}']");
    let own_host = names.pod_host("$(POD_NAME)");
    let mut env = vec![
        field("POD_NAME", "metadata.name".to_owned()),
        field(
            "TAKHIN__NODE__ID",
            "metadata.labels['apps.kubernetes.io/pod-index']".to_owned(),
        ),
        json!({ "name": "TAKHIN__RPC__ADVERTISE", "value": format!("{own_host}:{RPC_PORT}") }),
    ];
    if super::assignment_needed(spec) {
        env.push(field("TAKHIN__KAFKA__LISTENERS", annotation(LISTENERS)));
        if spec.rack.is_some() {
            env.push(field("TAKHIN__NODE", annotation(NODE_SETTINGS)));
        }
    } else {
        let all: Vec<_> = listeners(spec)
            .into_iter()
            .map(|listener| {
                let port = listener.port;
                let host = own_host.clone();
                (listener, super::Address { host, port })
            })
            .collect();
        env.push(json!({ "name": "TAKHIN__KAFKA__LISTENERS", "value": listeners_text(&all) }));
    }
    Value::Array(env)
}

/// Waits until the operator has written what is particular to the pod into its annotations.
fn init_container(spec: &TakhinClusterSpec, images: &Images) -> Value {
    let mut container = json!({
        "name": "assignment",
        "image": image(spec, images),
        "args": ["wait-for-file", "/etc/takhin/pod/assigned", "--timeout", format!("{ASSIGNMENT_SECONDS}s")],
        "securityContext": container_security(),
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
        "volumeMounts": [{ "name": "pod", "mountPath": "/etc/takhin/pod", "readOnly": true }],
    });
    pull_policy(spec, &mut container);
    container
}

fn volumes(spec: &TakhinClusterSpec, names: &Names) -> Value {
    let mut volumes = vec![
        json!({ "name": "config", "configMap": { "name": names.config() } }),
        json!({ "name": "admin-token", "secret": { "secretName": names.admin_token(), "defaultMode": 0o440 } }),
    ];
    if super::assignment_needed(spec) {
        let field = json!({ "fieldPath": format!("metadata.annotations['{ASSIGNED}']") });
        volumes.push(json!({
            "name": "pod", "downwardAPI": { "items": [{ "path": "assigned", "fieldRef": field }] }
        }));
    }
    if spec.storage.kind == StorageType::Ephemeral {
        let mut directory = json!({});
        if let Some(size) = &spec.storage.size {
            directory["sizeLimit"] = size.as_str().into();
        }
        volumes.push(json!({ "name": "data", "emptyDir": directory }));
    }
    Value::Array(volumes)
}

/// The size that claims are to have.
pub fn claim_size(spec: &TakhinClusterSpec) -> Option<&str> {
    match spec.storage.kind {
        StorageType::PersistentVolumeClaim => spec.storage.size.as_deref(),
        StorageType::Ephemeral => None,
    }
}

fn claim(spec: &TakhinClusterSpec) -> Option<Value> {
    let size = claim_size(spec)?;
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": "data" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": size } } },
    });
    if let Some(class) = &spec.storage.class_name {
        claim["spec"]["storageClassName"] = class.as_str().into();
    }
    Some(claim)
}

fn scheduling(spec: &TakhinClusterSpec, names: &Names, pod: &mut Map<String, Value>) {
    let wish = spec.scheduling.clone().unwrap_or_default();
    let required = wish.required.unwrap_or(false);
    let selector = json!({ "matchLabels": names.selector() });
    let apart = json!({ "labelSelector": selector, "topologyKey": "kubernetes.io/hostname" });
    let affinity = wish.affinity.map(|affinity| json!(affinity)).unwrap_or_else(|| {
        let rule = match required {
            true => json!({ "requiredDuringSchedulingIgnoredDuringExecution": [apart] }),
            false => {
                json!({ "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100, "podAffinityTerm": apart }] })
            }
        };
        json!({ "podAntiAffinity": rule })
    });
    pod.insert("affinity".to_owned(), affinity);
    let key = spec
        .rack
        .as_ref()
        .map_or("topology.kubernetes.io/zone", |rack| &rack.topology_key);
    let spread = wish
        .topology_spread_constraints
        .map(|own| json!(own))
        .unwrap_or_else(|| {
            json!([{
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": if required { "DoNotSchedule" } else { "ScheduleAnyway" },
                "labelSelector": selector,
            }])
        });
    pod.insert("topologySpreadConstraints".to_owned(), spread);
    if !wish.node_selector.is_empty() {
        pod.insert("nodeSelector".to_owned(), json!(wish.node_selector));
    }
    if !wish.tolerations.is_empty() {
        pod.insert("tolerations".to_owned(), json!(wish.tolerations));
    }
    if let Some(class) = wish.priority_class_name {
        pod.insert("priorityClassName".to_owned(), class.into());
    }
}
