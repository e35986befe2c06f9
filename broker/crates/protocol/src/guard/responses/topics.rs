//! Responses about topics and where their replicas are.

use crate::guard::shape::{
    I8, I16, I32, I64, Kind, NULLABLE_STRING, STRING, Shape, UUID, array, field, shape, since,
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

pub(super) static DESCRIBE_LOG_DIRS: Shape = shape(&[
    field(I32),    // throttle_time_ms
    since(3, I16), // error_code
    field(array(&Kind::Struct(&DESCRIBE_LOG_DIRS_RESULT))),
]);
static DESCRIBE_LOG_DIRS_RESULT: Shape = shape(&[
    field(I16),    // error_code
    field(STRING), // log_dir
    field(array(&Kind::Struct(&DESCRIBE_LOG_DIRS_TOPIC))),
    since(4, I64), // total_bytes
    since(4, I64), // usable_bytes
]);
static DESCRIBE_LOG_DIRS_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&DESCRIBE_LOG_DIRS_PARTITION))),
]);
static DESCRIBE_LOG_DIRS_PARTITION: Shape = shape(&[
    field(I32),        // partition_index
    field(I64),        // partition_size
    field(I64),        // offset_lag
    field(Kind::Bool), // is_future_key
]);

pub(super) static CREATE_PARTITIONS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&CREATE_PARTITIONS_TOPIC_RESULT))),
]);
static CREATE_PARTITIONS_TOPIC_RESULT: Shape = shape(&[
    field(STRING),          // name
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
]);

pub(super) static ELECT_LEADERS: Shape = shape(&[
    field(I32),    // throttle_time_ms
    since(1, I16), // error_code
    field(array(&Kind::Struct(&ELECTED_TOPIC))),
]);
static ELECTED_TOPIC: Shape = shape(&[
    field(STRING), // topic
    field(array(&Kind::Struct(&ELECTED_PARTITION))),
]);
static ELECTED_PARTITION: Shape = shape(&[
    field(I32),             // partition_id
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
]);

pub(super) static ALTER_PARTITION_REASSIGNMENTS: Shape = shape(&[
    field(I32),             // throttle_time_ms
    since(1, Kind::Bool),   // allow_replication_factor_change
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
    field(array(&Kind::Struct(&REASSIGNABLE_TOPIC))),
]);
static REASSIGNABLE_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&REASSIGNABLE_PARTITION))),
]);
static REASSIGNABLE_PARTITION: Shape = shape(&[
    field(I32),             // partition_index
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
]);

pub(super) static LIST_PARTITION_REASSIGNMENTS: Shape = shape(&[
    field(I32),             // throttle_time_ms
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
    field(array(&Kind::Struct(&ONGOING_TOPIC_REASSIGNMENT))),
]);
static ONGOING_TOPIC_REASSIGNMENT: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&ONGOING_PARTITION_REASSIGNMENT))),
]);
static ONGOING_PARTITION_REASSIGNMENT: Shape = shape(&[
    field(I32),         // partition_index
    field(array(&I32)), // replicas
    field(array(&I32)), // adding_replicas
    field(array(&I32)), // removing_replicas
]);
