//! The messages of the protocol, and the one door through which they are decoded and encoded.

use std::any::Any;
use std::error::Error;

use bytes::{Buf, BufMut, Bytes, BytesMut};
pub use kafka_protocol::messages::*;
pub use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, Message, Request, StrBytes, VersionRange,
};

use crate::guard::{self, Malformed};
use crate::legacy_produce;

/// Why a request or response could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body does not have the shape of its schema.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The shape is right, but the codec refused a value, such as a string that is not UTF-8.
    #[error("api {api_key} version {version} cannot be decoded")]
    Value {
        /// The API's key.
        api_key: i16,
        /// The version.
        version: i16,
        /// What the codec said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a message could not be encoded. It is always the sender's fault.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A field does not fit the version, or is too long.
    #[error("message cannot be encoded in version {version}")]
    Value {
        /// The version.
        version: i16,
        /// What the codec said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The frame would be longer than its length field can say.
    #[error("frame of {len} bytes is too large")]
    TooLarge {
        /// Length of the frame without its prefix, in bytes.
        len: usize,
    },
}

/// Decodes the body of a request off the front of `body`, after [`guard::check`] has walked it.
///
/// Bytes after the request remain in `body`; Kafka ignores them. Produce 0 to 2 decode too, so that they can be
/// answered. Strings and records share the frame's allocation.
///
/// # Errors
///
/// [`DecodeError`]: an unsupported version, a malformed body. The connection is to be closed; there is no code to
/// answer with.
pub fn decode<T: Request + 'static>(version: i16, body: &mut Bytes) -> Result<T, DecodeError> {
    guard::check(T::KEY, version, body)?;
    let failed = |source: Box<dyn Error + Send + Sync>| DecodeError::Value {
        api_key: T::KEY,
        version,
        source,
    };
    let mut legacy: Option<T> = None;
    if version < legacy_produce::FIRST_MODERN
        && let Some(slot) = (&mut legacy as &mut dyn Any).downcast_mut::<Option<ProduceRequest>>()
    {
        *slot = Some(legacy_produce::decode(body).map_err(failed)?);
    }
    match legacy {
        Some(request) => Ok(request),
        None => T::decode(body, version).map_err(|e| failed(e.into())),
    }
}

/// Decodes a response to a `T` of this version from a whole frame without its length prefix.
///
/// Returns the correlation id with it. Like [`decode`], it lets nothing through that the guard has not walked. A
/// broker that does not have the version of an ApiVersions request answers in version 0 (KIP-511).
///
/// # Errors
///
/// [`DecodeError`]: an unsupported version, a malformed frame. The connection is to be closed.
pub fn decode_response<T: Request>(
    version: i16,
    frame: &mut Bytes,
) -> Result<(i32, T::Response), DecodeError> {
    let correlation_id = frame.try_get_i32().map_err(|_| Malformed::Truncated { at: 0 })?;
    if T::Response::header_version(version) >= 1 {
        let len = guard::check_tags(frame)?;
        frame.advance(len);
    }
    guard::check_response(T::KEY, version, frame)?;
    let response = T::Response::decode(frame, version).map_err(|e| DecodeError::Value {
        api_key: T::KEY,
        version,
        source: e.into(),
    })?;
    Ok((correlation_id, response))
}

/// Encodes a response as a whole frame: length prefix, response header, body, in one allocation of exact size.
///
/// The response header's version follows from the API and version; that of ApiVersions is always 0 (KIP-511).
///
/// # Errors
///
/// [`EncodeError`]: `response` holds something that `version` cannot say.
pub fn encode_response<T>(version: i16, correlation_id: i32, response: &T) -> Result<Bytes, EncodeError>
where
    T: Encodable + HeaderVersion + Any,
{
    if version < legacy_produce::FIRST_MODERN
        && let Some(response) = (response as &dyn Any).downcast_ref::<ProduceResponse>()
    {
        let mut out = start_frame(4 + legacy_produce::response_len(version, response))?;
        out.put_i32(correlation_id);
        return match legacy_produce::encode_response(version, response, &mut out) {
            Ok(()) => Ok(out.freeze()),
            Err(source) => Err(EncodeError::Value { version, source }),
        };
    }
    let flexible_header = T::header_version(version) >= 1;
    let mut head = [0; 5];
    head[..4].copy_from_slice(&correlation_id.to_be_bytes());
    let head = if flexible_header { &head[..] } else { &head[..4] };
    frame(version, head, response)
}

