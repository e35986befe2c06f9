//! DescribeCluster (key 60), versions 0-2.
//!
//! Names the cluster, its brokers and its controller (KIP-700).
//!
//! - v1: endpoint type (KIP-919). v2: fenced brokers, if they are asked for (KIP-1073).
//!
//! Not done: controller endpoints. Clients reach brokers only, so any other type is refused, as by Kafka's brokers.

use std::ops::RangeInclusive;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use takhin_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse, StrBytes};

use super::operations;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::replicas;

/// Endpoint type of brokers.
const BROKERS: i8 = 1;
/// Endpoint type of controllers.
const CONTROLLERS: i8 = 2;

pub(crate) struct DescribeCluster;

impl Api for DescribeCluster {
    type Request = DescribeClusterRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;

    async fn handle(cx: &RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse {
        match request.endpoint_type {
            BROKERS => describe(cx, &request),
            CONTROLLERS => refuse(
                cx,
                ErrorCode::MismatchedEndpointType,
                "this is a broker endpoint, not a controller",
            ),
            _ => refuse(cx, ErrorCode::UnsupportedEndpointType, "unknown endpoint type"),
        }
    }
}

fn describe(cx: &RequestContext, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let image = cx.cluster().image();
    let with_fenced = cx.version >= 2 && request.include_fenced_brokers;
    let brokers = replicas::all_nodes(cx, &image).filter_map(|node| {
        let is_fenced = cx.cluster().is_fenced(node.id);
        if is_fenced && !with_fenced {
            return None;
        }
        let broker = DescribeClusterBroker::default()
            .with_broker_id(node.id.into())
            .with_host(node.host)
            .with_port(node.port)
            .with_rack(node.rack);
        Some(match with_fenced {
            true => broker.with_is_fenced(is_fenced),
            false => broker,
        })
    });
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(image.cluster_id.clone()))
        .with_controller_id(cx.cluster().controller_id().into())
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(operations::on_cluster(
            request.include_cluster_authorized_operations,
        ))
}

fn refuse(cx: &RequestContext, code: ErrorCode, message: &'static str) -> DescribeClusterResponse {
    DescribeClusterResponse::default()
        .with_error_code(cx.code(code))
        .with_error_message(Some(StrBytes::from_static_str(message)))
        .with_controller_id((-1).into())
}
