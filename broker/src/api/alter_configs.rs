//! AlterConfigs (key 33), versions 0-2.
//!
//! Replaces what is set on topics, brokers and groups (KIP-848): what is not named falls back to its default (KIP-133).
//!
//! - v2: flexible encoding.
//!
//! A resource is changed as a whole or not at all; one resource's failure does not touch the others.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use takhin_config::alter::Change;
use takhin_protocol::messages::alter_configs_request::AlterConfigsResource;
use takhin_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use takhin_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::change::Refused;
use super::config_resource::{self, each_once, named_twice, none_null, repeated};
use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct AlterConfigs;

impl Api for AlterConfigs {
    type Request = AlterConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;

    async fn handle(cx: &RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
        let names = request.resources.iter();
        let repeated = repeated(names.map(|r| (r.resource_type, r.resource_name.clone())));
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let (kind, name) = (resource.resource_type, resource.resource_name.clone());
            let done = if repeated.contains(&(kind, name.clone())) {
                Err(named_twice())
            } else {
                replace(cx, &resource, request.validate_only).await
            };
            let response = AlterConfigsResourceResponse::default()
                .with_resource_type(kind)
                .with_resource_name(name);
            responses.push(match done {
                Ok(()) => response,
                Err(refused) => response
                    .with_error_code(cx.code(refused.code))
                    .with_error_message(refused.text()),
            });
        }
        AlterConfigsResponse::default().with_responses(responses)
    }
}

async fn replace(
    cx: &RequestContext,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let configs = &resource.configs;
    let target = config_resource::target(cx, resource.resource_type, &resource.resource_name)?;
    each_once(configs.iter().map(|config| &*config.name))?;
    let null = configs.iter().filter(|config| config.value.is_none());
    none_null(null.map(|config| &*config.name))?;
    let values: BTreeMap<String, String> = configs
        .iter()
        .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())))
        .collect();
    config_resource::alter(cx, target, Change::Replace(values), validate_only).await
}
