//! The schemas are held against the codec: bodies made from a schema must be what the codec reads and writes,
//! and whatever the guard lets through must be read by the codec to the same end.

use bytes::Bytes;
use proptest::prelude::*;

use super::requests::REQUESTS;
use super::responses::RESPONSES;
use super::shape::{Api, Kind, Shape};
use super::{MAX_ELEMENTS, Malformed, check, check_response};
use crate::messages::*;

/// Makes bodies from a schema, with everything that may be there being there often.
struct Generator {
    state: u64,
    version: i16,
    flexible: bool,
    out: Vec<u8>,
}

impl Generator {
    fn body(api: &Api, version: i16, seed: u64) -> Vec<u8> {
        let mut generator = Self {
            state: seed,
            version,
            flexible: version >= api.flexible,
            out: Vec::new(),
        };
        generator.shape(api.body);
        generator.out
    }

    /// splitmix64
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u8) -> u8 {
        u8::try_from(self.random() % u64::from(end)).unwrap()
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        self.out.push(u8::try_from(value).unwrap());
    }

    fn shape(&mut self, shape: &Shape) {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| field.exists_in(version)) {
            self.kind(&field.kind, false);
        }
        if self.flexible {
            self.tags(shape);
        }
    }

    fn tags(&mut self, shape: &Shape) {
        let known: Vec<_> = shape
            .tags
            .iter()
            .filter(|(_, field)| field.exists_in(self.version))
            .collect();
        let known: Vec<_> = known.into_iter().filter(|_| self.below(2) == 0).collect();
        let unknown = self.below(3);
        self.uvarint(u32::try_from(known.len()).unwrap() + u32::from(unknown));
        for (tag, field) in known {
            self.uvarint(*tag);
            let before = std::mem::take(&mut self.out);
            self.kind(&field.kind, true);
            let value = std::mem::replace(&mut self.out, before);
            self.uvarint(u32::try_from(value.len()).unwrap());
            self.out.extend(value);
        }
        for tag in 0..unknown {
            self.uvarint(100 + 1000 * u32::from(tag));
            let len = self.below(4);
            self.uvarint(len.into());
            self.out.extend(vec![7; len.into()]);
        }
    }

    /// `tagged`: the codec leaves out a tagged field with its default value, so null, empty and 0 are not made.
    fn kind(&mut self, kind: &Kind, tagged: bool) {
        match kind {
            Kind::Bool => {
                let value = if tagged { 1 } else { self.below(2) };
                self.out.push(value);
            }
            Kind::Fixed(len) => {
                for _ in 0..*len {
                    let byte = if tagged {
                        1 + self.below(254)
                    } else {
                        self.below(255)
                    };
                    self.out.push(byte);
                }
            }
            Kind::String { null_from } => {
                if let Some(len) = self.length(*null_from, tagged, 2) {
                    self.out.extend(vec![b'x'; len.into()]);
                }
            }
            Kind::Bytes { null_from } => {
                if let Some(len) = self.length(*null_from, tagged, 4) {
                    self.out.extend(vec![0xff; len.into()]);
                }
            }
            Kind::Array { null_from, of } => {
                for _ in 0..self.length(*null_from, tagged, 4).unwrap_or(0) {
                    self.kind(of, false);
                }
            }
            Kind::Struct(shape) => self.shape(shape),
        }
    }

    /// Writes a length, `width` bytes wide if not compact; `None` is null.
    fn length(&mut self, null_from: i16, tagged: bool, width: usize) -> Option<u8> {
        let null = self.version >= null_from && !tagged && self.below(4) == 0;
        let len = (!null).then(|| if tagged { 1 + self.below(3) } else { self.below(4) });
        match (len, self.flexible) {
            (Some(len), true) => self.uvarint(u32::from(len) + 1),
            (None, true) => self.uvarint(0),
            (Some(len), false) => self.out.extend(&i32::from(len).to_be_bytes()[4 - width..]),
            (None, false) => self.out.extend(&[0xff; 4][..width]),
        }
        len
    }
}

/// What the codec left of some bytes, and what it writes itself for the value that it read.
type Recoded = Option<(usize, Vec<u8>)>;

