//! The Deployment of `takhin-cdc` for a PikaSource, and its configuration.

mod listing;

pub use listing::{cdc_network_policy, cdc_service};

use serde_json::{Value, json};
use takhin_config::CdcConfig;

use super::brokers::{container_security, pod_security};
use super::names::{Labels, MANAGER, labels};
use crate::api::{PikaListing, PikaSource, PikaSourceSpec, SnapshotMode, TopicMode};
use crate::decide::quantity::bytes;

/// Port of health, metrics and status of `takhin-cdc`.
pub const CDC_PORT: i32 = 9654;

/// Least bytes of a log that takhin-cdc takes.
const MIN_LOG: u128 = 1 << 20;

/// Label of a source's pods.
pub const PIKA_SOURCE_LABEL: &str = "takhin.io/pika-source";

/// Name of Deployment, ConfigMap and ServiceAccount of a source.
pub fn cdc_name(source: &str) -> String {
    format!("{source}-cdc")
}

/// What the pods of a source are selected by.
pub fn cdc_selector(source: &str) -> Labels {
    labels([
        (PIKA_SOURCE_LABEL, source),
        ("app.kubernetes.io/component", "cdc"),
    ])
}

fn cdc_labels(source: &str) -> Labels {
    let mut all = cdc_selector(source);
    all.extend(labels([
        ("app.kubernetes.io/name", "takhin-cdc"),
        ("app.kubernetes.io/instance", source),
        ("app.kubernetes.io/managed-by", MANAGER),
        ("app.kubernetes.io/part-of", "takhin"),
    ]));
    all
}

fn object(api_version: &str, kind: &str, namespace: &str, source: &str) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": { "name": cdc_name(source), "namespace": namespace, "labels": cdc_labels(source) },
    })
}

/// Topics of a source: of data set and changes, which may be one.
pub fn cdc_topics(spec: &PikaSourceSpec) -> (String, String) {
    let sink = &spec.sink;
    match (&sink.topic, &sink.topic_prefix) {
        (Some(topic), _) => (topic.clone(), topic.clone()),
        (None, prefix) => {
            let prefix = prefix.as_deref().unwrap_or_default();
            match sink.mode.unwrap_or_default() {
                TopicMode::Single => (format!("{prefix}.stream"), format!("{prefix}.stream")),
                TopicMode::Dual => (format!("{prefix}.snapshot"), format!("{prefix}.binlog")),
            }
        }
    }
}

/// What a source's children are made of beside the wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings<'a> {
    /// The address of the brokers.
    pub bootstrap: &'a str,
    /// The image, where the wish names none.
    pub image: &'a str,
    /// The collector of spans.
    pub traces: Option<&'a str>,
    /// The address of the load balancer that leads masters to the pod.
    pub balancer: Option<&'a str>,
}

/// The configuration of `takhin-cdc`, in YAML.
pub fn cdc_file((namespace, name): (&str, &str), spec: &PikaSourceSpec, around: Surroundings<'_>) -> Value {
    let mode = spec.snapshot_mode();
    let (snapshot, binlog) = cdc_topics(spec);
    let mut source = json!({
        "host": spec.source.host,
        "port": spec.source.port,
        "cluster": name,
        // Positions of all sources are in one topic of the cluster: two that follow the same master have one each.
        "id": format!("{namespace}/{name}"),
        "on_position_lost": if mode.takes_again() { "resync" } else { "stop" },
    });
    if spec.source.password_secret_ref.is_some() {
        source["password_file"] = "/etc/takhin-cdc/password/password".into();
    }
    let listing = spec.source.listed_as.as_ref();
    if let Some(listed) = listing.and_then(|listing| listing.known(around.balancer)) {
        source["listed_as"] = listed.into();
    }
    let mut sink = json!({ "bootstrap": [around.bootstrap] });
    if snapshot == binlog {
        sink["mode"] = "single".into();
        sink["topic_single"] = snapshot.into();
    } else {
        sink["mode"] = "dual".into();
        sink["topic_snapshot"] = snapshot.into();
        sink["topic_binlog"] = binlog.into();
    }
    let mut telemetry = json!({ "log_format": "json" });
    if let Some(traces) = around.traces {
        telemetry["otlp_endpoint"] = traces.into();
    }
    let mut file = json!({
        "source": source,
        "sink": sink,
        "checkpoint": { "dir": "/var/lib/takhin-cdc" },
        "snapshot": { "mode": data_set(mode) },
        "admin": { "bind": format!("0.0.0.0:{CDC_PORT}") },
        "telemetry": telemetry,
    });
    if let Some(wal) = &spec.wal {
        file["wal"] = json!({ "enabled": wal.enabled.unwrap_or(false) });
    }
    if let Some(size) = log_size(spec) {
        // The units of Kubernetes are not those of the file.
        file["wal"]["max_size"] = size.to_string().into();
    }
    file
}

