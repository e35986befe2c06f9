//! The objects that belong to a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, PostParams, PropagationPolicy};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tracing::info;

use super::observe::token_of;
use crate::api::TakhinCluster;
use crate::build::{
    Names, NodeFile, broker_set, claim_size, config_map, disruption_budget, external_services,
    internal_services, network_policy, owned, service_account,
};
use crate::control::apply::{apply as put, remove, this_one};
use crate::control::context::Context;
use crate::control::error::Error;
use crate::decide::quantity::bytes;

/// Bytes of the token of the admin API.
const TOKEN_BYTES: usize = 32;

/// The reference of children to their cluster.
pub(super) fn owner(cluster: &TakhinCluster) -> Value {
    // A reference is plain data.
    json!(cluster.controller_owner_ref(&()))
}

/// Makes the Secret with the token of the admin API if there is none; one that is there is never changed.
pub(super) async fn ensure_token(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &names.namespace);
    let found = api.get_opt(&names.admin_token()).await?;
    if found.as_ref().and_then(token_of).is_some() {
        return Ok(());
    }
    let mut bytes = [0; TOKEN_BYTES];
    context.env.rng.fill(&mut bytes);
    let token = bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    let mut secret = crate::build::object("v1", "Secret", &names.admin_token(), names);
    secret["metadata"]["ownerReferences"] = json!([owner(cluster)]);
    secret["type"] = "Opaque".into();
    secret["stringData"] = json!({ "token": token });
    match found {
        // Somebody took the key out.
        Some(_) => drop(put::<Secret>(context, &names.namespace, &secret).await?),
        None => {
            let secret: Secret = serde_json::from_value(secret).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &secret).await?;
        }
    }
    info!(
        namespace = names.namespace,
        name = names.admin_token(),
        "token made"
    );
    Ok(())
}

/// Everything but the StatefulSet. Returns the Services of external listeners.
pub(super) async fn apply(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
    file: &NodeFile,
    replicas: i32,
) -> Result<BTreeMap<String, Service>, Error> {
    let namespace = &names.namespace;
    let owner = owner(cluster);
    let owned = |object| owned(object, &owner);
    put::<ServiceAccount>(context, namespace, &owned(service_account(names))).await?;
    put::<ConfigMap>(context, namespace, &owned(config_map(names, file))).await?;
    for service in internal_services(&cluster.spec, names) {
        put::<Service>(context, namespace, &owned(service)).await?;
    }
    let mut external = BTreeMap::new();
    for service in external_services(&cluster.spec, names, replicas) {
        let service = put::<Service>(context, namespace, &owned(service)).await?;
        external.insert(service.name_any(), service);
    }
    remove_services(context, names, &owner, &external).await?;
    put::<PodDisruptionBudget>(context, namespace, &owned(disruption_budget(names))).await?;
    match network_policy(&cluster.spec, names, context.options.home.as_deref()) {
        Some(policy) => drop(put::<NetworkPolicy>(context, namespace, &owned(policy)).await?),
        None => remove::<NetworkPolicy>(context, namespace, &names.cluster, &owner).await?,
    }
    Ok(external)
}

/// Services of listeners and brokers that are wished for no longer.
async fn remove_services(
    context: &Context,
    names: &Names,
    owner: &Value,
    wanted: &BTreeMap<String, Service>,
) -> Result<(), Error> {
    let api: Api<Service> = Api::namespaced(context.client.clone(), &names.namespace);
    let labels = format!("{},takhin.io/listener", names.selector_text());
    let found: BTreeSet<String> = api
        .list(&ListParams::default().labels(&labels))
        .await?
        .items
        .iter()
        .map(kube::ResourceExt::name_any)
        .collect();
    for name in found.iter().filter(|name| !wanted.contains_key(*name)) {
        remove::<Service>(context, &names.namespace, name, owner).await?;
    }
    Ok(())
}

/// How often a StatefulSet that is going is looked for, and how long after each look; it is a matter of one or two.
const LOOKS: usize = 20;
const LOOK: Duration = Duration::from_millis(100);

/// The StatefulSet. One whose claims are to have another size is made anew around its pods, which stay.
pub(super) async fn apply_set(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
    file: &NodeFile,
    replicas: i32,
) -> Result<StatefulSet, Error> {
    let api: Api<StatefulSet> = Api::namespaced(context.client.clone(), &names.namespace);
    let wish = owned(
        broker_set(cluster, names, file, &context.options.images, replicas),
        &owner(cluster),
    );
    if let Some(found) = api.get_opt(&names.cluster).await? {
        let is_ours = found
            .owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == cluster.meta().uid.as_ref());
        let has = template_size(&found).as_deref().and_then(bytes);
        let mut leaves = found.metadata.deletion_timestamp.is_some();
        if is_ours && !leaves && has != claim_size(&cluster.spec).and_then(bytes) {
            let parameters = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Orphan),
                ..this_one(&found)
            };
            match api.delete(&names.cluster, &parameters).await {
                Ok(_) => leaves = true,
                // Another one has its name by now, whose coming wakes the next pass.
                Err(kube::Error::Api(status)) if status.code == 409 => return Ok(found),
                Err(error) => return Err(error.into()),
            }
            info!(
                namespace = names.namespace,
                name = names.cluster,
                "StatefulSet made anew for a new size of volumes"
            );
        }
        // It is there until its pods have been told that they have no owner; what is applied until then goes with it.
        if leaves && !is_gone(context, &api, &found).await? {
            return Ok(found);
        }
    }
    put(context, &names.namespace, &wish).await
}

/// Waits a little for the end of a StatefulSet that is being deleted; whether it has come. If not, its end wakes the next pass.
async fn is_gone(context: &Context, api: &Api<StatefulSet>, set: &StatefulSet) -> Result<bool, Error> {
    for _ in 0..LOOKS {
        let found = api.get_opt(&set.name_any()).await?;
        if found.is_none_or(|found| found.metadata.uid != set.metadata.uid) {
            return Ok(true);
        }
        context.env.clock.sleep(LOOK).await;
    }
    Ok(false)
}

/// The size that new claims get from a StatefulSet.
fn template_size(set: &StatefulSet) -> Option<String> {
    let template = set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
    let requests = template.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Some(requests.get("storage")?.0.clone())
}
