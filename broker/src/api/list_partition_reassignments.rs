//! ListPartitionReassignments (key 46), version 0.
//!
//! Lists the replicas that are being moved (KIP-455). A cluster of one broker has nowhere to move a replica to, and so
//! nothing is ever on its way; unknown topics are left out, as in Kafka.
//!
//! Leader needed: the controller.

use std::ops::RangeInclusive;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, StrBytes,
};

use crate::context::RequestContext;
use crate::dispatch::Api;

pub(crate) struct ListPartitionReassignments;

impl Api for ListPartitionReassignments {
    type Request = ListPartitionReassignmentsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;

    async fn handle(
        cx: &RequestContext,
        _request: ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        let response = ListPartitionReassignmentsResponse::default();
        if cx.cluster().controller_id() < 0 {
            let message = "the controller is not available";
            return response
                .with_error_code(cx.code(ErrorCode::NotController))
                .with_error_message(Some(StrBytes::from_static_str(message)));
        }
        response
    }
}
