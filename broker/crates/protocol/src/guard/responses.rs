//! The schemas of the responses that clients decode, as tables. One line is one field, in wire order.
//!
//! The codec has version 10 of the responses of OffsetCommit and OffsetFetch, but not of their requests: nobody can
//! ask for it, so it has no schema.

mod cluster;
mod configs;
mod groups;
mod records;
mod topics;

use super::shape::{Api, NEVER, api};

/// Every response that may be decoded.
pub(super) static RESPONSES: &[Api] = &[
    api(0, 3, 13, 9, &records::PRODUCE),
    api(1, 4, 18, 12, &records::FETCH),
    api(2, 1, 10, 6, &records::LIST_OFFSETS),
    api(3, 0, 13, 9, &cluster::METADATA),
    api(8, 2, 9, 8, &groups::OFFSET_COMMIT),
    api(9, 1, 9, 6, &groups::OFFSET_FETCH),
    api(10, 0, 6, 3, &groups::FIND_COORDINATOR),
    api(11, 0, 9, 6, &groups::JOIN_GROUP),
    api(12, 0, 4, 4, &groups::HEARTBEAT),
    api(13, 0, 5, 4, &groups::LEAVE_GROUP),
    api(14, 0, 5, 4, &groups::SYNC_GROUP),
    api(15, 0, 6, 5, &groups::DESCRIBE_GROUPS),
    api(16, 0, 5, 3, &groups::LIST_GROUPS),
    api(18, 0, 4, 3, &cluster::API_VERSIONS),
    api(19, 2, 7, 5, &topics::CREATE_TOPICS),
    api(20, 1, 6, 4, &topics::DELETE_TOPICS),
    api(21, 0, 2, 2, &records::DELETE_RECORDS),
    api(22, 0, 5, 2, &records::INIT_PRODUCER_ID),
    api(23, 2, 4, 4, &records::OFFSET_FOR_LEADER_EPOCH),
    api(24, 0, 5, 3, &records::ADD_PARTITIONS_TO_TXN),
    api(26, 0, 5, 3, &records::END_TXN),
    api(32, 1, 4, 4, &configs::DESCRIBE_CONFIGS),
    api(33, 0, 2, 2, &configs::ALTER_CONFIGS),
    api(35, 1, 4, 2, &topics::DESCRIBE_LOG_DIRS),
    api(37, 0, 3, 2, &topics::CREATE_PARTITIONS),
    api(42, 0, 2, 2, &groups::DELETE_GROUPS),
    api(43, 0, 2, 2, &topics::ELECT_LEADERS),
    api(44, 0, 1, 1, &configs::INCREMENTAL_ALTER_CONFIGS),
    api(45, 0, 1, 0, &topics::ALTER_PARTITION_REASSIGNMENTS),
    api(46, 0, 0, 0, &topics::LIST_PARTITION_REASSIGNMENTS),
    api(47, 0, 0, NEVER, &groups::OFFSET_DELETE),
    api(55, 0, 2, 0, &cluster::DESCRIBE_QUORUM),
    api(57, 0, 2, 0, &cluster::UPDATE_FEATURES),
    api(60, 0, 2, 0, &cluster::DESCRIBE_CLUSTER),
    api(61, 0, 0, 0, &records::DESCRIBE_PRODUCERS),
    api(64, 0, 0, 0, &cluster::UNREGISTER_BROKER),
    api(68, 0, 1, 0, &groups::CONSUMER_GROUP_HEARTBEAT),
    api(69, 0, 1, 0, &groups::CONSUMER_GROUP_DESCRIBE),
    api(74, 0, 1, 0, &configs::LIST_CONFIG_RESOURCES),
    api(75, 0, 0, 0, &cluster::DESCRIBE_TOPIC_PARTITIONS),
];
