//! The way of older masters to the pod: a Service where they need one, and who may connect.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

use crate::api::PikaSource;
use crate::build::{balancer_of, cdc_name, cdc_network_policy, cdc_service, owned};
use crate::control::apply::{apply, remove};
use crate::control::context::Context;
use crate::control::error::Error;

/// Brings Service and NetworkPolicy about. Returns the address of the load balancer, if there is to be one, or what is missing
/// before a pod can be made.
pub(super) async fn ensure(
    context: &Context,
    source: &PikaSource,
    (namespace, name): (&str, &str),
    owner: &Value,
) -> Result<Result<Option<String>, String>, Error> {
    let spec = &source.spec;
    let child = cdc_name(name);
    match cdc_network_policy(spec, namespace, name) {
        Some(policy) => drop(apply::<NetworkPolicy>(context, namespace, &owned(policy, owner)).await?),
        None => remove::<NetworkPolicy>(context, namespace, &child, owner).await?,
    }
    let (Some(listing), Some(wish)) = (&spec.source.listed_as, cdc_service(spec, namespace, name)) else {
        remove::<Service>(context, namespace, &child, owner).await?;
        return Ok(Ok(None));
    };
    let service = match apply::<Service>(context, namespace, &owned(wish, owner)).await {
        Ok(service) => service,
        Err(error) if error.is_invalid() => {
            return Ok(Err(format!(
                "spec.source.listedAs.port {}: the ports 1000 and 3000 above it cannot be those of Service {child}: {error}",
                listing.port
            )));
        }
        Err(error) => return Err(error),
    };
    let balancer = balancer_of(&service);
    if listing.waits_for_balancer() && balancer.is_none() {
        return Ok(Err(format!(
            "Service {child} has no address of a load balancer yet, under which the master is to list the pod; or name one in \
             spec.source.listedAs.host"
        )));
    }
    Ok(Ok(balancer))
}
