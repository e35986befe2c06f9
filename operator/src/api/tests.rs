//! Every rule of the CRDs, offline: accepted as it should be, and refused with its own message.

use std::collections::BTreeSet;

use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::*;

/// What is wrong with a resource, or with a change of one, in the words of the rules.
fn faults(kind: &str, name: &str, spec: &Value, old: Option<&Value>) -> String {
    macro_rules! check {
        ($kind:ty) => {{
            let resource =
                |spec: &Value| -> $kind { <$kind>::new(name, serde_json::from_value(spec.clone()).unwrap()) };
            let checked = match old {
                None => resource(spec).validate_cel(),
                Some(old) => resource(spec).validate_cel_update(&resource(old)),
            };
            checked.map_or_else(|faults| faults.to_string(), |()| String::new())
        }};
    }
    match kind {
        "TakhinCluster" => check!(TakhinCluster),
        "Topic" => check!(Topic),
        _ => check!(PikaSource),
    }
}

fn with(mut spec: Value, path: &str, value: Value) -> Value {
    *spec.pointer_mut(path.rsplit_once('/').unwrap().0).unwrap() = {
        let mut parent = spec.pointer(path.rsplit_once('/').unwrap().0).unwrap().clone();
        let key = path.rsplit_once('/').unwrap().1;
        match value {
            Value::Null => drop(parent.as_object_mut().unwrap().remove(key)),
            value => parent[key] = value,
        }
        parent
    };
    spec
}

fn cluster() -> Value {
    json!({
        "replicas": 3,
        "storage": { "type": "PersistentVolumeClaim", "size": "10Gi", "className": "fast" },
        "listeners": [
            { "name": "internal", "port": 9092, "type": "Internal", "tls": false, "authentication": "None" },
            { "name": "external", "port": 9094, "type": "LoadBalancer" },
        ],
        "config": { "log.retention.ms": "1000" },
    })
}

fn topic() -> Value {
    json!({ "clusterRef": { "name": "prod" }, "topicName": "shop.Orders", "partitions": 6 })
}

fn source() -> Value {
    json!({
        "clusterRef": { "name": "prod" },
        "source": { "host": "pika", "port": 9221, "listedAs": { "type": "NodePort", "port": 29_333 } },
        "sink": { "topic": "profiles" },
        "storage": { "size": "10Gi", "className": "fast" },
    })
}

/// A source with a log, and a volume or none.
fn logged(wal: Value, storage: Value) -> Value {
    with(with(source(), "/storage", storage), "/wal", wal)
}

/// A resource that a rule refuses, or a change to it.
struct Case {
    kind: &'static str,
    name: String,
    spec: Value,
    old: Option<Value>,
}

