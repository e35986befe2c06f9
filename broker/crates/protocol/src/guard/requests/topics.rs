//! Requests about topics and where their replicas are.

use crate::guard::shape::{
    I16, I32, Kind, NULLABLE_STRING, STRING, Shape, UUID, array, between, field, shape, since,
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
