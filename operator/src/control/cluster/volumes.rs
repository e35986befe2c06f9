//! Volumes that are to be larger.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::runtime::events::EventType;
use kube::{Api, Resource as _, ResourceExt as _};

use super::observe::Seen;
use crate::api::TakhinCluster;
use crate::build::{Names, claim_size};
use crate::control::claims::{capacity, enlarge, is_bound, may_grow, needs_restart, requested};
use crate::control::context::Context;
use crate::control::error::Error;
use crate::decide::quantity::bytes;

/// How far volumes are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// Claims whose volumes are still smaller than wished.
    pub(super) resizing: Vec<String>,
    /// Claims whose class does not let them grow.
    pub(super) refused: Vec<String>,
    /// Why the API server does not let them grow, for claims that it does not.
    pub(super) denied: Vec<String>,
    /// Brokers whose file system grows with the next start of the pod.
    pub(super) restart: Vec<i32>,
}

/// Has claims grow that are smaller than wished. Larger ones stay as they are.
pub(super) async fn grow(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
    seen: &Seen,
) -> Result<Growth, Error> {
    let mut growth = Growth::default();
    let Some(size) = claim_size(&cluster.spec) else {
        return Ok(growth);
    };
    let wished = bytes(size);
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &names.namespace);
    for (broker, claim) in &seen.claims {
        if needs_restart(claim) {
            growth.restart.push(*broker);
        }
        if capacity(claim).is_some_and(|has| Some(has) < wished) {
            growth.resizing.push(claim.name_any());
        }
        // A claim that has no volume yet cannot be changed; it grows once it has one.
        if !is_bound(claim) || requested(claim).is_none_or(|asked| Some(asked) >= wished) {
            continue;
        }
        if !may_grow(context, claim).await? {
            growth.resizing.retain(|name| *name != claim.name_any());
            growth.refused.push(claim.name_any());
            continue;
        }
        if let Some(why) = enlarge(&api, claim, size).await? {
            growth.resizing.retain(|name| *name != claim.name_any());
            growth.denied.push(why);
            continue;
        }
        let note = format!("volume {} is to grow to {size}", claim.name_any());
        let kind = (EventType::Normal, "VolumeExpanded", "Expand");
        let about = Some(claim.object_ref(&()));
        context.event_about(cluster, about, kind, note).await;
    }
    Ok(growth)
}
