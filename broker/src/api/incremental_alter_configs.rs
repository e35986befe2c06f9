//! IncrementalAlterConfigs (key 44), versions 0-1.
//!
//! Sets and deletes single settings of topics, brokers and groups (KIP-848), and adds to and takes from lists (KIP-339).
//!
//! - v1: flexible encoding.
//!
//! A resource is changed as a whole or not at all; one resource's failure does not touch the others.

use std::ops::RangeInclusive;

use takhin_config::alter::{Change, Operation};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use takhin_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use takhin_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::change::Refused;
use super::config_resource::{self, each_once, named_twice, none_null, repeated};
use crate::context::RequestContext;
use crate::dispatch::Api;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(crate) struct IncrementalAlterConfigs;

impl Api for IncrementalAlterConfigs {
    type Request = IncrementalAlterConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    async fn handle(
        cx: &RequestContext,
        request: IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let names = request.resources.iter();
        let repeated = repeated(names.map(|r| (r.resource_type, r.resource_name.clone())));
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let (kind, name) = (resource.resource_type, resource.resource_name.clone());
            let done = if repeated.contains(&(kind, name.clone())) {
                Err(named_twice())
            } else {
                edit(cx, &resource, request.validate_only).await
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
        IncrementalAlterConfigsResponse::default().with_responses(responses)
    }
}

async fn edit(
    cx: &RequestContext,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let configs = &resource.configs;
    let target = config_resource::target(cx, resource.resource_type, &resource.resource_name)?;
    each_once(configs.iter().map(|config| &*config.name))?;
    let null = configs
        .iter()
        .filter(|config| config.config_operation != DELETE && config.value.is_none());
    none_null(null.map(|config| &*config.name))?;
    let edits = configs
        .iter()
        .map(|config| Ok((config.name.to_string(), operation(config)?)))
        .collect::<Result<_, Refused>>()?;
    config_resource::alter(cx, target, Change::Edit(edits), validate_only).await
}

fn operation(config: &AlterableConfig) -> Result<Operation, Refused> {
    let value = || config.value.as_deref().unwrap_or_default().to_owned();
    match config.config_operation {
        SET => Ok(Operation::Set(value())),
        DELETE => Ok(Operation::Delete),
        APPEND => Ok(Operation::Append(value())),
        SUBTRACT => Ok(Operation::Subtract(value())),
        other => {
            let message = format!("Unknown operation {other} for config {}", &*config.name);
            Err(Refused::new(ErrorCode::InvalidRequest, message))
        }
    }
}
