//! Responses about consumer groups: coordinators, members and committed offsets.

use crate::guard::shape::{
    BYTES, I8, I16, I32, I64, Kind, NULLABLE_STRING, STRING, Shape, UUID, array, between, field, shape, since,
};

pub(super) static FIND_COORDINATOR: Shape = shape(&[
    since(1, I32),                  // throttle_time_ms
    between(0, 3, I16),             // error_code
    between(1, 3, NULLABLE_STRING), // error_message
    between(0, 3, I32),             // node_id
    between(0, 3, STRING),          // host
    between(0, 3, I32),             // port
    since(4, array(&Kind::Struct(&COORDINATOR))),
]);
static COORDINATOR: Shape = shape(&[
    field(STRING),          // key
    field(I32),             // node_id
    field(STRING),          // host
    field(I32),             // port
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
]);

pub(super) static OFFSET_COMMIT: Shape = shape(&[
    since(3, I32), // throttle_time_ms
    field(array(&Kind::Struct(&OFFSET_COMMIT_TOPIC))),
]);
static OFFSET_COMMIT_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&OFFSET_COMMIT_PARTITION))),
]);
static OFFSET_COMMIT_PARTITION: Shape = shape(&[
    field(I32), // partition_index
    field(I16), // error_code
]);

pub(super) static OFFSET_FETCH: Shape = shape(&[
    since(3, I32), // throttle_time_ms
    between(0, 7, array(&Kind::Struct(&OFFSET_FETCH_TOPIC))),
    between(2, 7, I16), // error_code
    since(8, array(&Kind::Struct(&OFFSET_FETCH_GROUP))),
]);
static OFFSET_FETCH_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&OFFSET_FETCH_PARTITION))),
]);
static OFFSET_FETCH_PARTITION: Shape = shape(&[
    field(I32),             // partition_index
    field(I64),             // committed_offset
    since(5, I32),          // committed_leader_epoch
    field(NULLABLE_STRING), // metadata
    field(I16),             // error_code
]);
static OFFSET_FETCH_GROUP: Shape = shape(&[
    field(STRING), // group_id
    field(array(&Kind::Struct(&OFFSET_FETCH_TOPIC))),
    field(I16), // error_code
]);

pub(super) static JOIN_GROUP: Shape = shape(&[
    since(2, I32),                        // throttle_time_ms
    field(I16),                           // error_code
    field(I32),                           // generation_id
    since(7, NULLABLE_STRING),            // protocol_type
    field(Kind::String { null_from: 7 }), // protocol_name
    field(STRING),                        // leader
    since(9, Kind::Bool),                 // skip_assignment
    field(STRING),                        // member_id
    field(array(&Kind::Struct(&JOIN_GROUP_MEMBER))),
]);
static JOIN_GROUP_MEMBER: Shape = shape(&[
    field(STRING),             // member_id
    since(5, NULLABLE_STRING), // group_instance_id
    field(BYTES),              // metadata
]);

pub(super) static HEARTBEAT: Shape = shape(&[
    since(1, I32), // throttle_time_ms
    field(I16),    // error_code
]);

pub(super) static LEAVE_GROUP: Shape = shape(&[
    since(1, I32), // throttle_time_ms
    field(I16),    // error_code
    since(3, array(&Kind::Struct(&LEFT_MEMBER))),
]);
static LEFT_MEMBER: Shape = shape(&[
    field(STRING),          // member_id
    field(NULLABLE_STRING), // group_instance_id
    field(I16),             // error_code
]);

pub(super) static SYNC_GROUP: Shape = shape(&[
    since(1, I32),             // throttle_time_ms
    field(I16),                // error_code
    since(5, NULLABLE_STRING), // protocol_type
    since(5, NULLABLE_STRING), // protocol_name
    field(BYTES),              // assignment
]);