/// Encodes a request as a whole frame: length prefix, request header, body, in one allocation of exact size.
///
/// # Errors
///
/// [`EncodeError`]: `request` holds something that `version` cannot say, or the client id is too long.
pub fn encode_request<T: Request>(
    version: i16,
    correlation_id: i32,
    client_id: Option<&StrBytes>,
    request: &T,
) -> Result<Bytes, EncodeError> {
    let header_version = T::header_version(version);
    let header = RequestHeader::default()
        .with_request_api_key(T::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(client_id.cloned());
    let mut head = Vec::with_capacity(64);
    header
        .encode(&mut head, header_version)
        .map_err(|e| EncodeError::Value {
            version,
            source: e.into(),
        })?;
    frame(version, &head, request)
}

fn frame<T: Encodable>(version: i16, head: &[u8], body: &T) -> Result<Bytes, EncodeError> {
    let failed = |e: Box<dyn Error + Send + Sync>| EncodeError::Value { version, source: e };
    let len = head.len() + body.compute_size(version).map_err(|e| failed(e.into()))?;
    let mut out = start_frame(len)?;
    out.put_slice(head);
    body.encode(&mut out, version).map_err(|e| failed(e.into()))?;
    debug_assert_eq!(out.len(), len + 4, "the computed size is exact");
    Ok(out.freeze())
}

/// A buffer with room for a frame of `len` bytes, its length prefix written.
fn start_frame(len: usize) -> Result<BytesMut, EncodeError> {
    let prefix = i32::try_from(len).map_err(|_| EncodeError::TooLarge { len })?;
    let mut out = BytesMut::with_capacity(len + 4);
    out.put_i32(prefix);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use crate::request::RequestHead;

    #[test]
    fn an_api_versions_response_has_the_oldest_header_in_every_version() {
        for version in 0..=4 {
            let response = ApiVersionsResponse::default().with_error_code(35);
            let frame = encode_response(version, 0x0102_0304, &response).unwrap();
            assert_eq!(frame[..4], i32::try_from(frame.len() - 4).unwrap().to_be_bytes());
            // The error code follows the correlation id, with no tagged fields between.
            assert_eq!(frame[4..10], [1, 2, 3, 4, 0, 35]);
        }
        let metadata = encode_response(9, 1, &MetadataResponse::default()).unwrap();
        assert_eq!(metadata[8], 0, "the empty tagged fields of response header v1");
    }

    #[test]
    fn a_request_comes_back_from_its_frame() {
        let request = MetadataRequest::default()
            .with_topics(Some(vec![metadata_request::MetadataRequestTopic::default()]))
            .with_allow_auto_topic_creation(false);
        for version in [4, 9] {
            let sent = encode_request(version, 9, Some(&"me".into()), &request).unwrap();
            let mut body = frame::next(&mut BytesMut::from(&sent[..]), 1000)
                .unwrap()
                .unwrap();
            let head = RequestHead::parse(&mut body).unwrap();
            assert_eq!((head.api_key, head.api_version), (ApiKey::Metadata, version));
            assert_eq!((head.correlation_id, head.client_id.as_deref()), (9, Some("me")));
            let mut with_more = BytesMut::from(&body[..]);
            with_more.put_slice(b"more");
            let mut with_more = with_more.freeze();
            assert_eq!(
                decode::<MetadataRequest>(version, &mut with_more)
                    .unwrap()
                    .topics
                    .unwrap()
                    .len(),
                1
            );
            assert_eq!(with_more, "more");
        }
    }

    #[test]
    fn a_response_comes_back_from_its_frame() {
        let response = MetadataResponse::default()
            .with_controller_id(4.into())
            .with_cluster_id(Some("c".into()));
        for version in [8, 9, 12] {
            let frame = encode_response(version, 77, &response).unwrap();
            let mut body = frame.slice(4..);
            let (correlation_id, decoded) = decode_response::<MetadataRequest>(version, &mut body).unwrap();
            assert_eq!((correlation_id, decoded), (77, response.clone()));
            assert!(body.is_empty());
        }
        let tags =
            decode_response::<MetadataRequest>(9, &mut Bytes::from_static(b"\0\0\0\x01\x02\x01\0\x01\0"));
        assert!(matches!(
            tags,
            Err(DecodeError::Malformed(Malformed::TagOrder { .. }))
        ));
    }

    #[test]
    fn nothing_is_decoded_without_a_schema() {
        let refused = decode::<VoteRequest>(0, &mut Bytes::from_static(&[0; 100])).unwrap_err();
        assert!(matches!(
            refused,
            DecodeError::Malformed(Malformed::Unsupported {
                api_key: 52,
                version: 0
            })
        ));
        let refused = decode::<FetchRequest>(3, &mut Bytes::from_static(&[0; 100])).unwrap_err();
        assert!(matches!(
            refused,
            DecodeError::Malformed(Malformed::Unsupported { .. })
        ));
    }
}
