//! Requests: what decodes can be encoded again and means the same.

use bytes::{Bytes, BytesMut};
use takhin_protocol::messages::{
    self, AlterConfigsRequest, AlterPartitionReassignmentsRequest, ApiVersionsRequest,
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
    FetchRequest, FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest,
    ListGroupsRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
    ProduceRequest, Request, SyncGroupRequest, UnregisterBrokerRequest, UpdateFeaturesRequest,
};
use takhin_protocol::request::RequestHead;

/// Reads `data` as a frame: header, then the body of whatever API the header names.
///
/// # Panics
/// When a request that decoded does not survive being encoded and decoded again.
pub fn request_decode(data: &[u8]) {
    let mut frame = Bytes::copy_from_slice(data);
    let Ok(head) = RequestHead::parse(&mut frame) else {
        return;
    };
    let (key, version) = (head.api_key as i16, head.api_version);
    round_trip::<ProduceRequest>(key, version, &frame);
    round_trip::<FetchRequest>(key, version, &frame);
    round_trip::<ListOffsetsRequest>(key, version, &frame);
    round_trip::<MetadataRequest>(key, version, &frame);
    round_trip::<ApiVersionsRequest>(key, version, &frame);
    round_trip::<CreateTopicsRequest>(key, version, &frame);
    round_trip::<DeleteTopicsRequest>(key, version, &frame);
    round_trip::<InitProducerIdRequest>(key, version, &frame);
    round_trip::<OffsetForLeaderEpochRequest>(key, version, &frame);
    round_trip::<DescribeConfigsRequest>(key, version, &frame);
    round_trip::<DescribeClusterRequest>(key, version, &frame);
    round_trip::<OffsetCommitRequest>(key, version, &frame);
    round_trip::<OffsetFetchRequest>(key, version, &frame);
    round_trip::<FindCoordinatorRequest>(key, version, &frame);
    round_trip::<JoinGroupRequest>(key, version, &frame);
    round_trip::<HeartbeatRequest>(key, version, &frame);
    round_trip::<LeaveGroupRequest>(key, version, &frame);
    round_trip::<SyncGroupRequest>(key, version, &frame);
    round_trip::<DescribeGroupsRequest>(key, version, &frame);
    round_trip::<ListGroupsRequest>(key, version, &frame);
    round_trip::<DeleteRecordsRequest>(key, version, &frame);
    round_trip::<AlterConfigsRequest>(key, version, &frame);
    round_trip::<DescribeLogDirsRequest>(key, version, &frame);
    round_trip::<CreatePartitionsRequest>(key, version, &frame);
    round_trip::<DeleteGroupsRequest>(key, version, &frame);
    round_trip::<ElectLeadersRequest>(key, version, &frame);
    round_trip::<IncrementalAlterConfigsRequest>(key, version, &frame);
    round_trip::<AlterPartitionReassignmentsRequest>(key, version, &frame);
    round_trip::<ListPartitionReassignmentsRequest>(key, version, &frame);
    round_trip::<OffsetDeleteRequest>(key, version, &frame);
    round_trip::<DescribeQuorumRequest>(key, version, &frame);
    round_trip::<UpdateFeaturesRequest>(key, version, &frame);
    round_trip::<DescribeProducersRequest>(key, version, &frame);
    round_trip::<UnregisterBrokerRequest>(key, version, &frame);
    round_trip::<ConsumerGroupHeartbeatRequest>(key, version, &frame);
    round_trip::<ConsumerGroupDescribeRequest>(key, version, &frame);
    round_trip::<ListConfigResourcesRequest>(key, version, &frame);
    round_trip::<DescribeTopicPartitionsRequest>(key, version, &frame);
}

fn round_trip<T: Request + PartialEq + std::fmt::Debug + 'static>(key: i16, version: i16, body: &Bytes) {
    if key != T::KEY {
        return;
    }
    let Ok(request) = messages::decode::<T>(version, &mut body.clone()) else {
        return;
    };
    // Versions that are decoded only to be refused cannot be written.
    if version < T::VERSIONS.min || version > T::VERSIONS.max {
        return;
    }
    let mut encoded = BytesMut::new();
    request
        .encode(&mut encoded, version)
        .unwrap_or_else(|error| panic!("decoded, not encodable: {error}"));
    let again = messages::decode::<T>(version, &mut encoded.freeze());
    let again = again.unwrap_or_else(|error| panic!("encoded, not decodable: {error}"));
    assert_eq!(request, again);
}
