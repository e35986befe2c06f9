//! Requests about consumer groups: coordinators, members and committed offsets.

use crate::guard::shape::{
    BYTES, I8, I32, I64, Kind, NULLABLE_STRING, STRING, Shape, UUID, array, between, field, nullable_array,
    shape, since,
};

pub(super) static FIND_COORDINATOR: Shape = shape(&[
    between(0, 3, STRING),    // key
    since(1, I8),             // key_type
    since(4, array(&STRING)), // coordinator_keys
]);

pub(super) static OFFSET_COMMIT: Shape = shape(&[
    field(STRING),             // group_id
    field(I32),                // generation_id_or_member_epoch
    field(STRING),             // member_id
    since(7, NULLABLE_STRING), // group_instance_id
    between(0, 4, I64),        // retention_time_ms
    field(array(&Kind::Struct(&OFFSET_COMMIT_TOPIC))),
]);
static OFFSET_COMMIT_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&OFFSET_COMMIT_PARTITION))),
]);
static OFFSET_COMMIT_PARTITION: Shape = shape(&[
    field(I32),             // partition_index
    field(I64),             // committed_offset
    since(6, I32),          // committed_leader_epoch
    field(NULLABLE_STRING), // committed_metadata
]);

pub(super) static OFFSET_FETCH: Shape = shape(&[
    between(0, 7, STRING), // group_id
    between(
        0,
        7,
        Kind::Array {
            null_from: 2,
            of: &Kind::Struct(&OFFSET_FETCH_TOPIC),
        },
    ),
    since(8, array(&Kind::Struct(&OFFSET_FETCH_GROUP))),
    since(7, Kind::Bool), // require_stable
]);
static OFFSET_FETCH_TOPIC: Shape = shape(&[
    field(STRING),      // name
    field(array(&I32)), // partition_indexes
]);
static OFFSET_FETCH_GROUP: Shape = shape(&[
    field(STRING),             // group_id
    since(9, NULLABLE_STRING), // member_id
    since(9, I32),             // member_epoch
    field(nullable_array(&Kind::Struct(&OFFSET_FETCH_TOPIC))),
]);

pub(super) static JOIN_GROUP: Shape = shape(&[
    field(STRING),             // group_id
    field(I32),                // session_timeout_ms
    since(1, I32),             // rebalance_timeout_ms
    field(STRING),             // member_id
    since(5, NULLABLE_STRING), // group_instance_id
    field(STRING),             // protocol_type
    field(array(&Kind::Struct(&JOIN_GROUP_PROTOCOL))),
    since(8, NULLABLE_STRING), // reason
]);
static JOIN_GROUP_PROTOCOL: Shape = shape(&[
    field(STRING), // name
    field(BYTES),  // metadata
]);

pub(super) static HEARTBEAT: Shape = shape(&[
    field(STRING),             // group_id
    field(I32),                // generation_id
    field(STRING),             // member_id
    since(3, NULLABLE_STRING), // group_instance_id
]);

pub(super) static LEAVE_GROUP: Shape = shape(&[
    field(STRING),         // group_id
    between(0, 2, STRING), // member_id
    since(3, array(&Kind::Struct(&LEAVING_MEMBER))),
]);
static LEAVING_MEMBER: Shape = shape(&[
    field(STRING),             // member_id
    field(NULLABLE_STRING),    // group_instance_id
    since(5, NULLABLE_STRING), // reason
]);

pub(super) static SYNC_GROUP: Shape = shape(&[
    field(STRING),             // group_id
    field(I32),                // generation_id
    field(STRING),             // member_id
    since(3, NULLABLE_STRING), // group_instance_id
    since(5, NULLABLE_STRING), // protocol_type
    since(5, NULLABLE_STRING), // protocol_name
    field(array(&Kind::Struct(&SYNC_GROUP_ASSIGNMENT))),
]);
static SYNC_GROUP_ASSIGNMENT: Shape = shape(&[
    field(STRING), // member_id
    field(BYTES),  // assignment
]);

pub(super) static DESCRIBE_GROUPS: Shape = shape(&[
    field(array(&STRING)), // groups
    since(3, Kind::Bool),  // include_authorized_operations
]);

pub(super) static LIST_GROUPS: Shape = shape(&[
    since(4, array(&STRING)), // states_filter
    since(5, array(&STRING)), // types_filter
]);

pub(super) static DELETE_GROUPS: Shape = shape(&[
    field(array(&STRING)), // groups_names
]);

pub(super) static OFFSET_DELETE: Shape = shape(&[
    field(STRING), // group_id
    field(array(&Kind::Struct(&OFFSET_DELETE_TOPIC))),
]);
static OFFSET_DELETE_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&OFFSET_DELETE_PARTITION))),
]);
static OFFSET_DELETE_PARTITION: Shape = shape(&[
    field(I32), // partition_index
]);

pub(super) static CONSUMER_GROUP_HEARTBEAT: Shape = shape(&[
    field(STRING),                  // group_id
    field(STRING),                  // member_id
    field(I32),                     // member_epoch
    field(NULLABLE_STRING),         // instance_id
    field(NULLABLE_STRING),         // rack_id
    field(I32),                     // rebalance_timeout_ms
    field(nullable_array(&STRING)), // subscribed_topic_names
    since(1, NULLABLE_STRING),      // subscribed_topic_regex
    field(NULLABLE_STRING),         // server_assignor
    field(nullable_array(&Kind::Struct(&OWNED_TOPIC))),
]);
static OWNED_TOPIC: Shape = shape(&[
    field(UUID),        // topic_id
    field(array(&I32)), // partitions
]);

pub(super) static CONSUMER_GROUP_DESCRIBE: Shape = shape(&[
    field(array(&STRING)), // group_ids
    field(Kind::Bool),     // include_authorized_operations
]);
