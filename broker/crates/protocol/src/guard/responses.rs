//! The schemas of the responses that clients decode, as tables. One line is one field, in wire order.

mod cluster;
mod configs;
mod groups;
mod records;
mod topics;

use super::shape::{Api, api};

/// Every response that may be decoded.
pub(super) static RESPONSES: &[Api] = &[
    api(0, 3, 13, 9, &records::PRODUCE),
    api(1, 4, 18, 12, &records::FETCH),
    api(2, 1, 10, 6, &records::LIST_OFFSETS),
    api(3, 0, 13, 9, &cluster::METADATA),
    api(10, 0, 6, 3, &groups::FIND_COORDINATOR),
    api(18, 0, 4, 3, &cluster::API_VERSIONS),
    api(19, 2, 7, 5, &topics::CREATE_TOPICS),
    api(20, 1, 6, 4, &topics::DELETE_TOPICS),
    api(22, 0, 5, 2, &records::INIT_PRODUCER_ID),
    api(23, 2, 4, 4, &records::OFFSET_FOR_LEADER_EPOCH),
    api(32, 1, 4, 4, &configs::DESCRIBE_CONFIGS),
    api(60, 0, 2, 0, &cluster::DESCRIBE_CLUSTER),
];
