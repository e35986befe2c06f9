//! Requests about topics and where their replicas are.

use crate::guard::shape::{
    I8, I16, I32, Kind, NULLABLE_STRING, STRING, Shape, UUID, array, between, field, nullable_array, shape,
    since,
};

pub(super) static CREATE_TOPICS: Shape = shape(&[
    field(array(&Kind::Struct(&CREATABLE_TOPIC))),
    field(I32),        // timeout_ms
    field(Kind::Bool), // validate_only
]);
static CREATABLE_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(I32),    // num_partitions
    field(I16),    // replication_factor
    field(array(&Kind::Struct(&CREATABLE_ASSIGNMENT))),
    field(array(&Kind::Struct(&CREATABLE_CONFIG))),
]);
static CREATABLE_ASSIGNMENT: Shape = shape(&[
    field(I32),         // partition_index
    field(array(&I32)), // broker_ids
]);
static CREATABLE_CONFIG: Shape = shape(&[
    field(STRING),          // name
    field(NULLABLE_STRING), // value
]);

pub(super) static DELETE_TOPICS: Shape = shape(&[
    since(6, array(&Kind::Struct(&DELETE_TOPIC_STATE))),
    between(0, 5, array(&STRING)), // topic_names
    field(I32),                    // timeout_ms
]);
static DELETE_TOPIC_STATE: Shape = shape(&[
    field(NULLABLE_STRING), // name
    field(UUID),            // topic_id
]);

pub(super) static DESCRIBE_LOG_DIRS: Shape =
    shape(&[field(nullable_array(&Kind::Struct(&DESCRIBE_LOG_DIRS_TOPIC)))]);
static DESCRIBE_LOG_DIRS_TOPIC: Shape = shape(&[
    field(STRING),      // topic
    field(array(&I32)), // partitions
]);

pub(super) static CREATE_PARTITIONS: Shape = shape(&[
    field(array(&Kind::Struct(&CREATE_PARTITIONS_TOPIC))),
    field(I32),        // timeout_ms
    field(Kind::Bool), // validate_only
]);
static CREATE_PARTITIONS_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(I32),    // count
    field(nullable_array(&Kind::Struct(&CREATE_PARTITIONS_ASSIGNMENT))),
]);
static CREATE_PARTITIONS_ASSIGNMENT: Shape = shape(&[
    field(array(&I32)), // broker_ids
]);

pub(super) static ELECT_LEADERS: Shape = shape(&[
    since(1, I8), // election_type
    field(nullable_array(&Kind::Struct(&ELECT_LEADERS_TOPIC))),
    field(I32), // timeout_ms
]);
static ELECT_LEADERS_TOPIC: Shape = shape(&[
    field(STRING),      // topic
    field(array(&I32)), // partitions
]);

pub(super) static ALTER_PARTITION_REASSIGNMENTS: Shape = shape(&[
    field(I32),           // timeout_ms
    since(1, Kind::Bool), // allow_replication_factor_change
    field(array(&Kind::Struct(&REASSIGNABLE_TOPIC))),
]);
static REASSIGNABLE_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&REASSIGNABLE_PARTITION))),
]);
static REASSIGNABLE_PARTITION: Shape = shape(&[
    field(I32),                  // partition_index
    field(nullable_array(&I32)), // replicas
]);

pub(super) static LIST_PARTITION_REASSIGNMENTS: Shape = shape(&[
    field(I32), // timeout_ms
    field(nullable_array(&Kind::Struct(&LIST_PARTITION_REASSIGNMENTS_TOPIC))),
]);
static LIST_PARTITION_REASSIGNMENTS_TOPIC: Shape = shape(&[
    field(STRING),      // name
    field(array(&I32)), // partition_indexes
]);
