//! What the API server finds wrong in a child, said of the field of the wish that it comes of.

use kube::core::Status;

use crate::api::{BrokerAddress, TakhinCluster, TakhinClusterSpec};
use crate::build::{Names, listeners};
use crate::control::error::Error;

/// What helps against a port of the nodes.
const NODE_PORT: &str = "name a port of the nodes that is free, or leave it out: Kubernetes then gives one";

/// What helps against annotations.
const ANNOTATIONS: &str = "keys of annotations are letters, digits, '-', '_' and '.', at most 63, after a prefix such as example.com/";

/// Fields of the StatefulSet, the fields of the wish that they come of, and what helps.
const OF_SET: [(&str, &str, &str); 10] = [
    (
        "spec.template.spec.affinity",
        "spec.scheduling.affinity",
        "correct it, or leave it out: brokers are then kept apart by themselves",
    ),
    (
        "spec.template.spec.nodeSelector",
        "spec.scheduling.nodeSelector",
        "name labels that nodes can have",
    ),
    (
        "spec.template.spec.tolerations",
        "spec.scheduling.tolerations",
        "correct or remove it",
    ),
    (
        "spec.template.spec.topologySpreadConstraints",
        "spec.scheduling.topologySpreadConstraints",
        "correct it, or leave it out: brokers are then spread over zones",
    ),
    (
        "spec.template.spec.priorityClassName",
        "spec.scheduling.priorityClassName",
        "name a PriorityClass that there is",
    ),
    (
        "spec.template.spec.containers[0].resources",
        "spec.resources",
        "correct it; requests may not be above limits",
    ),
    (
        "spec.template.spec.imagePullSecrets",
        "spec.imagePullSecrets",
        "name Secrets of the cluster's namespace",
    ),
    (
        "spec.template.labels",
        "spec.podMetadata.labels",
        "labels are letters, digits, '-', '_' and '.', at most 63",
    ),
    (
        "spec.template.annotations",
        "spec.podMetadata.annotations",
        ANNOTATIONS,
    ),
    (
        "spec.volumeClaimTemplates",
        "spec.storage",
        "name a StorageClass that there is, and a size such as 100Gi",
    ),
];

/// What is wrong in the wish by the words of the API server; `None` for what is no fault of a wish.
pub(super) fn faults(cluster: &TakhinCluster, names: &Names, error: &Error) -> Option<Vec<String>> {
    let status = error.invalid()?;
    let details = status.details.as_ref();
    let causes = details.map_or(&[][..], |details| &details.causes);
    let said: Vec<String> = causes
        .iter()
        .filter_map(|cause| {
            let (place, remedy) = wish(&cluster.spec, names, status, &cause.field)?;
            Some(format!(
                "{place}: Kubernetes refuses {} {} for it: {}: {}; {remedy}",
                details.map_or("", |details| &details.kind),
                details.map_or("", |details| &details.name),
                cause.field,
                cause.message,
            ))
        })
        .collect();
    match said.is_empty() {
        true => Some(vec![error.to_string()]),
        false => Some(said),
    }
}

/// The field of the wish that a field of a child comes of, and what helps.
fn wish(spec: &TakhinClusterSpec, names: &Names, status: &Status, field: &str) -> Option<(String, String)> {
    let details = status.details.as_ref()?;
    match details.kind.as_str() {
        "StatefulSet" => {
            let (_, place, remedy) = OF_SET.iter().find(|(child, ..)| is_under(field, child))?;
            Some(((*place).to_owned(), (*remedy).to_owned()))
        }
        "Service" => of_service(spec, names, &details.name, field),
        "NetworkPolicy" => of_policy(spec, field),
        _ => None,
    }
}

