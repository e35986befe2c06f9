//! The codec of every API that has a schema, chosen by its key.

use bytes::{Bytes, BytesMut};

use super::super::shape::Api;
use crate::frame;
use crate::messages::*;
use crate::request::RequestHead;

/// What the codec left of some bytes, and what it writes itself for the value that it read.
pub(super) type Recoded = Option<(usize, Vec<u8>)>;

/// What the codec can do for an API.
pub(super) struct Codec {
    pub(super) requests: VersionRange,
    pub(super) responses: VersionRange,
    /// Decodes and encodes without the guard.
    pub(super) recode_request: fn(i16, &[u8]) -> Recoded,
    pub(super) recode_response: fn(i16, &[u8]) -> Recoded,
    /// A body, or the default value, through the crate's doors and back. Returns the body that went over the wire.
    pub(super) request_through: fn(i16, Option<&[u8]>) -> Vec<u8>,
    pub(super) response_through: fn(i16, Option<&[u8]>) -> Vec<u8>,
}

impl Codec {
    pub(super) fn of(api: &Api) -> Self {
        match api.key {
            0 => Self {
                recode_request: recode_produce,
                ..of::<ProduceRequest>()
            },
            1 => of::<FetchRequest>(),
            2 => of::<ListOffsetsRequest>(),
            3 => of::<MetadataRequest>(),
            8 => of::<OffsetCommitRequest>(),
            9 => of::<OffsetFetchRequest>(),
            10 => of::<FindCoordinatorRequest>(),
            11 => of::<JoinGroupRequest>(),
            12 => of::<HeartbeatRequest>(),
            13 => of::<LeaveGroupRequest>(),
            14 => of::<SyncGroupRequest>(),
            15 => of::<DescribeGroupsRequest>(),
            16 => of::<ListGroupsRequest>(),
            18 => of::<ApiVersionsRequest>(),
            19 => of::<CreateTopicsRequest>(),
            20 => of::<DeleteTopicsRequest>(),
            21 => of::<DeleteRecordsRequest>(),
            22 => of::<InitProducerIdRequest>(),
            23 => of::<OffsetForLeaderEpochRequest>(),
            24 => of::<AddPartitionsToTxnRequest>(),
            26 => of::<EndTxnRequest>(),
            32 => of::<DescribeConfigsRequest>(),
            33 => of::<AlterConfigsRequest>(),
            35 => of::<DescribeLogDirsRequest>(),
            37 => of::<CreatePartitionsRequest>(),
            42 => of::<DeleteGroupsRequest>(),
            43 => of::<ElectLeadersRequest>(),
            44 => of::<IncrementalAlterConfigsRequest>(),
            45 => of::<AlterPartitionReassignmentsRequest>(),
            46 => of::<ListPartitionReassignmentsRequest>(),
            47 => of::<OffsetDeleteRequest>(),
            55 => of::<DescribeQuorumRequest>(),
            57 => of::<UpdateFeaturesRequest>(),
            60 => of::<DescribeClusterRequest>(),
            61 => of::<DescribeProducersRequest>(),
            64 => of::<UnregisterBrokerRequest>(),
            68 => of::<ConsumerGroupHeartbeatRequest>(),
            69 => of::<ConsumerGroupDescribeRequest>(),
            74 => of::<ListConfigResourcesRequest>(),
            75 => of::<DescribeTopicPartitionsRequest>(),
            key => panic!("api {key} has a schema but is not tested"),
        }
    }
}

fn of<T>() -> Codec
where
    T: Request + Default + 'static,
    T::Response: Default + 'static,
{
    Codec {
        requests: T::VERSIONS,
        responses: T::Response::VERSIONS,
        recode_request: recode::<T>,
        recode_response: recode::<T::Response>,
        request_through: request_through::<T>,
        response_through: response_through::<T>,
    }
}

fn recode<T: Decodable + Encodable>(version: i16, bytes: &[u8]) -> Recoded {
    let mut rest = Bytes::copy_from_slice(bytes);
    let message = T::decode(&mut rest, version).ok()?;
    let mut out = Vec::new();
    message.encode(&mut out, version).ok()?;
    assert_eq!(message.compute_size(version).unwrap(), out.len());
    Some((rest.len(), out))
}

fn recode_produce(version: i16, bytes: &[u8]) -> Recoded {
    if version < 3 {
        // Version 3 differs by the transactional id alone, and that may be null.
        let (left, out) = recode::<ProduceRequest>(3, &[&[0xff, 0xff], bytes].concat())?;
        return Some((left, out[2..].to_vec()));
    }
    recode::<ProduceRequest>(version, bytes)
}

fn body<T: Encodable>(version: i16, message: &T) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out, version).unwrap();
    out
}

fn request_through<T: Request + Default + 'static>(version: i16, bytes: Option<&[u8]>) -> Vec<u8> {
    let message = match bytes {
        Some(bytes) => decode::<T>(version, &mut Bytes::copy_from_slice(bytes)).unwrap(),
        None => T::default(),
    };
    let sent = encode_request(version, 7, Some(&"me".into()), &message).unwrap();
    let mut rest = frame::next(&mut BytesMut::from(&sent[..]), sent.len())
        .unwrap()
        .unwrap();
    let head = RequestHead::parse(&mut rest).unwrap();
    assert_eq!((head.api_key as i16, head.api_version), (T::KEY, version));
    let wire = rest.to_vec();
    let received = decode::<T>(version, &mut rest).unwrap();
    assert!(rest.is_empty());
    assert_eq!(body(version, &received), wire);
    wire
}

fn response_through<T>(version: i16, bytes: Option<&[u8]>) -> Vec<u8>
where
    T: Request,
    T::Response: Default + 'static,
{
    let message = match bytes {
        Some(bytes) => T::Response::decode(&mut Bytes::copy_from_slice(bytes), version).unwrap(),
        None => T::Response::default(),
    };
    let mut rest = encode_response(version, 7, &message).unwrap().slice(4..);
    let (correlation_id, received) = decode_response::<T>(version, &mut rest).unwrap();
    assert_eq!(correlation_id, 7);
    assert!(rest.is_empty());
    body(version, &received)
}