fn cases() -> Vec<Case> {
    let long = "a".repeat(41);
    let case = |kind, name: &str, spec, old| Case {
        kind,
        name: name.to_owned(),
        spec,
        old,
    };
    let created = |kind, spec| case(kind, "prod", spec, None);
    let changed = |kind, spec, old| case(kind, "prod", spec, Some(old));
    let of = |path: &str, value| with(cluster(), path, value);
    let ephemeral = json!({ "type": "Ephemeral" });
    vec![
        case("TakhinCluster", &long, cluster(), None),
        case("TakhinCluster", "9lives", cluster(), None),
        created("TakhinCluster", of("/listeners/1/port", json!(9092))),
        created("TakhinCluster", of("/listeners/1/port", json!(9644))),
        created("TakhinCluster", of("/listeners/0/name", json!("rpc"))),
        created("TakhinCluster", of("/listeners/0/tls", json!(true))),
        created(
            "TakhinCluster",
            of("/listeners/0/authentication", json!("ScramSha512")),
        ),
        created(
            "TakhinCluster",
            of("/listeners/0/certificate", json!({ "name": "a", "key": "b" })),
        ),
        created("TakhinCluster", of("/config/node.id", json!("7"))),
        created("TakhinCluster", of("/storage/size", Value::Null)),
        created(
            "TakhinCluster",
            of("/storage", json!({ "type": "Ephemeral", "className": "fast" })),
        ),
        changed("TakhinCluster", of("/storage", ephemeral.clone()), cluster()),
        created("TakhinCluster", json!({ "replicas": 2, "storage": ephemeral })),
        changed("TakhinCluster", of("/storage/size", json!("9Gi")), cluster()),
        changed(
            "TakhinCluster",
            of("/storage/className", json!("slow")),
            cluster(),
        ),
        changed("TakhinCluster", of("/storage/className", Value::Null), cluster()),
        changed("TakhinCluster", of("/storage/size", Value::Null), cluster()),
        case(
            "Topic",
            &"a".repeat(250),
            with(topic(), "/topicName", Value::Null),
            None,
        ),
        created("Topic", with(topic(), "/topicName", json!("__hidden"))),
        created("Topic", with(topic(), "/topicName", json!(".."))),
        changed("Topic", with(topic(), "/topicName", json!("other")), topic()),
        changed("Topic", with(topic(), "/topicName", Value::Null), topic()),
        changed("Topic", with(topic(), "/partitions", json!(5)), topic()),
        changed("Topic", with(topic(), "/partitions", Value::Null), topic()),
        changed(
            "Topic",
            with(topic(), "/clusterRef/name", json!("other")),
            topic(),
        ),
    ]
}

fn cases_of_sources() -> Vec<Case> {
    let case = |name: &str, spec, old| Case {
        kind: "PikaSource",
        name: name.to_owned(),
        spec,
        old,
    };
    let created = |spec| case("prod", spec, None);
    let changed = |spec, old| case("prod", spec, Some(old));
    vec![
        case(&"a".repeat(41), source(), None),
        created(with(source(), "/sink/topicPrefix", json!("p"))),
        created(with(source(), "/sink", json!({}))),
        created(with(source(), "/sink/mode", json!("Dual"))),
        changed(with(source(), "/clusterRef/name", json!("other")), source()),
        changed(with(source(), "/storage", Value::Null), source()),
        changed(with(source(), "/storage/deleteOnRemoval", json!(true)), source()),
        changed(with(source(), "/storage/size", json!("9Gi")), source()),
        changed(with(source(), "/storage/className", json!("slow")), source()),
        changed(with(source(), "/storage/className", Value::Null), source()),
        created(with(source(), "/source/listedAs/port", json!(8654))),
        created(logged(json!({ "enabled": true }), Value::Null)),
        created(logged(json!({ "maxSize": "11Gi" }), json!({ "size": "10Gi" }))),
        created(logged(json!({ "maxSize": "1023Ki" }), Value::Null)),
        created(logged(json!({ "maxSize": "1.1Ti" }), Value::Null)),
    ]
}

/// The messages of all rules.
fn rules() -> BTreeSet<String> {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                let rules = map.get("x-kubernetes-validations").and_then(Value::as_array);
                for rule in rules.into_iter().flatten() {
                    into.insert(rule["message"].as_str().expect("a rule has a message").to_owned());
                }
                map.values().for_each(|value| collect(value, into));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, into)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    for crd in crate::crds::all() {
        collect(&serde_json::to_value(crd).unwrap(), &mut all);
    }
    all
}

#[test]
fn every_rule_refuses_what_it_is_for_and_says_so() {
    let mut unproven = rules();
    assert!(unproven.len() > 20);
    for case in cases().into_iter().chain(cases_of_sources()) {
        let said = faults(case.kind, &case.name, &case.spec, case.old.as_ref());
        assert!(!said.is_empty(), "{} {} is accepted", case.kind, case.spec);
        unproven.retain(|rule| !said.contains(rule));
    }
    assert!(unproven.is_empty(), "no case for {unproven:#?}");
}

