//! Specs that are right in every field, and ones that a rule refuses.

use serde_json::{Value, json};

/// A key that the maps of [`whole`] have.
pub(crate) const KEY: &str = "one.of-them";

/// Fields of types that Kubernetes checks where they are used.
pub(crate) const EMBEDDED: &[&str] = &[
    "affinity",
    "resources",
    "tolerations",
    "topologySpreadConstraints",
    "networkPolicyPeers",
    "metricsPeers",
];

/// A spec that a rule refuses, or a change to it.
pub(super) struct Case {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) spec: Value,
    pub(super) before: Option<Value>,
}

/// Specs that together have every field.
pub(crate) fn whole() -> Vec<(&'static str, Vec<Value>)> {
    let mut ephemeral = cluster();
    ephemeral["storage"] = json!({ "type": "Ephemeral" });
    ephemeral["replicas"] = json!(1);
    let mut prefix = source();
    prefix["sink"] = json!({ "topicPrefix": "profiles", "mode": "Dual" });
    vec![
        ("TakhinCluster", vec![cluster(), ephemeral]),
        ("Topic", vec![topic()]),
        ("PikaSource", vec![source(), prefix]),
    ]
}

fn cluster() -> Value {
    let resources = json!({ "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "memory": "1Gi" } });
    let peers = json!([{ "podSelector": { "matchLabels": { "app": "shop" } } }]);
    let selector = json!({ "matchLabels": { "app": "takhin" } });
    let spread = json!([{
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": selector,
    }]);
    json!({
        "replicas": 3,
        "image": "registry.example/takhin:0.1.0",
        "imagePullPolicy": "IfNotPresent",
        "imagePullSecrets": [{ "name": "registry" }],
        "storage": { "type": "PersistentVolumeClaim", "size": "10Gi", "className": "fast", "deleteOnRemoval": true },
        "listeners": [
            {
                "name": "external", "port": 9094, "type": "NodePort", "tls": false, "authentication": "None",
                "brokers": [{ "broker": 0, "advertisedHost": "kafka.example", "advertisedPort": 9094, "nodePort": 30094 }],
                "bootstrapNodePort": 30090,
                "serviceAnnotations": { KEY: "x" },
                "networkPolicyPeers": peers,
            },
            { "name": "internal", "port": 9092, "type": "Internal" },
        ],
        "rack": { "topologyKey": "topology.kubernetes.io/zone" },
        "config": { KEY: "1000" },
        "resources": resources,
        "scheduling": {
            "required": true,
            "nodeSelector": { KEY: "x" },
            "affinity": { "nodeAffinity": {} },
            "tolerations": [{ "key": "dedicated", "operator": "Exists" }],
            "topologySpreadConstraints": spread,
            "priorityClassName": "high",
        },
        "podMetadata": { "labels": { KEY: "x" }, "annotations": { KEY: "x" } },
        "terminationGracePeriodSeconds": 120,
        "rebalance": { "mode": "Auto" },
        "rollout": { "drainTimeoutSeconds": 60, "timeoutSeconds": 600 },
        "networkPolicy": { "enabled": true, "metricsPeers": peers },
        "topicNamespaces": ["shop"],
    })
}

fn topic() -> Value {
    json!({
        "clusterRef": { "name": "prod", "namespace": "streaming" },
        "topicName": "shop.Orders",
        "partitions": 6,
        "replicationFactor": 3,
        "deletionPolicy": "Retain",
        "config": { KEY: "1000" },
    })
}

fn source() -> Value {
    let listing =
        json!({ "type": "NodePort", "port": 29_333, "host": "node-1", "serviceAnnotations": { KEY: "x" } });
    json!({
        "clusterRef": { "name": "prod", "namespace": "streaming" },
        "source": { "host": "pika", "port": 9221, "passwordSecretRef": { "name": "pika-auth", "key": "password" }, "listedAs": listing },
        "sink": { "topic": "profiles" },
        "networkPolicy": { "enabled": true },
        "startFrom": { "mode": "initial" },
        "storage": { "size": "10Gi", "className": "fast", "deleteOnRemoval": true },
        "wal": { "enabled": true, "maxSize": "4Gi" },
        "paused": false,
        "image": "registry.example/takhin:0.1.0",
        "resources": { "requests": { "cpu": "1", "memory": "1Gi" } },
    })
}

/// A source without these places.
fn sparing(places: &[&str]) -> Value {
    places
        .iter()
        .fold(source(), |spec, place| with(spec, place, Value::Null))
}

/// Whether a value of an enumeration is one that this release refuses by a rule.
pub(super) fn is_refused_by_a_rule(place: &str, value: &Value) -> bool {
    let other_fields = place == "/storage/type";
    other_fields || (place.ends_with("/authentication") && value != "None")
}

/// Whether a place is of a field that a rule refuses altogether.
pub(crate) fn is_refused(place: &str) -> bool {
    place.contains("/certificate/")
}

/// As many items as a list may not have, all different.
pub(super) fn many_items(place: &str, count: u64) -> Vec<Value> {
    let item = |number: u64| match place.rsplit('/').next().unwrap_or_default() {
        "listeners" => json!({ "name": format!("l{number}"), "port": 10_000 + number, "type": "Internal" }),
        "brokers" => json!({ "broker": number }),
        "imagePullSecrets" => json!({ "name": format!("s{number}") }),
        "topicNamespaces" => json!(format!("n{number}")),
        "topologySpreadConstraints" => {
            json!({ "maxSkew": 1, "topologyKey": format!("k{number}"), "whenUnsatisfiable": "ScheduleAnyway" })
        }
        _ => json!({}),
    };
    (0..count).map(item).collect()
}

/// A spec with one place changed; null takes it out.
fn with(mut spec: Value, place: &str, value: Value) -> Value {
    let (parent, name) = place.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = spec.pointer_mut(parent) {
        match (parent, value) {
            (Value::Object(parent), Value::Null) => drop(parent.remove(name)),
            (parent, value) => match name.parse::<usize>() {
                Ok(index) => parent[index] = value,
                Err(_) => parent[name] = value,
            },
        }
    }
    spec
}

/// One case for each rule.
pub(super) fn refused() -> Vec<Case> {
    let case = |kind, name: String, spec| Case {
        kind,
        name,
        spec,
        before: None,
    };
    let long = "a".repeat(41);
    let mut all = vec![
        case("TakhinCluster", long.clone(), cluster()),
        case("TakhinCluster", "9lives".to_owned(), cluster()),
        case("Topic", "a".repeat(250), with(topic(), "/topicName", Value::Null)),
        case("PikaSource", long, source()),
    ];
    let certificate = json!({ "name": "a", "key": "b" });
    let created: [(&'static str, Value, &str, Value); 20] = [
        ("TakhinCluster", cluster(), "/listeners/0/port", json!(9092)),
        ("TakhinCluster", cluster(), "/listeners/0/port", json!(9644)),
        ("TakhinCluster", cluster(), "/listeners/0/name", json!("rpc")),
        ("TakhinCluster", cluster(), "/listeners/0/tls", json!(true)),
        (
            "TakhinCluster",
            cluster(),
            "/listeners/0/authentication",
            json!("ScramSha512"),
        ),
        (
            "TakhinCluster",
            cluster(),
            "/listeners/0/certificate",
            certificate,
        ),
        ("TakhinCluster", cluster(), "/config/node.id", json!("7")),
        ("TakhinCluster", cluster(), "/storage/size", Value::Null),
        (
            "TakhinCluster",
            cluster(),
            "/storage",
            json!({ "type": "Ephemeral", "className": "fast" }),
        ),
        (
            "TakhinCluster",
            cluster(),
            "/storage",
            json!({ "type": "Ephemeral" }),
        ),
        ("Topic", topic(), "/topicName", json!("__hidden")),
        ("Topic", topic(), "/topicName", json!("..")),
        ("PikaSource", source(), "/sink/topicPrefix", json!("p")),
        ("PikaSource", source(), "/sink/topic", Value::Null),
        ("PikaSource", source(), "/sink/mode", json!("Dual")),
        ("PikaSource", source(), "/source/listedAs/port", json!(6654)),
        ("PikaSource", source(), "/storage", Value::Null),
        ("PikaSource", source(), "/wal/maxSize", json!("10.5Gi")),
        ("PikaSource", source(), "/wal/maxSize", json!("1023Ki")),
        ("PikaSource", source(), "/wal/maxSize", json!("1.1Ti")),
    ];
    for (kind, spec, place, value) in created {
        all.push(case(kind, "refused".to_owned(), with(spec, place, value)));
    }
    all.extend(refused_changes());
    all
}

fn refused_changes() -> Vec<Case> {
    let changed: [(&'static str, Value, &str, Value); 17] = [
        (
            "TakhinCluster",
            cluster(),
            "/storage",
            json!({ "type": "Ephemeral" }),
        ),
        ("TakhinCluster", cluster(), "/storage/size", json!("9Gi")),
        ("TakhinCluster", cluster(), "/storage/size", Value::Null),
        ("TakhinCluster", cluster(), "/storage/className", json!("slow")),
        ("TakhinCluster", cluster(), "/storage/className", Value::Null),
        ("Topic", topic(), "/topicName", json!("other")),
        ("Topic", topic(), "/topicName", Value::Null),
        ("Topic", topic(), "/partitions", json!(5)),
        ("Topic", topic(), "/partitions", Value::Null),
        ("Topic", topic(), "/clusterRef/name", json!("other")),
        ("PikaSource", source(), "/clusterRef/name", json!("other")),
        ("PikaSource", source(), "/clusterRef/namespace", Value::Null),
        (
            "PikaSource",
            with(source(), "/wal", Value::Null),
            "/storage",
            Value::Null,
        ),
        ("PikaSource", source(), "/storage/deleteOnRemoval", json!(false)),
        ("PikaSource", source(), "/storage/size", json!("9Gi")),
        ("PikaSource", source(), "/storage/className", json!("slow")),
        ("PikaSource", source(), "/storage/className", Value::Null),
    ];
    let case = |(kind, before, place, value): (&'static str, Value, &str, Value)| Case {
        kind,
        name: "changing".to_owned(),
        spec: with(before.clone(), place, value),
        before: Some(before),
    };
    changed.map(case).into()
}

/// Changes that are as they should be: kind, before, after.
pub(super) fn changes() -> Vec<(&'static str, Value, Value)> {
    let small = |size: &str| json!({ "type": "PersistentVolumeClaim", "size": size });
    vec![
        ("TakhinCluster", cluster(), with(cluster(), "/replicas", json!(1))),
        (
            "TakhinCluster",
            cluster(),
            with(cluster(), "/storage/size", json!("20480Mi")),
        ),
        (
            "TakhinCluster",
            cluster(),
            with(cluster(), "/listeners", json!([])),
        ),
        (
            "TakhinCluster",
            with(cluster(), "/storage", small("1Gi")),
            with(cluster(), "/storage", small("1.5Gi")),
        ),
        ("Topic", topic(), with(topic(), "/partitions", json!(7))),
        ("Topic", with(topic(), "/partitions", Value::Null), topic()),
        ("Topic", topic(), with(topic(), "/replicationFactor", json!(1))),
        ("Topic", topic(), with(topic(), "/config", json!({}))),
        ("PikaSource", source(), with(source(), "/paused", json!(true))),
        ("PikaSource", sparing(&["/storage", "/wal"]), source()),
        ("PikaSource", source(), with(source(), "/wal", Value::Null)),
        // Of masters before 3.1 there is a log without a volume too.
        (
            "PikaSource",
            sparing(&["/storage", "/wal/enabled"]),
            with(sparing(&["/storage"]), "/wal", json!({ "enabled": false })),
        ),
        (
            "PikaSource",
            source(),
            with(source(), "/source/listedAs", Value::Null),
        ),
        (
            "PikaSource",
            source(),
            with(source(), "/source/listedAs/port", json!(29_334)),
        ),
        (
            "PikaSource",
            source(),
            with(source(), "/storage/size", json!("20480Mi")),
        ),
        (
            "PikaSource",
            source(),
            with(source(), "/sink", json!({ "topicPrefix": "p" })),
        ),
    ]
}
