//! Says of pods what a kubelet would: a control plane without nodes starts none.

use anyhow::Result;
use serde_json::{Value, json};

use super::api::Kube;

/// A pod runs at `address`, and is ready or not.
///
/// # Errors
/// There is no such pod.
pub fn runs(kube: &Kube, namespace: &str, pod: &str, address: &str, ready: bool) -> Result<()> {
    let yes = |holds: bool| if holds { "True" } else { "False" };
    let condition = |kind: &str, holds| json!({ "type": kind, "status": yes(holds) });
    let containers = kube
        .get("Pod", namespace, pod)?
        .and_then(|pod| pod.pointer("/spec/containers").cloned())
        .unwrap_or_default();
    let containers = containers.as_array().cloned().unwrap_or_default();
    let statuses = containers.iter().map(|container| {
        json!({
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "restartCount": 0,
            "ready": ready,
            "started": true,
            "state": { "running": {} },
        })
    });
    let status = json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "conditions": [
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ],
        "containerStatuses": statuses.collect::<Vec<Value>>(),
    });
    kube.merge_status("Pod", namespace, pod, &json!({ "status": status }))
        .map(drop)
}

/// The image of a pod's first container cannot be pulled.
///
/// # Errors
/// There is no such pod.
pub fn cannot_pull(kube: &Kube, namespace: &str, pod: &str) -> Result<()> {
    let waiting = json!({ "reason": "ImagePullBackOff", "message": "no such image" });
    let pod_now = kube.get("Pod", namespace, pod)?.unwrap_or_default();
    let container = &pod_now["spec"]["containers"][0];
    let status = json!({
        "phase": "Pending",
        "containerStatuses": [{
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "restartCount": 0,
            "ready": false,
            "started": false,
            "state": { "waiting": waiting },
        }],
    });
    kube.merge_status("Pod", namespace, pod, &json!({ "status": status }))
        .map(drop)
}

/// A pod has a node: what a scheduler would say.
///
/// # Errors
/// It has one already.
pub fn bind(kube: &Kube, namespace: &str, pod: &str, node: &str) -> Result<()> {
    kube.bind(namespace, pod, node)
}

/// A pod's containers have ended, and it is to go: what a kubelet would say in the end.
///
/// # Errors
/// The API server says no.
pub fn ends(kube: &Kube, namespace: &str, pod: &str) -> Result<()> {
    kube.delete_now("Pod", namespace, pod)
}