#[test]
fn what_is_right_is_accepted_and_may_change_as_it_should() {
    let accepted = |kind, spec: &Value, old: Option<&Value>| assert_eq!(faults(kind, "prod", spec, old), "");
    for (kind, spec) in [
        ("TakhinCluster", cluster()),
        (
            "TakhinCluster",
            json!({ "replicas": 1, "storage": { "type": "Ephemeral" } }),
        ),
        ("Topic", topic()),
        ("Topic", json!({ "clusterRef": { "name": "prod" } })),
        ("PikaSource", source()),
        (
            "PikaSource",
            with(source(), "/sink", json!({ "topicPrefix": "p", "mode": "Dual" })),
        ),
    ] {
        accepted(kind, &spec, None);
        accepted(kind, &spec, Some(&spec));
    }
    let larger = with(
        with(cluster(), "/storage/size", json!("20480Mi")),
        "/replicas",
        json!(5),
    );
    accepted("TakhinCluster", &larger, Some(&cluster()));
    accepted(
        "TakhinCluster",
        &with(cluster(), "/listeners", json!([])),
        Some(&cluster()),
    );
    let bare = with(source(), "/source/listedAs", Value::Null);
    accepted("PikaSource", &source(), Some(&bare));
    accepted("PikaSource", &bare, Some(&source()));
    let bare = with(source(), "/storage", Value::Null);
    accepted("PikaSource", &source(), Some(&bare));
    accepted(
        "PikaSource",
        &with(source(), "/storage/size", json!("20480Mi")),
        Some(&source()),
    );
    accepted("Topic", &with(topic(), "/partitions", json!(7)), Some(&topic()));
    let without = with(topic(), "/partitions", Value::Null);
    accepted("Topic", &topic(), Some(&without));
}

#[test]
fn a_map_whose_last_key_was_taken_out_is_empty() {
    let spec = json!({ "clusterRef": { "name": "prod" }, "config": null });
    assert!(
        serde_json::from_value::<TopicSpec>(spec)
            .unwrap()
            .config
            .is_empty()
    );
    let listener = json!({ "name": "a", "port": 9092, "type": "Internal", "serviceAnnotations": null });
    let spec = with(
        with(cluster(), "/config", Value::Null),
        "/listeners",
        json!([listener]),
    );
    let mut spec = spec;
    spec["config"] = Value::Null;
    let spec: TakhinClusterSpec = serde_json::from_value(spec).unwrap();
    assert!(spec.config.is_empty() && spec.listeners[0].service_annotations.is_empty());
}

#[test]
fn definitions_are_small_and_have_bounds() {
    for crd in [TakhinCluster::crd(), Topic::crd(), PikaSource::crd()] {
        let kind = crd.spec.names.kind.clone();
        let text = crate::crds::print(Some(&kind), false).unwrap();
        assert!(text.len() < 100 * 1024, "{kind} has {} bytes", text.len());
        let crd: Value = takhin_config::yaml::from_str(&text).unwrap();
        bounded(
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
            &kind,
        );
    }
    assert!(crate::crds::print(Some("User"), false).is_err());
}

/// Lists have a type and a length, maps a size: a rule over them has a cost that the API server accepts.
fn bounded(schema: &Value, path: &str) {
    match schema["type"].as_str() {
        Some("array") => {
            assert!(schema["maxItems"].is_u64(), "{path} has no maxItems");
            assert!(
                schema["x-kubernetes-list-type"].is_string(),
                "{path} has no list type"
            );
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            assert!(schema["maxProperties"].is_u64(), "{path} has no maxProperties");
        }
        _ => {}
    }
    assert!(
        !matches!(schema["format"].as_str(), Some("uint32" | "uint64")),
        "{path}"
    );
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        bounded(inner, &format!("{path}.{name}"));
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            bounded(&schema[inner], &format!("{path}.{inner}"));
        }
    }
}
