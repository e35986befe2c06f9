//! The header of a request, read by hand: `RequestHeader` v1 and v2 (KIP-482).
//!
//! ```text
//! api_key i16 | api_version i16 | correlation_id i32 | client_id nullable string | v2: tagged fields
//! ```

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;

use crate::guard::{self, Malformed};

/// What every request begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The API.
    pub api_key: ApiKey,
    /// The version the client chose; not necessarily one that we have.
    pub api_version: i16,
    /// Goes into the response as it is.
    pub correlation_id: i32,
    /// The client's name for itself. Shares the frame's allocation.
    pub client_id: Option<StrBytes>,
}

/// Why a frame has no readable request header; the connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The frame ends within the header.
    #[error("frame ends within the request header")]
    Truncated,
    /// Kafka has no such API, so not even the header's version is known.
    #[error("api key {api_key} is unknown")]
    UnknownApi {
        /// The key.
        api_key: i16,
    },
    /// The client id's length is negative, or it is not UTF-8.
    #[error("client id is not a string")]
    ClientId,
    /// The tagged fields are malformed.
    #[error("tagged fields of the request header are malformed")]
    Tags(#[from] Malformed),
}

impl RequestHead {
    /// Reads the header off the front of `frame`; the request's body remains.
    ///
    /// The header's version follows from API and version, also for versions that we do not have: an
    /// ApiVersions request from the future gets its answer (KIP-511).
    ///
    /// # Errors
    ///
    /// [`HeadError`]; `frame` is then partly read.
    pub fn parse(frame: &mut Bytes) -> Result<Self, HeadError> {
        let api_key = frame.try_get_i16().map_err(|_| HeadError::Truncated)?;
        let api_version = frame.try_get_i16().map_err(|_| HeadError::Truncated)?;
        let correlation_id = frame.try_get_i32().map_err(|_| HeadError::Truncated)?;
        let api_key = ApiKey::try_from(api_key).map_err(|_| HeadError::UnknownApi { api_key })?;
        let client_id = client_id(frame)?;
        if api_key.request_header_version(api_version) >= 2 {
            // No tagged field of the request header is known, so all are skipped.
            let len = guard::check_tags(frame)?;
            frame.advance(len);
        }
        Ok(Self {
            api_key,
            api_version,
            correlation_id,
            client_id,
        })
    }
}

fn client_id(frame: &mut Bytes) -> Result<Option<StrBytes>, HeadError> {
    let length = frame.try_get_i16().map_err(|_| HeadError::Truncated)?;
    if length == -1 {
        return Ok(None);
    }
    let len = usize::try_from(length).map_err(|_| HeadError::ClientId)?;
    if len > frame.len() {
        return Err(HeadError::Truncated);
    }
    StrBytes::from_utf8(frame.split_to(len))
        .map(Some)
        .map_err(|_| HeadError::ClientId)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(api_key: ApiKey, api_version: i16, client_id: Option<&'static str>) -> RequestHead {
        let client_id = client_id.map(StrBytes::from_static_str);
        RequestHead {
            api_key,
            api_version,
            correlation_id: 7,
            client_id,
        }
    }

    #[test]
    fn the_header_version_follows_from_api_and_version() {
        let plain = b"\0\x12\0\x02\0\0\0\x07\0\x03abcrest";
        let mut frame = Bytes::from_static(plain);
        assert_eq!(
            RequestHead::parse(&mut frame),
            Ok(head(ApiKey::ApiVersions, 2, Some("abc")))
        );
        assert_eq!(frame, "rest");

        // Version 99 is flexible, so tagged fields follow: tag 0 of one byte, tag 5 of none.
        let flexible = b"\0\x12\0\x63\0\0\0\x07\xff\xff\x02\0\x01x\x05\0rest";
        let mut frame = Bytes::from_static(flexible);
        assert_eq!(
            RequestHead::parse(&mut frame),
            Ok(head(ApiKey::ApiVersions, 99, None))
        );
        assert_eq!(frame, "rest");
    }

    #[test]
    fn malformed_headers_are_refused() {
        let parse = |bytes: &'static [u8]| RequestHead::parse(&mut Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(
            parse(b"\x7f\xff\0\0\0\0\0\0\0\0"),
            HeadError::UnknownApi { api_key: 0x7fff }
        );
        assert_eq!(parse(b"\0\x12\0\0\0\0\0\x07\0\x05abc"), HeadError::Truncated);
        assert_eq!(parse(b"\0\x12\0\0\0\0\0\x07\xff\xfeabc"), HeadError::ClientId);
        assert_eq!(parse(b"\0\x12\0\0\0\0\0\x07\0\x01\xff"), HeadError::ClientId);
        // Version 3, so tagged fields follow the null client id.
        let with_tags = |tags: &'static [u8]| {
            let frame = [b"\0\x12\0\x03\0\0\0\x07\xff\xff", tags].concat();
            RequestHead::parse(&mut Bytes::from(frame)).unwrap_err()
        };
        let malformed = HeadError::Tags;
        assert_eq!(
            with_tags(b"\x02\x01\0\x01\0"),
            malformed(Malformed::TagOrder { at: 3, tag: 1 })
        );
        assert_eq!(
            with_tags(b"\xff\xff\xff\xff\xff\x01"),
            malformed(Malformed::Varint { at: 0 })
        );
        assert_eq!(
            with_tags(b"\x01\x01\x7f"),
            malformed(Malformed::Truncated { at: 3 })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), key in 0u8..70) {
            let mut bytes = bytes;
            if let Some(low) = bytes.get_mut(1) {
                *low = key;
            }
            let before = bytes.len();
            let mut frame = Bytes::from(bytes);
            if RequestHead::parse(&mut frame).is_ok() {
                prop_assert!(before - frame.len() >= 10);
            }
        }
    }
}
