//! UnregisterBroker (key 64), version 0.
//!
//! Forgets a broker that is gone for good (KIP-631). Unlike Kafka's, it must hold nothing any more: one that has replicas or
//! a vote on the metadata, or runs, is refused with INVALID_REQUEST and told what to do. Its id is free then.
//!
//! Leader needed: none; the request is passed on to the controller.

use std::ops::RangeInclusive;
use std::sync::Arc;

use takhin_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::change;
use crate::context::RequestContext;
use crate::dispatch::Api;

/// How long it may take in milliseconds; the request does not say.
const TIMEOUT_MS: i32 = 30_000;

pub(crate) struct UnregisterBroker;

impl Api for UnregisterBroker {
    type Request = UnregisterBrokerRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;

    async fn handle(cx: &RequestContext, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
        let (cluster, id) = (Arc::clone(cx.cluster()), request.broker_id.0);
        let forgetting = async move { cluster.unregister_broker(id).await };
        let response = UnregisterBrokerResponse::default();
        match change::make(cx, TIMEOUT_MS, "unregister broker", forgetting).await {
            Ok(()) => {
                tracing::info!(broker = id, "unregistered, as asked for");
                response.with_error_message(None)
            }
            Err(refused) => response
                .with_error_code(cx.code(refused.code))
                .with_error_message(refused.text()),
        }
    }
}