/// Decodes and encodes without the guard.
fn recode<T: Decodable + Encodable>(version: i16, bytes: &[u8]) -> Recoded {
    let mut rest = Bytes::copy_from_slice(bytes);
    let message = T::decode(&mut rest, version).ok()?;
    let mut out = Vec::new();
    message.encode(&mut out, version).ok()?;
    assert_eq!(message.compute_size(version).unwrap(), out.len());
    Some((rest.len(), out))
}

fn recode_request(key: i16, version: i16, bytes: &[u8]) -> Recoded {
    if key == 0 && version < 3 {
        // Version 3 differs by the transactional id alone, and that may be null.
        let (left, out) = recode::<ProduceRequest>(3, &[&[0xff, 0xff], bytes].concat())?;
        return Some((left, out[2..].to_vec()));
    }
    recode_as::<false>(key, version, bytes)
}

fn recode_response(key: i16, version: i16, bytes: &[u8]) -> Recoded {
    recode_as::<true>(key, version, bytes)
}

fn recode_as<const RESPONSE: bool>(key: i16, version: i16, bytes: &[u8]) -> Recoded {
    fn with<T: Request, const RESPONSE: bool>(version: i16, bytes: &[u8]) -> Recoded {
        if RESPONSE {
            recode::<T::Response>(version, bytes)
        } else {
            recode::<T>(version, bytes)
        }
    }
    match key {
        0 => with::<ProduceRequest, RESPONSE>(version, bytes),
        1 => with::<FetchRequest, RESPONSE>(version, bytes),
        2 => with::<ListOffsetsRequest, RESPONSE>(version, bytes),
        3 => with::<MetadataRequest, RESPONSE>(version, bytes),
        10 => with::<FindCoordinatorRequest, RESPONSE>(version, bytes),
        18 => with::<ApiVersionsRequest, RESPONSE>(version, bytes),
        19 => with::<CreateTopicsRequest, RESPONSE>(version, bytes),
        20 => with::<DeleteTopicsRequest, RESPONSE>(version, bytes),
        22 => with::<InitProducerIdRequest, RESPONSE>(version, bytes),
        23 => with::<OffsetForLeaderEpochRequest, RESPONSE>(version, bytes),
        32 => with::<DescribeConfigsRequest, RESPONSE>(version, bytes),
        60 => with::<DescribeClusterRequest, RESPONSE>(version, bytes),
        _ => panic!("api {key} has a schema but is not tested"),
    }
}

/// A schema in one version, the guard and the codec for it.
struct Case {
    what: &'static str,
    api: &'static Api,
    version: i16,
    check: fn(i16, i16, &[u8]) -> Result<usize, Malformed>,
    recode: fn(i16, i16, &[u8]) -> Recoded,
}

impl Case {
    fn all() -> impl Iterator<Item = Case> {
        let versions = |api: &'static Api| (api.min..=api.max).map(move |version| (api, version));
        let request = |(api, version)| Case {
            what: "request",
            api,
            version,
            check,
            recode: recode_request,
        };
        let response = |(api, version)| Case {
            what: "response",
            api,
            version,
            check: check_response,
            recode: recode_response,
        };
        let requests = REQUESTS.iter().flat_map(versions).map(request);
        requests.chain(RESPONSES.iter().flat_map(versions).map(response))
    }

    fn check(&self, body: &[u8]) -> Result<usize, Malformed> {
        (self.check)(self.api.key, self.version, body)
    }

    fn recode(&self, body: &[u8]) -> Recoded {
        (self.recode)(self.api.key, self.version, body)
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
fn versions_are_those_of_the_codec() {
    for (api, response) in REQUESTS
        .iter()
        .map(|a| (a, false))
        .chain(RESPONSES.iter().map(|a| (a, true)))
    {
        let key = ApiKey::try_from(api.key).unwrap();
        let codec = key.valid_versions();
        let oldest = if api.key == 0 && !response { 0 } else { codec.min };
        // InitProducerId 6 (KIP-939) is unstable in Kafka and not for clients.
        let newest = if api.key == 22 { 5 } else { codec.max };
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
