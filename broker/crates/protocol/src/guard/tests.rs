//! The schemas are held against the codec: bodies made from a schema must be what the codec reads and writes,
//! and whatever the guard lets through must be read by the codec to the same end.

mod codec;
mod generator;

use proptest::prelude::*;

use self::codec::{Codec, Recoded};
use self::generator::Generator;
use super::requests::REQUESTS;
use super::responses::RESPONSES;
use super::shape::Api;
use super::{MAX_ELEMENTS, Malformed, check, check_response};
use crate::messages::ApiKey;

/// A schema in one version, the guard and the codec for it.
struct Case {
    what: &'static str,
    api: &'static Api,
    version: i16,
    check: fn(i16, i16, &[u8]) -> Result<usize, Malformed>,
    recode: fn(i16, &[u8]) -> Recoded,
    through: fn(i16, Option<&[u8]>) -> Vec<u8>,
}

impl Case {
    fn all() -> impl Iterator<Item = Case> {
        let versions = |api: &'static Api| (api.min..=api.max).map(move |version| (api, version));
        let request = |(api, version): (&'static Api, i16)| Case {
            what: "request",
            api,
            version,
            check,
            recode: Codec::of(api).recode_request,
            through: Codec::of(api).request_through,
        };
        let response = |(api, version): (&'static Api, i16)| Case {
            what: "response",
            api,
            version,
            check: check_response,
            recode: Codec::of(api).recode_response,
            through: Codec::of(api).response_through,
        };
        let requests = REQUESTS.iter().flat_map(versions).map(request);
        requests.chain(RESPONSES.iter().flat_map(versions).map(response))
    }

    fn check(&self, body: &[u8]) -> Result<usize, Malformed> {
        (self.check)(self.api.key, self.version, body)
    }

    fn recode(&self, body: &[u8]) -> Recoded {
        (self.recode)(self.version, body)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of api {} version {}",
            self.what, self.api.key, self.version
        )
    }
}

#[test]
fn requests_and_responses_have_the_same_apis() {
    let keys = |apis: &[Api]| apis.iter().map(|api| api.key).collect::<Vec<_>>();
    assert_eq!(keys(REQUESTS), keys(RESPONSES));
    assert!(REQUESTS.is_sorted_by(|a, b| a.key < b.key));
}

#[test]
fn versions_are_those_of_the_codec() {
    for (api, response) in REQUESTS
        .iter()
        .map(|a| (a, false))
        .chain(RESPONSES.iter().map(|a| (a, true)))
    {
        let key = ApiKey::try_from(api.key).unwrap();
        let codec = Codec::of(api);
        let both = codec.requests.intersect(&codec.responses);
        let oldest = if api.key == 0 && !response { 0 } else { both.min };
        // InitProducerId 6 (KIP-939) is unstable in Kafka and not for clients.
        let newest = if api.key == 22 { 5 } else { both.max };
        assert_eq!((api.min, api.max), (oldest, newest), "api {}", api.key);
        for version in api.min..=api.max {
            let header = key.request_header_version(version);
            assert_eq!(
                version >= api.flexible,
                header == 2,
                "api {} version {version}",
                api.key
            );
        }
    }
}

/// A schema that is too strict about null would refuse what a client may send; bodies made from it never show it.
#[test]
fn what_the_codec_reads_as_null_may_be_null() {
    for case in Case::all() {
        for seed in 0..16 {
            let bodies = (0..).map_while(|nth| Generator::body_with_null(case.api, case.version, seed, nth));
            for (body, null_from) in bodies {
                if case.version < null_from {
                    let refused = case.check(&body);
                    assert!(
                        matches!(refused, Err(Malformed::Null { .. })),
                        "{case}: {refused:?}"
                    );
                }
                let read = case.recode(&body).is_some_and(|(left, _)| left == 0);
                // From which version on is Kafka's to say; the codec takes null in every version or in none.
                assert_eq!(read, case.api.max >= null_from, "{case}: {body:?}");
            }
        }
    }
}

