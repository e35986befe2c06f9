//! The volume of a source: made, kept or not, enlarged.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tracing::info;

use crate::api::{PikaSource, PikaStorage, SnapshotMode};
use crate::build::{MANAGER, PIKA_SOURCE_LABEL, cdc_claim, cdc_name};
use crate::control::claims::{
    capacity, endangered, enlarge, is_bound, is_pending, may_grow, needs_restart, needs_restart_of,
    requested, unprovided,
};
use crate::control::context::Context;
use crate::control::error::Error;
use crate::control::metrics;
use crate::decide::quantity::bytes;

/// How a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Volume {
    /// There is none yet, and why, if waiting does not help.
    Pending { claim: String, why: Option<String> },
    /// There is none, because the API server does not let the claim be made.
    Forbidden { claim: String, why: String },
    /// It has the wished size.
    Whole,
    /// It has this size, which is more than is wished: one that was left by an earlier source, or that somebody enlarged.
    Larger { has: String },
    /// It is to be larger.
    Resizing,
    /// It is to be larger, which its class does not allow.
    Refused { class: String },
    /// It is to be larger, which the API server refuses.
    Denied { why: String },
    /// Its file system grows when the pod starts again.
    Restart,
    /// What is on it is gone, or will be: why, and what to do.
    Endangered { reason: &'static str, message: String },
}

/// Brings the claim about, and tells of its volume. One that was left by an earlier source of the name is taken again.
pub(super) async fn ensure(
    context: &Context,
    source: &PikaSource,
    (namespace, name): (&str, &str),
    owner: &Value,
) -> Result<Option<Volume>, Error> {
    let (Some(storage), Some(mut wish)) = (&source.spec.storage, cdc_claim(&source.spec, namespace, name))
    else {
        return Ok(None);
    };
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let claim_name = wish["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let Some(claim) = api.get_opt(&claim_name).await? else {
        // Later only those may give it an owner who may delete it, which the operator may not.
        if storage.delete_on_removal == Some(true) {
            wish["metadata"]["ownerReferences"] = json!([owner]);
        }
        let claim: PersistentVolumeClaim = serde_json::from_value(wish).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        metrics::patched("PersistentVolumeClaim");
        return match api.create(&parameters, &claim).await.map_err(Error::from) {
            Ok(made) => look(context, storage, &made).await.map(Some),
            // A quota or another rule is against it: all else goes on, and each pass tries again.
            Err(error) if error.is_refusal() => Ok(Some(Volume::Forbidden {
                claim: claim_name,
                why: error.to_string(),
            })),
            Err(error) => Err(error),
        };
    };
    if claim.labels().get(PIKA_SOURCE_LABEL).map(String::as_str) != Some(name) {
        return Err(Error::NameConflict {
            kind: "PersistentVolumeClaim".to_owned(),
            name: claim_name,
            owner: format!("PikaSource {name}"),
        });
    }
    if let Some((reason, message)) = endangered(&claim) {
        return Ok(Some(Volume::Endangered { reason, message }));
    }
    let wished = bytes(&storage.size);
    // A claim that has no volume yet cannot be changed; it grows once it has one.
    if is_bound(&claim) && requested(&claim).is_some_and(|asked| Some(asked) < wished) {
        if !may_grow(context, &claim).await? {
            let class = claim.spec.and_then(|spec| spec.storage_class_name);
            return Ok(Some(Volume::Refused {
                class: class.unwrap_or_default(),
            }));
        }
        if let Some(why) = enlarge(&api, &claim, &storage.size).await? {
            return Ok(Some(Volume::Denied { why }));
        }
        let note = format!("volume {claim_name} is to grow to {}", storage.size);
        let kind = (EventType::Normal, "VolumeExpanded", "Expand");
        let about = Some(claim.object_ref(&()));
        context.event_about(source, about, kind, note).await;
    }
    look(context, storage, &claim).await.map(Some)
}

async fn look(
    context: &Context,
    storage: &PikaStorage,
    claim: &PersistentVolumeClaim,
) -> Result<Volume, Error> {
    let wished = bytes(&storage.size);
    let is_small = || capacity(claim).is_some_and(|has| Some(has) < wished);
    let asked = requested(claim).filter(|asked| Some(*asked) > wished);
    Ok(if is_pending(claim) {
        Volume::Pending {
            claim: claim.name_any(),
            why: unprovided(context, [claim]).await?,
        }
    } else if needs_restart(claim) {
        Volume::Restart
    } else if is_small() {
        Volume::Resizing
    } else if asked.is_some() {
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        let requests = requests.and_then(|resources| resources.requests.as_ref());
        let has = requests.and_then(|requests| requests.get("storage"));
        Volume::Larger {
            has: has.map(|has| has.0.clone()).unwrap_or_default(),
        }
    } else {
        Volume::Whole
    })
}

/// Whether the pod may be replaced for the sake of its file system: not where that would take the data set again, or begins one
/// anew that is being taken.
pub(super) fn may_restart(mode: SnapshotMode, phase: Option<&str>) -> bool {
    mode != SnapshotMode::Always && phase != Some("Snapshot")
}

/// Replaces the pod whose file system waits for that. The next one goes on from the position.
pub(super) async fn restart(
    context: &Context,
    source: &PikaSource,
    (namespace, name): (&str, &str),
    pods: &[Pod],
) -> Result<(), Error> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let Some(claim) = claims.get_opt(&cdc_name(name)).await? else {
        return Ok(());
    };
    let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let waits = |pod: &&Pod| needs_restart_of(pod, &claim);
    let Some(pod) = pods.iter().filter(stays).find(waits) else {
        return Ok(());
    };
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    // Not one that has taken its place meanwhile.
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&pod.name_any(), &parameters).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    info!(
        pod = pod.name_any(),
        "pod deleted: its file system grows with the next"
    );
    let note = format!(
        "{} is restarted: the file system of its volume grows with that",
        pod.name_any()
    );
    let kind = (EventType::Normal, "SourceRestarted", "Restart");
    context
        .event_about(source, Some(pod.object_ref(&())), kind, note)
        .await;
    Ok(())
}