/// The mode, as the file of takhin-cdc has it: `when_needed` is `initial` where a lost position has the data set taken again, and
/// files that have always said it so stay as they are, and with them their pods.
fn data_set(mode: SnapshotMode) -> &'static str {
    match mode {
        SnapshotMode::WhenNeeded => SnapshotMode::Initial.name(),
        mode => mode.name(),
    }
}

/// Most bytes of the log, where that is another number than takhin-cdc's own: a volume that the log fills has no room for positions
/// either, so that one of three quarters of it is the largest unless the wish says otherwise.
fn log_size(spec: &PikaSourceSpec) -> Option<u128> {
    if let Some(wished) = spec.wal.as_ref().and_then(|wal| wal.max_size.as_deref()) {
        return bytes(wished);
    }
    let volume = bytes(&spec.storage.as_ref()?.size)?;
    let size = (volume / 4 * 3).max(MIN_LOG);
    (size < CdcConfig::default().wal.max_size.as_u64().into()).then_some(size)
}

/// ServiceAccount, ConfigMap and Deployment of a source.
///
/// # Errors
/// The configuration cannot be written as YAML.
pub fn cdc_children(
    source: &PikaSource,
    namespace: &str,
    name: &str,
    around: Surroundings<'_>,
) -> Result<[Value; 3], String> {
    let spec = &source.spec;
    let file = cdc_file((namespace, name), spec, around);
    let text = takhin_config::yaml::to_string(&file).map_err(|error| error.to_string())?;
    let mut account = object("v1", "ServiceAccount", namespace, name);
    account["automountServiceAccountToken"] = false.into();
    let mut config = object("v1", "ConfigMap", namespace, name);
    config["data"] = json!({ "cdc.yaml": text });
    let mut deployment = object("apps/v1", "Deployment", namespace, name);
    deployment["spec"] = json!({
        "replicas": if spec.paused.unwrap_or(false) { 0 } else { 1 },
        // Two readers of one replication stream would end each other's.
        "strategy": { "type": "Recreate" },
        "revisionHistoryLimit": 3,
        "selector": { "matchLabels": cdc_selector(name) },
        "template": {
            "metadata": {
                "labels": cdc_labels(name),
                "annotations": { super::CONFIG_HASH: super::hash(&file) },
            },
            "spec": pod(spec, name, spec.image.as_deref().unwrap_or(around.image)),
        },
    });
    Ok([account, config, deployment])
}

/// The claim of a source that is to have a volume. Who owns it depends on what is to become of it.
pub fn cdc_claim(spec: &PikaSourceSpec, namespace: &str, name: &str) -> Option<Value> {
    let storage = spec.storage.as_ref()?;
    let mut claim = object("v1", "PersistentVolumeClaim", namespace, name);
    claim["spec"] = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": storage.size } },
    });
    if let Some(class) = &storage.class_name {
        claim["spec"]["storageClassName"] = class.clone().into();
    }
    Some(claim)
}

fn pod(spec: &PikaSourceSpec, name: &str, image: &str) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": "admin" },
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        })
    };
    let mut mounts = vec![
        json!({ "name": "config", "mountPath": "/etc/takhin-cdc/config", "readOnly": true }),
        json!({ "name": "data", "mountPath": "/var/lib/takhin-cdc" }),
    ];
    let mut volumes = vec![
        json!({ "name": "config", "configMap": { "name": cdc_name(name) } }),
        match spec.storage {
            Some(_) => json!({ "name": "data", "persistentVolumeClaim": { "claimName": cdc_name(name) } }),
            // Positions are kept in a topic too, which a new pod goes on from.
            None => json!({ "name": "data", "emptyDir": {} }),
        },
    ];
    if let Some(password) = &spec.source.password_secret_ref {
        mounts.push(json!({ "name": "password", "mountPath": "/etc/takhin-cdc/password", "readOnly": true }));
        let items = json!([{ "key": password.key, "path": "password" }]);
        volumes.push(json!({
            "name": "password",
            "secret": { "secretName": password.name, "items": items, "defaultMode": 0o440 },
        }));
    }
    let mut container = json!({
        "name": "cdc",
        "image": image,
        "command": ["/usr/local/bin/takhin-cdc"],
        "args": ["--config", "/etc/takhin-cdc/config/cdc.yaml"],
        "ports": [{ "name": "admin", "containerPort": CDC_PORT }],
        "readinessProbe": probe("/readyz", 5, 2),
        // The process only: a source that does not answer is no reason to start again.
        "livenessProbe": probe("/livez", 10, 6),
        // Why it ended, for the status of the pod and of the source.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": container_security(),
        "volumeMounts": mounts,
    });
    PikaListing::complete(spec, &mut container);
    if let Some(resources) = &spec.resources {
        container["resources"] = json!(resources);
    }
    json!({
        "serviceAccountName": cdc_name(name),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 60,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": volumes,
    })
}