#[test]
fn messages_come_back_through_the_doors() {
    for case in Case::all() {
        if case.what == "request" && case.version < Codec::of(case.api).requests.min {
            continue; // Produce 0 to 2 are decoded to be refused; nothing writes them.
        }
        let default = (case.through)(case.version, None);
        assert_eq!(case.check(&default), Ok(default.len()), "{case}");
        for seed in 0..8 {
            let body = Generator::body(case.api, case.version, seed);
            assert_eq!((case.through)(case.version, Some(&body)), body, "{case}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bodies_made_from_a_schema_are_the_codecs(seed in any::<u64>()) {
        for case in Case::all() {
            let body = Generator::body(case.api, case.version, seed);
            prop_assert_eq!(case.recode(&body), Some((0, body.clone())), "{}", case);
            prop_assert_eq!(case.check(&body), Ok(body.len()), "{}", case);
            let longer = [&body[..], &[0, 1, 2]].concat();
            prop_assert_eq!(case.check(&longer), Ok(body.len()), "{}", case);
        }
    }

    #[test]
    fn what_the_guard_lets_through_the_codec_reads_to_the_same_end(
        seed in any::<u64>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for case in Case::all() {
            let mut body = Generator::body(case.api, case.version, seed);
            if body.is_empty() {
                continue;
            }
            for (at, with) in &flips {
                let at = at.index(body.len());
                body[at] = *with;
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            // A count that slipped through would end this process with a failed allocation.
            if let Ok(len) = case.check(&body)
                && let Some((left, _)) = case.recode(&body)
            {
                prop_assert_eq!(body.len() - left, len, "{}", case);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
        for case in Case::all() {
            if let Ok(len) = case.check(&body) {
                prop_assert!(len <= body.len());
                case.recode(&body);
            }
        }
    }
}

#[test]
fn claims_beyond_the_bytes_are_refused() {
    let claim = i32::MAX.to_be_bytes();
    let metadata_v1 = [&claim[..], &[0; 16]].concat();
    assert_eq!(
        check(3, 1, &metadata_v1),
        Err(Malformed::Count {
            at: 0,
            count: 0x7fff_ffff
        })
    );
    let metadata_v9 = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
    assert_eq!(
        check(3, 9, &metadata_v9),
        Err(Malformed::Count {
            at: 0,
            count: 0xffff_fffe
        })
    );
    assert_eq!(check(3, 9, &[0xff; 10]), Err(Malformed::Varint { at: 0 }));
    assert_eq!(
        check(3, 1, &[0xff, 0xff, 0xff, 0xfe]),
        Err(Malformed::Length { at: 0 })
    );
    assert_eq!(check(3, 0, &[0xff; 4]), Err(Malformed::Null { at: 0 }));
    assert_eq!(check(3, 1, &[0, 0]), Err(Malformed::Truncated { at: 0 }));
    // Two tagged fields in one byte; a tagged field of 127 bytes in none; the same tag twice.
    assert_eq!(
        check(60, 0, &[0, 2, 0]),
        Err(Malformed::Count { at: 1, count: 2 })
    );
    assert_eq!(
        check(60, 0, &[0, 1, 9, 0x7f]),
        Err(Malformed::Truncated { at: 4 })
    );
    assert_eq!(
        check(60, 0, &[0, 2, 9, 0, 9, 0]),
        Err(Malformed::TagOrder { at: 4, tag: 9 })
    );
    // A struct that is there, null twice, and neither.
    let cursor = |mark: u8, rest: &'static [u8]| [&[1, 0, 0, 0, 9, mark], rest].concat();
    assert_eq!(check(75, 0, &cursor(1, &[2, b't', 0, 0, 0, 7, 0, 0])), Ok(14));
    assert_eq!(check(75, 0, &cursor(0xff, &[0])), Ok(7));
    assert_eq!(check(75, 0, &cursor(0x80, &[0])), Ok(7));
    for mark in [0, 2, 0x7f] {
        let refused = check(75, 0, &cursor(mark, &[2, b't', 0, 0, 0, 7, 0, 0]));
        assert_eq!(refused, Err(Malformed::Presence { at: 5 }));
    }
    // A compact string of 32768 bytes: more than Kafka takes.
    let long = [&[0x81, 0x80, 0x02][..], &[b'x'; 0x8000], &[0, 0, 0, 0]].concat();
    assert_eq!(check(10, 3, &long), Err(Malformed::Length { at: 0 }));
}

#[test]
fn a_known_tag_fills_its_size_and_waits_for_its_version() {
    let mut body = vec![
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1,
    ];
    let at = body.len() + 3;
    body.extend([1, 1, 13]);
    body.extend([0; 13]);
    assert_eq!(check(1, 15, &body), Ok(body.len()));
    body[at - 1] = 12;
    assert_eq!(check(1, 15, &body), Err(Malformed::TagValue { at, tag: 1 }));
    let older = [&[0; 4][..], &body].concat();
    assert_eq!(
        check(1, 14, &older),
        Err(Malformed::TagValue { at: at + 4, tag: 1 })
    );
}

#[test]
fn a_million_elements_are_enough() {
    // Fetch 7: 25 bytes of numbers, no topics, one forgotten topic with many partitions.
    let fetch = |count: u32| {
        let mut body = vec![0; 25];
        body.extend(0u32.to_be_bytes());
        body.extend(1u32.to_be_bytes());
        body.extend([0, 1, b'x']);
        body.extend(count.to_be_bytes());
        body.extend(vec![0; 4 * count as usize]);
        body
    };
    let most = u32::try_from(MAX_ELEMENTS).unwrap() - 1;
    assert_eq!(check(1, 7, &fetch(most)), Ok(40 + 4 * MAX_ELEMENTS - 4));
    assert_eq!(check(1, 7, &fetch(most + 1)), Err(Malformed::TooManyElements));
}
