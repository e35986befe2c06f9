//! The schemas of the responses that clients decode, as tables. One line is one field, in wire order.

use super::shape::{
    Api, I8, I16, I32, I64, Kind, NULLABLE_STRING, STRING, Shape, UUID, api, array, between, field, shape,
    since,
};

/// Every response that may be decoded.
pub(super) static RESPONSES: &[Api] = &[
    api(0, 3, 13, 9, &PRODUCE),
    api(1, 4, 18, 12, &FETCH),
    api(2, 1, 10, 6, &LIST_OFFSETS),
    api(3, 0, 13, 9, &METADATA),
    api(10, 0, 6, 3, &FIND_COORDINATOR),
    api(18, 0, 4, 3, &API_VERSIONS),
    api(19, 2, 7, 5, &CREATE_TOPICS),
    api(20, 1, 6, 4, &DELETE_TOPICS),
    api(22, 0, 5, 2, &INIT_PRODUCER_ID),
    api(23, 2, 4, 4, &OFFSET_FOR_LEADER_EPOCH),
    api(32, 1, 4, 4, &DESCRIBE_CONFIGS),
    api(60, 0, 2, 0, &DESCRIBE_CLUSTER),
];

static LEADER_ID_AND_EPOCH: Shape = shape(&[
    field(I32), // leader_id
    field(I32), // leader_epoch
]);
static NODE_ENDPOINT: Shape = shape(&[
    field(I32),             // node_id
    field(STRING),          // host
    field(I32),             // port
    field(NULLABLE_STRING), // rack
]);

static PRODUCE: Shape = Shape {
    fields: &[
        field(array(&Kind::Struct(&PRODUCE_TOPIC))),
        field(I32), // throttle_time_ms
    ],
    tags: &[(0, since(10, array(&Kind::Struct(&NODE_ENDPOINT))))],
};
static PRODUCE_TOPIC: Shape = shape(&[
    between(0, 12, STRING), // name
    since(13, UUID),        // topic_id
    field(array(&Kind::Struct(&PRODUCE_PARTITION))),
]);
static PRODUCE_PARTITION: Shape = Shape {
    fields: &[
        field(I32),    // index
        field(I16),    // error_code
        field(I64),    // base_offset
        field(I64),    // log_append_time_ms
        since(5, I64), // log_start_offset
        since(8, array(&Kind::Struct(&RECORD_ERROR))),
        since(8, NULLABLE_STRING), // error_message
    ],
    tags: &[(0, since(10, Kind::Struct(&LEADER_ID_AND_EPOCH)))],
};
static RECORD_ERROR: Shape = shape(&[
    field(I32),             // batch_index
    field(NULLABLE_STRING), // batch_index_error_message
]);

static FETCH: Shape = Shape {
    fields: &[
        field(I32),    // throttle_time_ms
        since(7, I16), // error_code
        since(7, I32), // session_id
        field(array(&Kind::Struct(&FETCH_TOPIC))),
    ],
    tags: &[(0, since(16, array(&Kind::Struct(&NODE_ENDPOINT))))],
};
static FETCH_TOPIC: Shape = shape(&[
    between(0, 12, STRING), // topic
    since(13, UUID),        // topic_id
    field(array(&Kind::Struct(&FETCH_PARTITION))),
]);
static FETCH_PARTITION: Shape = Shape {
    fields: &[
        field(I32),    // partition_index
        field(I16),    // error_code
        field(I64),    // high_watermark
        field(I64),    // last_stable_offset
        since(5, I64), // log_start_offset
        field(Kind::Array {
            null_from: 0,
            of: &Kind::Struct(&ABORTED_TRANSACTION),
        }),
        since(11, I32),                      // preferred_read_replica
        field(Kind::Bytes { null_from: 0 }), // records
    ],
    tags: &[
        (0, since(12, Kind::Struct(&DIVERGING_EPOCH))),
        (1, since(12, Kind::Struct(&LEADER_ID_AND_EPOCH))),
        (2, since(12, Kind::Struct(&SNAPSHOT_ID))),
    ],
};
static ABORTED_TRANSACTION: Shape = shape(&[
    field(I64), // producer_id
    field(I64), // first_offset
]);
static DIVERGING_EPOCH: Shape = shape(&[
    field(I32), // epoch
    field(I64), // end_offset
]);
static SNAPSHOT_ID: Shape = shape(&[
    field(I64), // end_offset
    field(I32), // epoch
]);

static LIST_OFFSETS: Shape = shape(&[
    since(2, I32), // throttle_time_ms
    field(array(&Kind::Struct(&LIST_OFFSETS_TOPIC))),
]);
static LIST_OFFSETS_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&LIST_OFFSETS_PARTITION))),
]);
static LIST_OFFSETS_PARTITION: Shape = shape(&[
    field(I32),    // partition_index
    field(I16),    // error_code
    field(I64),    // timestamp
    field(I64),    // offset
    since(4, I32), // leader_epoch
]);

