//! ApiVersions (key 18), versions 0-4.
//!
//! Tells a client which APIs and versions it may use. Allowed before authentication.
//!
//! - A version that we do not have is answered in version 0 with UNSUPPORTED_VERSION and our own range, so that the
//!   client can come down (KIP-511).
//! - v3: name and version of the client software (KIP-511), features (KIP-584).
//! - v4: features whose lowest level is 0 (KIP-1022).
//!
//! Clients act on feature levels as well as on versions: `group.version` 1 says that KIP-848 groups are served. Version 3
//! has no tagged fields here: librdkafka before 2.2 misreads them.

use std::ops::RangeInclusive;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use takhin_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, StrBytes, encode_response};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::reply::{Outcome, Reply};

/// First version that features are shown in. Version 3 could, but not those whose lowest level is 0 (KIP-1022), and old
/// librdkafka misreads what it does not know.
const FEATURES_FROM: i16 = 4;

pub(crate) struct ApiVersions;

impl Api for ApiVersions {
    type Request = ApiVersionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;

    async fn handle(cx: &RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
        let names_software = cx.version >= 3;
        let well_named = is_software_name(&request.client_software_name)
            && is_software_name(&request.client_software_version);
        if names_software && !well_named {
            return ApiVersionsResponse::default().with_error_code(cx.code(ErrorCode::InvalidRequest));
        }
        let response =
            ApiVersionsResponse::default().with_api_keys(super::TABLE.iter().map(advertise).collect());
        with_features(cx, response)
    }
}

/// A feature and its highest level, which is in force; the lowest is 0.
const FEATURES: [(&str, i16); 1] = [("group.version", 1)];

fn with_features(cx: &RequestContext, response: ApiVersionsResponse) -> ApiVersionsResponse {
    if cx.version < FEATURES_FROM {
        return response;
    }
    let finalized = FEATURES.map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_max_version_level(level)
            .with_min_version_level(level)
    });
    let supported = FEATURES.map(|(name, level)| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_max_version(level)
    });
    // Grows with every change of the metadata, as an epoch must.
    let epoch = cx.cluster().image().end_offset;
    response
        .with_supported_features(supported.to_vec())
        .with_finalized_features_epoch(epoch)
        .with_finalized_features(finalized.to_vec())
}

fn advertise(entry: &crate::dispatch::Entry) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(entry.key)
        .with_min_version(entry.min_version)
        .with_max_version(entry.max_version)
}

/// The answer to a version that we do not have.
pub(crate) fn downgrade(cx: &RequestContext) -> Outcome {
    let own = super::TABLE
        .iter()
        .filter(|entry| entry.key == ApiKey::ApiVersions as i16);
    let response = ApiVersionsResponse::default()
        .with_error_code(cx.code(ErrorCode::UnsupportedVersion))
        .with_api_keys(own.map(advertise).collect());
    match encode_response(0, cx.correlation_id, &response) {
        Ok(frame) => Outcome::Reply(Reply::Bytes(frame)),
        Err(error) => cx.cannot_encode(&error),
    }
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`, as Kafka's `ApiVersionsRequest`.
fn is_software_name(name: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends(name.chars().next())
        && ends(name.chars().next_back())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::is_software_name;

    #[test]
    fn software_names_are_letters_digits_hyphens_and_dots() {
        for good in ["a", "librdkafka", "2.3.0", "apache-kafka-java", "4.0.0-rc1"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a_b", ".", "ä", "a."] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