/// Whether a field is another, or lies in it.
fn is_under(field: &str, of: &str) -> bool {
    field
        .strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn of_service(
    spec: &TakhinClusterSpec,
    names: &Names,
    service: &str,
    field: &str,
) -> Option<(String, String)> {
    let annotations = is_under(field, "metadata.annotations");
    if !annotations && !field.ends_with(".nodePort") {
        return None;
    }
    for (at, listener) in spec.listeners.iter().enumerate() {
        let all = names.external_bootstrap(&listener.name);
        let of_broker = all
            .strip_suffix("bootstrap")
            .and_then(|start| service.strip_prefix(start)?.parse::<i32>().ok());
        let place = |part: &str| format!("spec.listeners[{at}].{part}");
        return Some(match of_broker {
            None if service != all => continue,
            _ if annotations => (place("serviceAnnotations"), ANNOTATIONS.to_owned()),
            None => (place("bootstrapNodePort"), NODE_PORT.to_owned()),
            Some(broker) => {
                let of = |address: &BrokerAddress| address.broker == broker;
                let broker = listener.brokers.iter().position(of)?;
                (
                    place(&format!("brokers[{broker}].nodePort")),
                    NODE_PORT.to_owned(),
                )
            }
        });
    }
    None
}

/// Rules of a policy come after those that every cluster has, one for each listener.
fn of_policy(spec: &TakhinClusterSpec, field: &str) -> Option<(String, String)> {
    let rest = field.strip_prefix("spec.ingress[")?;
    let (rule, rest) = rest.split_once(']')?;
    let first = crate::build::POLICY_RULES;
    let listener = rule.parse::<usize>().ok()?.checked_sub(first)?;
    listeners(spec).get(listener)?;
    let part = rest.replacen(".from", "networkPolicyPeers", 1);
    Some((
        format!("spec.listeners[{listener}].{part}"),
        "correct the peer, or remove it: without any, everybody may connect".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is said of a cluster whose child is refused over a field.
    fn said(kind: &str, name: &str, field: &str) -> String {
        let cluster = json!({
            "apiVersion": "takhin.io/v1alpha1", "kind": "TakhinCluster",
            "metadata": { "name": "prod", "namespace": "ns" },
            "spec": {
                "replicas": 3,
                "storage": { "type": "Ephemeral" },
                "listeners": [
                    { "name": "internal", "port": 9092, "type": "Internal" },
                    { "name": "outer", "port": 9094, "type": "NodePort", "brokers": [
                        { "broker": 2, "nodePort": 80 }, { "broker": 1, "nodePort": 81 },
                    ] },
                ],
            },
        });
        let cluster: TakhinCluster = serde_json::from_value(cluster).unwrap();
        let answer = json!({
            "status": "Failure", "code": 422, "reason": "Invalid", "message": "all that is wrong",
            "details": {
                "kind": kind, "name": name,
                "causes": [{ "field": field, "message": "Invalid value: \"odd\"", "reason": "FieldValueInvalid" }],
            },
        });
        let answer: Status = serde_json::from_value(answer).unwrap();
        let error = Error::from(kube::Error::Api(Box::new(answer)));
        let names = Names::of(&cluster, "cluster.local");
        faults(&cluster, &names, &error).unwrap().join("; ")
    }

    #[test]
    fn a_refused_child_is_told_by_field_value_and_remedy_of_the_wish() {
        let names = |broker| format!("prod-outer-{broker}");
        for (kind, name, field, place, remedy) in [
            (
                "StatefulSet",
                "prod".to_owned(),
                "spec.template.spec.affinity.nodeAffinity.x[0].operator",
                "spec.scheduling.affinity: ",
                "correct it",
            ),
            (
                "StatefulSet",
                "prod".to_owned(),
                "spec.template.spec.nodeSelector",
                "spec.scheduling.nodeSelector: ",
                "labels that nodes can have",
            ),
            (
                "StatefulSet",
                "prod".to_owned(),
                "spec.template.spec.containers[0].resources.requests",
                "spec.resources: ",
                "not be above limits",
            ),
            (
                "Service",
                names(1),
                "spec.ports[0].nodePort",
                "spec.listeners[1].brokers[1].nodePort: ",
                "leave it out",
            ),
            (
                "Service",
                "prod-outer-bootstrap".to_owned(),
                "spec.ports[0].nodePort",
                "spec.listeners[1].bootstrapNodePort: ",
                "leave it out",
            ),
            (
                "Service",
                "prod-outer-bootstrap".to_owned(),
                "metadata.annotations",
                "spec.listeners[1].serviceAnnotations: ",
                "keys of annotations",
            ),
            (
                "NetworkPolicy",
                "prod".to_owned(),
                "spec.ingress[3].from[0].ipBlock.cidr",
                "spec.listeners[1].networkPolicyPeers[0].ipBlock.cidr: ",
                "correct the peer",
            ),
        ] {
            let said = said(kind, &name, field);
            assert!(said.starts_with(place), "{said}");
            for word in ["\"odd\"", remedy, field, kind] {
                assert!(said.contains(word), "{word} in {said}");
            }
        }
    }

    #[test]
    fn what_is_in_no_table_is_told_in_the_words_of_the_api_server() {
        for field in ["spec.template.spec.affinityx", "spec.selector"] {
            assert_eq!(
                said("StatefulSet", "prod", field),
                "kubernetes: all that is wrong"
            );
        }
    }

    #[test]
    fn what_is_no_fault_of_the_wish_is_none() {
        let conflict: Status =
            serde_json::from_value(json!({ "status": "Failure", "code": 409, "message": "no" })).unwrap();
        let error = Error::from(kube::Error::Api(Box::new(conflict)));
        assert!(error.invalid().is_none());
    }
}
