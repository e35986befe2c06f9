//! Responses about topics and where their replicas are.

use crate::guard::shape::{
    I8, I16, I32, Kind, NULLABLE_STRING, STRING, Shape, UUID, array, field, shape, since,
};

pub(super) static CREATE_TOPICS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&CREATED_TOPIC))),
]);
static CREATED_TOPIC: Shape = Shape {
    fields: &[
        field(STRING),          // name
        since(7, UUID),         // topic_id
        field(I16),             // error_code
        field(NULLABLE_STRING), // error_message
        since(5, I32),          // num_partitions
        since(5, I16),          // replication_factor
        since(
            5,
            Kind::Array {
                null_from: 5,
                of: &Kind::Struct(&CREATED_CONFIG),
            },
        ),
    ],
    tags: &[(0, since(5, I16))], // topic_config_error_code
};
static CREATED_CONFIG: Shape = shape(&[
    field(STRING),          // name
    field(NULLABLE_STRING), // value
    field(Kind::Bool),      // read_only
    field(I8),              // config_source
    field(Kind::Bool),      // is_sensitive
]);

pub(super) static DELETE_TOPICS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&DELETED_TOPIC))),
]);
static DELETED_TOPIC: Shape = shape(&[
    field(Kind::String { null_from: 6 }), // name
    since(6, UUID),                       // topic_id
    field(I16),                           // error_code
    since(5, NULLABLE_STRING),            // error_message
]);
