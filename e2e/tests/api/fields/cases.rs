//! Specs that are well-formed and cannot be, and what has to be said of them.

use serde_json::{Value, json};

/// One of them.
pub(super) struct Case {
    pub(super) kind: &'static str,
    /// The field that it is for.
    pub(super) place: &'static str,
    pub(super) spec: Value,
    /// Words of the condition that says so.
    pub(super) words: &'static [&'static str],
}

pub(super) fn all() -> Vec<Case> {
    let parts = [
        of_clusters(),
        of_pods(),
        of_listeners(),
        of_topics(),
        of_sources(),
    ];
    parts.into_iter().flatten().collect()
}

/// A cluster of one broker with these fields.
fn cluster(place: &'static str, mut spec: Value, words: &'static [&'static str]) -> Case {
    spec["replicas"] = json!(1);
    if spec["storage"].is_null() {
        spec["storage"] = json!({ "type": "Ephemeral" });
    }
    Case {
        kind: "TakhinCluster",
        place,
        spec,
        words,
    }
}

fn of_clusters() -> Vec<Case> {
    let storage = json!({ "type": "PersistentVolumeClaim", "size": "1Gi", "className": "Bad_Class" });
    let unknown = json!({ "config": { "log.retention.msx": "1" } });
    let wrong = json!({ "config": { "log.retention.ms": "soon" } });
    vec![
        cluster(
            "/storage/className",
            json!({ "storage": storage }),
            &["storageClassName", "Bad_Class"],
        ),
        cluster(
            "/config/one.of-them",
            unknown,
            &["log.retention.msx", "did you mean"],
        ),
        cluster("/config/one.of-them", wrong, &["log.retention.ms", "soon"]),
    ]
}

/// What comes of it is a StatefulSet that Kubernetes refuses, or one without pods.
fn of_pods() -> Vec<Case> {
    let scheduling = |field: &str, value: Value| json!({ "scheduling": { field: value } });
    let metadata = |field: &str, value: Value| json!({ "podMetadata": { field: value } });
    let expression = json!({ "matchExpressions": [{ "key": "a", "operator": "Nonsense", "values": ["b"] }] });
    let required =
        json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [expression] } });
    let spread = json!([{ "maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway" }]);
    vec![
        cluster(
            "/resources",
            json!({ "resources": too_large() }),
            &["spec.resources: ", "2Gi", "memory limit", "not be above limits"],
        ),
        cluster(
            "/scheduling/nodeSelector/one.of-them",
            scheduling("nodeSelector", json!({ "disk": "a b" })),
            &["spec.scheduling.nodeSelector: ", "a b", "name labels"],
        ),
        cluster(
            "/scheduling/affinity",
            scheduling("affinity", json!({ "nodeAffinity": required })),
            &["spec.scheduling.affinity: ", "Nonsense", "correct it"],
        ),
        cluster(
            "/scheduling/tolerations",
            scheduling("tolerations", json!([{ "key": "a", "operator": "Nonsense" }])),
            &["spec.scheduling.tolerations: ", "Nonsense", "correct or remove"],
        ),
        cluster(
            "/scheduling/topologySpreadConstraints",
            scheduling("topologySpreadConstraints", spread),
            &[
                "spec.scheduling.topologySpreadConstraints: ",
                "maxSkew",
                "0",
                "correct it",
            ],
        ),
        cluster(
            "/scheduling/priorityClassName",
            scheduling("priorityClassName", json!("nowhere")),
            &["PriorityClass", "nowhere"],
        ),
        cluster(
            "/podMetadata/labels/one.of-them",
            metadata("labels", json!({ "team": "a b" })),
            &["spec.podMetadata.labels: ", "a b", "labels are"],
        ),
        cluster(
            "/podMetadata/annotations",
            metadata("annotations", json!({ "a b": "x" })),
            &["spec.podMetadata.annotations: ", "a b", "keys of annotations"],
        ),
    ]
}

