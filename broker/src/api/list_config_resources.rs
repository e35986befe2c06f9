//! ListConfigResources (key 74), versions 0-1.
//!
//! Lists what has configurations: topics, brokers, and the groups that something was set for (KIP-1142). Version 0 lists
//! client metrics subscriptions only (KIP-714); there are none.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::list_config_resources_response::ConfigResource;
use takhin_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse, StrBytes};

use super::config_resource::{BROKER, GROUP, TOPIC};
use crate::context::RequestContext;
use crate::dispatch::Api;

const CLIENT_METRICS: i8 = 16;

pub(crate) struct ListConfigResources;

impl Api for ListConfigResources {
    type Request = ListConfigResourcesRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    async fn handle(cx: &RequestContext, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
        let types = asked(cx.version, &request.resource_types);
        let response = ListConfigResourcesResponse::default();
        let known = [TOPIC, BROKER, CLIENT_METRICS, GROUP];
        if types.iter().any(|kind| !known.contains(kind)) {
            return response.with_error_code(cx.code(ErrorCode::UnsupportedVersion));
        }
        let image = cx.cluster().image();
        let resource = |kind: i8, name: String| {
            ConfigResource::default()
                .with_resource_type(kind)
                .with_resource_name(StrBytes::from_string(name))
        };
        let mut resources = Vec::new();
        if types.contains(&TOPIC) {
            resources.extend(image.topics.keys().map(|name| resource(TOPIC, name.clone())));
        }
        if types.contains(&BROKER) {
            resources.extend(image.brokers.keys().map(|id| resource(BROKER, id.to_string())));
        }
        if types.contains(&GROUP) {
            let groups = image.group_configs.keys();
            resources.extend(groups.map(|name| resource(GROUP, name.clone())));
        }
        response.with_config_resources(resources)
    }
}

/// The types asked for; none named means all.
fn asked(version: i16, named: &[i8]) -> BTreeSet<i8> {
    match (version, named) {
        (0, _) => BTreeSet::from([CLIENT_METRICS]),
        (_, []) => BTreeSet::from([TOPIC, BROKER, CLIENT_METRICS, GROUP]),
        (_, named) => named.iter().copied().collect(),
    }
}
