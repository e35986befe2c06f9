//! InitProducerId (key 22), versions 0-5.
//!
//! Gives an idempotent producer a fresh producer id with epoch 0; ids are never given twice (KIP-98).
//!
//! - v2: flexible encoding.
//! - v3: the producer says which id and epoch it had (KIP-360); without a transactional id that changes nothing.
//!
//! Not done: transactional ids. They answer UNSUPPORTED_VERSION, which every client treats as final; a coordinator
//! error would be retried for ever, and an authorization error would send the user to the wrong place.

use std::ops::RangeInclusive;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::error::ToErrorCode as _;

pub(crate) struct InitProducerId;

impl Api for InitProducerId {
    type Request = InitProducerIdRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;

    async fn handle(cx: &RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
        match init_producer_id(cx, &request).await {
            Ok(producer_id) => InitProducerIdResponse::default()
                .with_producer_id(producer_id.into())
                .with_producer_epoch(0),
            Err(code) => InitProducerIdResponse::default()
                .with_error_code(cx.code(code))
                .with_producer_id((-1).into())
                .with_producer_epoch(-1),
        }
    }
}

async fn init_producer_id(cx: &RequestContext, request: &InitProducerIdRequest) -> Result<i64, ErrorCode> {
    let has_id = request.producer_id.0 != -1;
    let has_epoch = request.producer_epoch != -1;
    if has_id != has_epoch {
        return Err(ErrorCode::InvalidRequest);
    }
    match request.transactional_id.as_ref() {
        Some(id) if id.is_empty() => Err(ErrorCode::InvalidRequest),
        Some(_) => Err(ErrorCode::UnsupportedVersion),
        None => cx
            .cluster()
            .next_producer_id()
            .await
            .map_err(|error| error.to_error_code()),
    }
}