/// What comes of it is a Service or a NetworkPolicy that Kubernetes refuses.
fn of_listeners() -> Vec<Case> {
    let external = |field: &str, value: Value| {
        let mut listener = json!({ "name": "external", "port": 9094, "type": "NodePort" });
        listener[field] = value;
        json!({ "listeners": [listener] })
    };
    vec![
        cluster(
            "/listeners/0/serviceAnnotations",
            external("serviceAnnotations", json!({ "a b": "x" })),
            &[
                "spec.listeners[0].serviceAnnotations: ",
                "a b",
                "keys of annotations",
            ],
        ),
        cluster(
            "/listeners/0/bootstrapNodePort",
            external("bootstrapNodePort", json!(80)),
            &[
                "spec.listeners[0].bootstrapNodePort: ",
                "80",
                "30000-32767",
                "leave it out",
            ],
        ),
        cluster(
            "/listeners/0/brokers/0/nodePort",
            external("brokers", json!([{ "broker": 0, "nodePort": 80 }])),
            &[
                "spec.listeners[0].brokers[0].nodePort: ",
                "80",
                "30000-32767",
                "leave it out",
            ],
        ),
        cluster(
            "/listeners/0/networkPolicyPeers",
            external(
                "networkPolicyPeers",
                json!([{ "ipBlock": { "cidr": "10.0.0.0/99" } }]),
            ),
            &[
                "spec.listeners[0].networkPolicyPeers[0].",
                "10.0.0.0/99",
                "correct the peer",
            ],
        ),
        cluster(
            "/networkPolicy/metricsPeers",
            json!({ "networkPolicy": {
                "enabled": true,
                "metricsPeers": [{ "ipBlock": { "cidr": "10.0.0.0/98" } }],
            } }),
            &["cidr", "10.0.0.0/98"],
        ),
    ]
}

/// Those of a cluster "prod" with one broker, beside others.
fn of_topics() -> Vec<Case> {
    let topic = |place, field: &str, value: Value, words| {
        let mut spec = json!({ "clusterRef": { "name": "prod" } });
        spec[field] = value;
        Case {
            kind: "Topic",
            place,
            spec,
            words,
        }
    };
    vec![
        topic(
            "/clusterRef/name",
            "clusterRef",
            json!({ "name": "nowhere" }),
            &["spec.clusterRef: ", "TakhinCluster nowhere", "create it"],
        ),
        topic(
            "/clusterRef/namespace",
            "clusterRef",
            json!({ "name": "prod", "namespace": "nowhere" }),
            &["namespace nowhere"],
        ),
        topic(
            "/config/one.of-them",
            "config",
            json!({ "retention.ms": "soon" }),
            &["retention.ms", "soon"],
        ),
        topic(
            "/config/one.of-them",
            "config",
            json!({ "retention.msx": "1" }),
            &["retention.msx"],
        ),
        topic("/replicationFactor", "replicationFactor", json!(3), &["3", "1"]),
    ]
}

fn of_sources() -> Vec<Case> {
    let source = |place, field: &str, value: Value, words| {
        let mut spec = json!({
            "clusterRef": { "name": "prod" },
            "source": { "host": "pika", "port": 9221 },
            "sink": { "topic": "profiles" },
        });
        spec[field] = value;
        Case {
            kind: "PikaSource",
            place,
            spec,
            words,
        }
    };
    let with = |field: &str, value: Value| {
        let mut upstream = json!({ "host": "pika", "port": 9221 });
        upstream[field] = value;
        upstream
    };
    let listing = json!({ "type": "LoadBalancer", "port": 29_333, "serviceAnnotations": { "a b": "x" } });
    vec![
        source(
            "/clusterRef/name",
            "clusterRef",
            json!({ "name": "nowhere" }),
            &["spec.clusterRef: ", "TakhinCluster nowhere", "create it"],
        ),
        source(
            "/clusterRef/namespace",
            "clusterRef",
            json!({ "name": "prod", "namespace": "nowhere" }),
            &["clusterRef.namespace", "namespace nowhere", "watchNamespaces"],
        ),
        source(
            "/source/passwordSecretRef/name",
            "source",
            with(
                "passwordSecretRef",
                json!({ "name": "nowhere", "key": "password" }),
            ),
            &["passwordSecretRef", "Secret nowhere"],
        ),
        source(
            "/source/listedAs/serviceAnnotations",
            "source",
            with("listedAs", listing),
            &["annotations", "a b"],
        ),
        source(
            "/resources",
            "resources",
            too_large(),
            &["resources.requests", "2Gi", "memory limit"],
        ),
        source(
            "/storage/className",
            "storage",
            json!({ "size": "1Gi", "className": "Bad_Class" }),
            &["storageClassName", "Bad_Class"],
        ),
    ]
}

/// More than the limit.
fn too_large() -> Value {
    json!({ "requests": { "memory": "2Gi" }, "limits": { "memory": "1Gi" } })
}