static METADATA: Shape = shape(&[
    since(3, I32), // throttle_time_ms
    field(array(&Kind::Struct(&METADATA_BROKER))),
    since(2, NULLABLE_STRING), // cluster_id
    since(1, I32),             // controller_id
    field(array(&Kind::Struct(&METADATA_TOPIC))),
    between(8, 10, I32), // cluster_authorized_operations
    since(13, I16),      // error_code
]);
static METADATA_BROKER: Shape = shape(&[
    field(I32),                // node_id
    field(STRING),             // host
    field(I32),                // port
    since(1, NULLABLE_STRING), // rack
]);
static METADATA_TOPIC: Shape = shape(&[
    field(I16),                            // error_code
    field(Kind::String { null_from: 12 }), // name
    since(10, UUID),                       // topic_id
    since(1, Kind::Bool),                  // is_internal
    field(array(&Kind::Struct(&METADATA_PARTITION))),
    since(8, I32), // topic_authorized_operations
]);
static METADATA_PARTITION: Shape = shape(&[
    field(I16),            // error_code
    field(I32),            // partition_index
    field(I32),            // leader_id
    since(7, I32),         // leader_epoch
    field(array(&I32)),    // replica_nodes
    field(array(&I32)),    // isr_nodes
    since(5, array(&I32)), // offline_replicas
]);

static FIND_COORDINATOR: Shape = shape(&[
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

static API_VERSIONS: Shape = Shape {
    fields: &[
        field(I16), // error_code
        field(array(&Kind::Struct(&API_VERSION))),
        since(1, I32), // throttle_time_ms
    ],
    tags: &[
        (0, since(3, array(&Kind::Struct(&FEATURE)))), // supported_features
        (1, since(3, I64)),                            // finalized_features_epoch
        (2, since(3, array(&Kind::Struct(&FEATURE)))), // finalized_features
        (3, since(3, Kind::Bool)),                     // zk_migration_ready
    ],
};
static API_VERSION: Shape = shape(&[
    field(I16), // api_key
    field(I16), // min_version
    field(I16), // max_version
]);
/// Supported features have the minimum first, finalized ones the maximum.
static FEATURE: Shape = shape(&[
    field(STRING), // name
    field(I16),
    field(I16),
]);

static CREATE_TOPICS: Shape = shape(&[
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

static DELETE_TOPICS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&DELETED_TOPIC))),
]);
static DELETED_TOPIC: Shape = shape(&[
    field(Kind::String { null_from: 6 }), // name
    since(6, UUID),                       // topic_id
    field(I16),                           // error_code
    since(5, NULLABLE_STRING),            // error_message
]);

static INIT_PRODUCER_ID: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(I16), // error_code
    field(I64), // producer_id
    field(I16), // producer_epoch
]);

static OFFSET_FOR_LEADER_EPOCH: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&OFFSET_FOR_LEADER_TOPIC))),
]);
static OFFSET_FOR_LEADER_TOPIC: Shape = shape(&[
    field(STRING), // topic
    field(array(&Kind::Struct(&EPOCH_END_OFFSET))),
]);
static EPOCH_END_OFFSET: Shape = shape(&[
    field(I16), // error_code
    field(I32), // partition
    field(I32), // leader_epoch
    field(I64), // end_offset
]);

static DESCRIBE_CONFIGS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&DESCRIBED_RESOURCE))),
]);
static DESCRIBED_RESOURCE: Shape = shape(&[
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
    field(I8),              // resource_type
    field(STRING),          // resource_name
    field(array(&Kind::Struct(&DESCRIBED_CONFIG))),
]);
static DESCRIBED_CONFIG: Shape = shape(&[
    field(STRING),          // name
    field(NULLABLE_STRING), // value
    field(Kind::Bool),      // read_only
    field(I8),              // config_source
    field(Kind::Bool),      // is_sensitive
    field(array(&Kind::Struct(&CONFIG_SYNONYM))),
    since(3, I8),              // config_type
    since(3, NULLABLE_STRING), // documentation
]);
static CONFIG_SYNONYM: Shape = shape(&[
    field(STRING),          // name
    field(NULLABLE_STRING), // value
    field(I8),              // source
]);

static DESCRIBE_CLUSTER: Shape = shape(&[
    field(I32),             // throttle_time_ms
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
    since(1, I8),           // endpoint_type
    field(STRING),          // cluster_id
    field(I32),             // controller_id
    field(array(&Kind::Struct(&DESCRIBED_BROKER))),
    field(I32), // cluster_authorized_operations
]);
static DESCRIBED_BROKER: Shape = shape(&[
    field(I32),             // broker_id
    field(STRING),          // host
    field(I32),             // port
    field(NULLABLE_STRING), // rack
    since(2, Kind::Bool),   // is_fenced
]);
