//! DescribeConfigs (key 32), versions 1-4.
//!
//! Shows every setting of topics, of this broker and of groups (KIP-848): effective value, where it comes from, type, documentation. A
//! broker without a name stands for what was set on all brokers while they run.
//!
//! - v1: sources and synonyms (KIP-226). v3: types and documentation (KIP-569). v4: flexible encoding.
//!
//! Not done: broker loggers and client metrics, which have no settings here; they are refused as unknown resource types.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use takhin_cluster::ConfigTarget;
use takhin_config::live::Values;
use takhin_config::{ConfigEntry, broker_keys, group, topic};
use takhin_protocol::messages::describe_configs_request::DescribeConfigsResource;
use takhin_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use takhin_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse, StrBytes};

use super::change::Refused;
use super::config_resource;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::replicas::View;

pub(crate) struct DescribeConfigs;

impl Api for DescribeConfigs {
    type Request = DescribeConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=4;

    async fn handle(cx: &RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
        let view = View::new(cx.cluster());
        let with = With {
            synonyms: request.include_synonyms,
            documentation: request.include_documentation,
        };
        // A resource named twice is described once: a request must not grow into an answer without bound.
        let mut seen = BTreeSet::new();
        let mut resources = request.resources;
        resources.retain(|resource| seen.insert((resource.resource_type, resource.resource_name.clone())));
        let results = resources
            .into_iter()
            .map(|resource| describe(cx, &view, resource, with));
        DescribeConfigsResponse::default().with_results(results.collect())
    }
}

/// What the caller wants beside the values.
#[derive(Debug, Clone, Copy)]
struct With {
    synonyms: bool,
    documentation: bool,
}

fn describe(
    cx: &RequestContext,
    view: &View,
    resource: DescribeConfigsResource,
    with: With,
) -> DescribeConfigsResult {
    let name = resource.resource_name;
    let entries = config_resource::target(cx, resource.resource_type, &name)
        .and_then(|target| entries(cx, view, &target));
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(name);
    match entries {
        Ok(entries) => {
            let keys: Option<BTreeSet<&str>> = resource
                .configuration_keys
                .as_ref()
                .map(|keys| keys.iter().map(|key| &**key).collect());
            let wanted = |entry: &ConfigEntry| {
                keys.as_ref()
                    .is_none_or(|keys| keys.contains(entry.name.as_str()))
            };
            let configs = entries
                .into_iter()
                .filter(wanted)
                .map(|entry| config(entry, with));
            result.with_configs(configs.collect())
        }
        Err(refused) => result
            .with_error_code(cx.code(refused.code))
            .with_error_message(refused.text()),
    }
}

fn entries(cx: &RequestContext, view: &View, target: &ConfigTarget) -> Result<Vec<ConfigEntry>, Refused> {
    let started_with = &cx.broker().config;
    let dynamic = view.image.dynamic(cx.cluster().node_id());
    match target {
        ConfigTarget::Topic(name) => {
            let unknown = |code| Refused::new(code, format!("The topic '{name}' does not exist."));
            let topic = view.topic(name).map_err(unknown)?;
            Ok(topic::describe(started_with, dynamic, &topic.overrides))
        }
        ConfigTarget::Broker(None) => Ok(broker_keys::describe_defaults(dynamic.all)),
        ConfigTarget::Broker(Some(_)) => Ok(broker_keys::describe(started_with, dynamic)),
        ConfigTarget::Group(name) => {
            let none = Values::new();
            let own = view.image.group_configs.get(name).unwrap_or(&none);
            Ok(group::describe(started_with, dynamic, own))
        }
    }
}

fn config(entry: ConfigEntry, with: With) -> DescribeConfigsResourceResult {
    let synonyms = if with.synonyms { entry.synonyms } else { Vec::new() };
    let synonyms = synonyms.into_iter().map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_string(synonym.name))
            .with_value(Some(StrBytes::from_string(synonym.value)))
            .with_source(synonym.source.code())
    });
    let documentation = with
        .documentation
        .then(|| StrBytes::from_string(entry.documentation));
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_string(entry.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.code())
        .with_is_sensitive(entry.sensitive)
        .with_synonyms(synonyms.collect())
        .with_config_type(entry.kind.code())
        .with_documentation(documentation)
}
