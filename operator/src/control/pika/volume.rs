//! The volume of a source: made, kept or not, enlarged.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::PostParams;
use kube::runtime::events::EventType;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use crate::api::{PikaSource, PikaStorage};
use crate::build::{MANAGER, PIKA_SOURCE_LABEL, cdc_claim};
use crate::control::claims::{
    capacity, enlarge, is_bound, is_pending, may_grow, needs_restart, requested, unprovided,
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
    /// It has the wished size, or more.
    Whole,
    /// It is to be larger.
    Resizing,
    /// It is to be larger, which its class does not allow.
    Refused { class: String },
    /// Its file system grows when the pod starts again.
    Restart,
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
        let made = api.create(&parameters, &claim).await?;
        return look(context, storage, &made).await.map(Some);
    };
    if claim.labels().get(PIKA_SOURCE_LABEL).map(String::as_str) != Some(name) {
        return Err(Error::NameConflict {
            kind: "PersistentVolumeClaim".to_owned(),
            name: claim_name,
            owner: format!("PikaSource {name}"),
        });
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
        enlarge(&api, &claim, &storage.size).await?;
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
    let is_small = || capacity(claim).is_some_and(|has| Some(has) < bytes(&storage.size));
    Ok(if is_pending(claim) {
        Volume::Pending {
            claim: claim.name_any(),
            why: unprovided(context, [claim]).await?,
        }
    } else if needs_restart(claim) {
        Volume::Restart
    } else if is_small() {
        Volume::Resizing
    } else {
        Volume::Whole
    })
}
