//! The CustomResourceDefinitions, from the types, in the form that is installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::api::{PikaSource, TakhinCluster, Topic};

/// Types of Kubernetes that a schema of ours embeds; what is in them is described in Kubernetes' own reference.
const EMBEDDED: &[&str] = &[
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "networkPolicyPeers",
    "metricsPeers",
    "resources",
    "imagePullSecrets",
];

/// Largest list, map and string that an embedded type may have; without bounds a list in it has no cost.
const MAX_EMBEDDED_ITEMS: u64 = 64;

/// What Kubernetes reads as a quantity; without it a wrong one would be refused later, without a word on where it is.
const QUANTITY: &str = "^[+-]?([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";

/// All definitions, in the order in which they are listed everywhere.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![TakhinCluster::crd(), Topic::crd(), PikaSource::crd()]
}

/// The definitions, or the one of a kind, as YAML documents; with `helm` as templates of the chart, which may leave them out
/// and keep them when it is removed.
///
/// # Errors
/// There is no such kind.
pub fn print(kind: Option<&str>, helm: bool) -> Result<String, String> {
    let mut out = String::new();
    for crd in all() {
        if kind.is_none_or(|kind| kind == crd.spec.names.kind) {
            if !out.is_empty() {
                out.push_str("---\n");
            }
            let text = takhin_config::yaml::to_string(&trimmed(&crd)).map_err(|error| error.to_string())?;
            out += &if helm { template(&text) } else { text };
        }
    }
    match kind {
        Some(kind) if out.is_empty() => Err(format!(
            "there is no kind {kind}; there are TakhinCluster, Topic and PikaSource"
        )),
        _ => Ok(out),
    }
}

/// A definition as a template.
fn template(text: &str) -> String {
    let keep = "metadata:\n  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n";
    let text = text.replacen("metadata:\n", keep, 1);
    format!("{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n")
}

/// The definition without what an API server would fill in itself or has no use for.
fn trimmed(crd: &CustomResourceDefinition) -> Value {
    // A definition is plain data.
    let mut value = serde_json::to_value(crd).unwrap_or_default();
    for version in value["spec"]["versions"].as_array_mut().into_iter().flatten() {
        tidy(&mut version["schema"]["openAPIV3Schema"]);
    }
    value
}

/// Goes through the fields of ours, down to embedded types.
fn tidy(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    // A field that may be missing need not also take null: server-side apply tells the two apart. But a map whose last key
    // is taken out by it becomes null, and `config: {}` would be refused.
    if !object.get("additionalProperties").is_some_and(Value::is_object) {
        object.remove("nullable");
    }
    // Not known to Kubernetes, which would warn about them.
    if matches!(
        object.get("format").and_then(Value::as_str),
        Some("uint32" | "uint64" | "uint16")
    ) {
        object.remove("format");
    }
    if let Some(Value::Array(options)) = object.get_mut("enum") {
        options.retain(|option| !option.is_null());
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            if EMBEDDED.contains(&name.as_str()) {
                let description = property.get("description").cloned();
                strip(property, true);
                if let (Some(description), Some(property)) = (description, property.as_object_mut()) {
                    property.insert("description".to_owned(), description);
                }
            } else {
                tidy(property);
            }
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(inner) {
            tidy(inner);
        }
    }
}

/// Takes the descriptions out of an embedded type and bounds its lists. `is_schema` is false for a map of properties,
/// where `description` would be a field.
fn strip(value: &mut Value, is_schema: bool) {
    let Some(object) = value.as_object_mut() else {
        return;
    };
    if !is_schema {
        object.values_mut().for_each(|property| strip(property, true));
        return;
    }
    object.remove("description");
    object.remove("nullable");
    // In what is embedded these are quantities alone.
    if object.get("x-kubernetes-int-or-string").is_some() {
        object.insert("pattern".to_owned(), QUANTITY.into());
    }
    match object.get("type").and_then(Value::as_str) {
        Some("array") => {
            object
                .entry("maxItems")
                .or_insert_with(|| MAX_EMBEDDED_ITEMS.into());
            object
                .entry("x-kubernetes-list-type")
                .or_insert_with(|| "atomic".into());
        }
        Some("object") if object.get("additionalProperties").is_some_and(Value::is_object) => {
            object
                .entry("maxProperties")
                .or_insert_with(|| MAX_EMBEDDED_ITEMS.into());
        }
        _ => {}
    }
    for (name, inner) in object.iter_mut() {
        match name.as_str() {
            "properties" => strip(inner, false),
            "items" | "additionalProperties" => strip(inner, true),
            _ => {}
        }
    }
}
