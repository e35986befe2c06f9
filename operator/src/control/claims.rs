//! Claims of volumes: what they wait for, and how they grow.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimCondition, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::context::Context;
use super::error::Error;
use super::metrics;
use crate::build::MANAGER;
use crate::decide::quantity::bytes;

/// Why claims get no volume however long one waits: what they ask for is not there. They keep their class, so that a wrong
/// one is mended by making it, or by other claims.
pub(super) async fn unprovided<'a>(
    context: &Context,
    claims: impl IntoIterator<Item = &'a PersistentVolumeClaim>,
) -> Result<Option<String>, Error> {
    let Some(claim) = claims.into_iter().find(|claim| is_pending(claim)) else {
        return Ok(None);
    };
    let class = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.as_deref());
    // A claim without a class gets the default one from the API server, also later.
    let Some(class) = class else {
        return Ok(Some(
            "it names no storage class, and none is the default: make one the default".to_owned(),
        ));
    };
    let api: Api<StorageClass> = Api::all(context.client.clone());
    // The empty class stands for volumes that somebody makes by hand.
    if class.is_empty() || api.get_opt(class).await?.is_some() {
        return Ok(None);
    }
    Ok(Some(format!(
        "there is no storage class {class}: make it, or delete resource and claims and make it with another one"
    )))
}

/// Whether a claim waits for a volume.
pub(super) fn is_pending(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending")
}

/// Whether a claim is to go: its volume goes with the end of the pod that uses it.
pub(super) fn is_leaving(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.deletion_timestamp.is_some()
}

/// Why what is on a volume is gone, or will be: reason and message, with what to do.
pub(super) fn endangered(claim: &PersistentVolumeClaim) -> Option<(&'static str, String)> {
    let name = claim.name_any();
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let volume = volume.unwrap_or("it had");
    if is_leaving(claim) {
        let message = format!(
            "claim {name} is being deleted, and goes with its volume when no pod uses it any more: to keep what is on it, set \
             persistentVolumeReclaimPolicy of PersistentVolume {volume} to Retain before; to begin anew with an empty one, \
             delete the pod"
        );
        return Some(("VolumeTerminating", message));
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    (phase == Some("Lost")).then(|| {
        let message = format!(
            "claim {name} has lost its volume, the PersistentVolume {volume} is gone: make that again from what is left of it, or \
             delete the claim and then the pod, which begins anew with an empty volume"
        );
        ("VolumeLost", message)
    })
}

/// Has a claim ask for a larger volume. Returns why the API server refuses that, such as a quota, if it does: nothing else need
/// wait for it.
pub(super) async fn enlarge(
    api: &Api<PersistentVolumeClaim>,
    claim: &PersistentVolumeClaim,
    size: &str,
) -> Result<Option<String>, Error> {
    let patch = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
    let parameters = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    metrics::patched("PersistentVolumeClaim");
    let done = api
        .patch(&claim.name_any(), &parameters, &Patch::Merge(&patch))
        .await;
    match done.map_err(Error::from) {
        Ok(_) => Ok(None),
        Err(error) if error.is_refusal() => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Whether the class of a claim lets volumes grow.
pub(super) async fn may_grow(context: &Context, claim: &PersistentVolumeClaim) -> Result<bool, Error> {
    let Some(class) = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.clone())
    else {
        return Ok(false);
    };
    let api: Api<StorageClass> = Api::all(context.client.clone());
    let found = api.get_opt(&class).await?;
    Ok(found
        .and_then(|class| class.allow_volume_expansion)
        .unwrap_or(false))
}

/// Whether a claim has its volume.
pub(super) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// Size that a claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> Option<u128> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    bytes(&requests.get("storage")?.0)
}

/// Size of the volume that a claim has.
pub(super) fn capacity(claim: &PersistentVolumeClaim) -> Option<u128> {
    bytes(&claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0)
}

/// Whether the file system waits for the next start of the pod.
pub(super) fn needs_restart(claim: &PersistentVolumeClaim) -> bool {
    resize_pending(claim).is_some()
}

/// Whether the file system waits for the end of this pod. It does not for that of one made later: as that starts its node has
/// the file system grow, which it never could if it were replaced for not having done so yet.
pub(super) fn needs_restart_of(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let Some(pending) = resize_pending(claim) else {
        return false;
    };
    let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    match (&pod.metadata.creation_timestamp, &pending.last_transition_time) {
        // Both are whole seconds.
        (Some(made), Some(since)) => made.0 < since.0 || (runs && made.0 == since.0),
        _ => runs,
    }
}

fn resize_pending(claim: &PersistentVolumeClaim) -> Option<&PersistentVolumeClaimCondition> {
    let mut conditions = claim.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "FileSystemResizePending" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_claim_is_told_with_what_to_do() {
        let claim = |phase: &str, deleted: Option<&str>| -> PersistentVolumeClaim {
            serde_json::from_value(json!({
                "metadata": { "name": "data-prod-1", "deletionTimestamp": deleted },
                "spec": { "volumeName": "pv-7" },
                "status": { "phase": phase },
            }))
            .unwrap()
        };
        let now = Some("2026-11-23T10:00:00Z");
        for (claim, reason, remedy) in [
            (
                claim("Bound", now),
                "VolumeTerminating",
                "PersistentVolume pv-7 to Retain",
            ),
            (claim("Lost", now), "VolumeTerminating", "delete the pod"),
            (
                claim("Lost", None),
                "VolumeLost",
                "delete the claim and then the pod",
            ),
        ] {
            let (said, message) = endangered(&claim).unwrap();
            assert_eq!(said, reason);
            assert!(
                message.contains("data-prod-1") && message.contains(remedy),
                "{message}"
            );
        }
        for phase in ["Bound", "Pending"] {
            assert_eq!(endangered(&claim(phase, None)), None);
        }
    }

    #[test]
    fn a_pod_made_after_its_volume_has_grown_is_left_to_start() {
        let claim = |status: &str, since: Option<&str>| -> PersistentVolumeClaim {
            let condition =
                json!({ "type": "FileSystemResizePending", "status": status, "lastTransitionTime": since });
            serde_json::from_value(json!({ "status": { "conditions": [condition] } })).unwrap()
        };
        let pod = |phase: &str, made: &str| -> Pod {
            let pod = json!({ "metadata": { "creationTimestamp": made }, "status": { "phase": phase } });
            serde_json::from_value(pod).unwrap()
        };
        let [before, at, after] = [1, 2, 3].map(|second| format!("2026-11-23T10:00:0{second}Z"));
        let pending = claim("True", Some(&at));
        for (pod, wanted) in [
            (pod("Running", &before), true),
            (pod("Pending", &before), true),
            (pod("Running", &at), true),
            (pod("Pending", &at), false),
            (pod("Pending", &after), false),
            (pod("Running", &after), false),
        ] {
            assert_eq!(needs_restart_of(&pod, &pending), wanted, "{pod:?}");
        }
        assert!(!needs_restart_of(
            &pod("Running", &before),
            &claim("False", Some(&at))
        ));
        assert!(needs_restart_of(&pod("Running", &before), &claim("True", None)));
        assert!(!needs_restart_of(&pod("Pending", &before), &claim("True", None)));
    }
}