pub(super) static DESCRIBE_GROUPS: Shape = shape(&[
    since(1, I32), // throttle_time_ms
    field(array(&Kind::Struct(&DESCRIBED_GROUP))),
]);
static DESCRIBED_GROUP: Shape = shape(&[
    field(I16),                // error_code
    since(6, NULLABLE_STRING), // error_message
    field(STRING),             // group_id
    field(STRING),             // group_state
    field(STRING),             // protocol_type
    field(STRING),             // protocol_data
    field(array(&Kind::Struct(&DESCRIBED_GROUP_MEMBER))),
    since(3, I32), // authorized_operations
]);
static DESCRIBED_GROUP_MEMBER: Shape = shape(&[
    field(STRING),             // member_id
    since(4, NULLABLE_STRING), // group_instance_id
    field(STRING),             // client_id
    field(STRING),             // client_host
    field(BYTES),              // member_metadata
    field(BYTES),              // member_assignment
]);

pub(super) static LIST_GROUPS: Shape = shape(&[
    since(1, I32), // throttle_time_ms
    field(I16),    // error_code
    field(array(&Kind::Struct(&LISTED_GROUP))),
]);
static LISTED_GROUP: Shape = shape(&[
    field(STRING),    // group_id
    field(STRING),    // protocol_type
    since(4, STRING), // group_state
    since(5, STRING), // group_type
]);

pub(super) static DELETE_GROUPS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&DELETED_GROUP))),
]);
static DELETED_GROUP: Shape = shape(&[
    field(STRING), // group_id
    field(I16),    // error_code
]);

pub(super) static OFFSET_DELETE: Shape = shape(&[
    field(I16), // error_code
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&OFFSET_DELETE_TOPIC))),
]);
static OFFSET_DELETE_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&OFFSET_DELETE_PARTITION))),
]);
static OFFSET_DELETE_PARTITION: Shape = shape(&[
    field(I32), // partition_index
    field(I16), // error_code
]);

pub(super) static CONSUMER_GROUP_HEARTBEAT: Shape = shape(&[
    field(I32),                         // throttle_time_ms
    field(I16),                         // error_code
    field(NULLABLE_STRING),             // error_message
    field(NULLABLE_STRING),             // member_id
    field(I32),                         // member_epoch
    field(I32),                         // heartbeat_interval_ms
    field(Kind::Nullable(&ASSIGNMENT)), // assignment
]);
static ASSIGNMENT: Shape = shape(&[field(array(&Kind::Struct(&ASSIGNED_TOPIC)))]);
static ASSIGNED_TOPIC: Shape = shape(&[
    field(UUID),        // topic_id
    field(array(&I32)), // partitions
]);

pub(super) static CONSUMER_GROUP_DESCRIBE: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&CONSUMER_GROUP))),
]);
static CONSUMER_GROUP: Shape = shape(&[
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
    field(STRING),          // group_id
    field(STRING),          // group_state
    field(I32),             // group_epoch
    field(I32),             // assignment_epoch
    field(STRING),          // assignor_name
    field(array(&Kind::Struct(&CONSUMER_GROUP_MEMBER))),
    field(I32), // authorized_operations
]);
static CONSUMER_GROUP_MEMBER: Shape = shape(&[
    field(STRING),                                   // member_id
    field(NULLABLE_STRING),                          // instance_id
    field(NULLABLE_STRING),                          // rack_id
    field(I32),                                      // member_epoch
    field(STRING),                                   // client_id
    field(STRING),                                   // client_host
    field(array(&STRING)),                           // subscribed_topic_names
    field(NULLABLE_STRING),                          // subscribed_topic_regex
    field(Kind::Struct(&CONSUMER_GROUP_ASSIGNMENT)), // assignment
    field(Kind::Struct(&CONSUMER_GROUP_ASSIGNMENT)), // target_assignment
    since(1, I8),                                    // member_type
]);
static CONSUMER_GROUP_ASSIGNMENT: Shape = shape(&[field(array(&Kind::Struct(&CONSUMER_GROUP_TOPIC)))]);
static CONSUMER_GROUP_TOPIC: Shape = shape(&[
    field(UUID),        // topic_id
    field(STRING),      // topic_name
    field(array(&I32)), // partitions
]);
