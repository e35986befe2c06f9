//! Which versions of which API a broker has.

use std::collections::BTreeMap;

use takhin_protocol::messages::{ApiVersionsResponse, Request};

/// The broker's version ranges by API key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Versions(BTreeMap<i16, (i16, i16)>);

impl Versions {
    /// Nothing is known yet.
    pub(crate) fn before_negotiation() -> Self {
        Self::default()
    }

    /// What the broker said.
    pub(crate) fn of(response: &ApiVersionsResponse) -> Self {
        Self(
            response
                .api_keys
                .iter()
                .map(|api| (api.api_key, (api.min_version, api.max_version)))
                .collect(),
        )
    }

    /// The newest version that the broker and this client have, at most `at_most`.
    pub(crate) fn pick<R: Request>(&self, at_most: i16) -> Option<i16> {
        let (min, max) = *self.0.get(&R::KEY)?;
        let newest = max.min(R::VERSIONS.max).min(at_most);
        (newest >= min.max(R::VERSIONS.min)).then_some(newest)
    }
}

#[cfg(test)]
mod tests {
    use takhin_protocol::messages::api_versions_response::ApiVersion;
    use takhin_protocol::messages::{MetadataRequest, ProduceRequest};

    use super::*;

    #[test]
    fn the_newest_common_version_is_picked() {
        let produce = ApiVersion::default()
            .with_api_key(0)
            .with_min_version(3)
            .with_max_version(99);
        let metadata = ApiVersion::default()
            .with_api_key(3)
            .with_min_version(50)
            .with_max_version(60);
        let versions = Versions::of(&ApiVersionsResponse::default().with_api_keys(vec![produce, metadata]));
        assert_eq!(versions.pick::<ProduceRequest>(12), Some(12));
        assert_eq!(versions.pick::<ProduceRequest>(i16::MAX), Some(13));
        assert_eq!(versions.pick::<ProduceRequest>(2), None);
        assert_eq!(versions.pick::<MetadataRequest>(i16::MAX), None);
        assert_eq!(Versions::default().pick::<ProduceRequest>(12), None);
    }
}
