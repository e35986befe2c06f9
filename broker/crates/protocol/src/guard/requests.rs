//! The schemas of the requests we decode, as tables. One line is one field, in wire order.

use super::shape::{
    Api, I8, I16, I32, I64, Kind, NULLABLE_STRING, STRING, Shape, UUID, api, array, between, field, shape,
    since,
};

/// Every request that may be decoded.
pub(super) static REQUESTS: &[Api] = &[
    api(0, 0, 13, 9, &PRODUCE),
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

static PRODUCE: Shape = shape(&[
    since(3, NULLABLE_STRING), // transactional_id
    field(I16),                // acks
    field(I32),                // timeout_ms
    field(array(&Kind::Struct(&PRODUCE_TOPIC))),
]);
static PRODUCE_TOPIC: Shape = shape(&[
    between(0, 12, STRING), // name
    since(13, UUID),        // topic_id
    field(array(&Kind::Struct(&PRODUCE_PARTITION))),
]);
static PRODUCE_PARTITION: Shape = shape(&[
    field(I32),                          // index
    field(Kind::Bytes { null_from: 0 }), // records
]);

static FETCH: Shape = Shape {
    fields: &[
        between(0, 14, I32), // replica_id
        field(I32),          // max_wait_ms
        field(I32),          // min_bytes
        field(I32),          // max_bytes
        field(I8),           // isolation_level
        since(7, I32),       // session_id
        since(7, I32),       // session_epoch
        field(array(&Kind::Struct(&FETCH_TOPIC))),
        since(7, array(&Kind::Struct(&FORGOTTEN_TOPIC))),
        since(11, STRING), // rack_id
    ],
    tags: &[
        (0, since(12, NULLABLE_STRING)), // cluster_id
        (1, since(15, Kind::Struct(&REPLICA_STATE))),
    ],
};
static REPLICA_STATE: Shape = shape(&[
    field(I32), // replica_id
    field(I64), // replica_epoch
]);
static FETCH_TOPIC: Shape = shape(&[
    between(0, 12, STRING), // topic
    since(13, UUID),        // topic_id
    field(array(&Kind::Struct(&FETCH_PARTITION))),
]);
static FETCH_PARTITION: Shape = Shape {
    fields: &[
        field(I32),     // partition
        since(9, I32),  // current_leader_epoch
        field(I64),     // fetch_offset
        since(12, I32), // last_fetched_epoch
        since(5, I64),  // log_start_offset
        field(I32),     // partition_max_bytes
    ],
    tags: &[
        (0, since(17, UUID)), // replica_directory_id
        (1, since(18, I64)),  // high_watermark
    ],
};
static FORGOTTEN_TOPIC: Shape = shape(&[
    between(7, 12, STRING), // topic
    since(13, UUID),        // topic_id
    field(array(&I32)),     // partitions
]);

static LIST_OFFSETS: Shape = shape(&[
    field(I32),   // replica_id
    since(2, I8), // isolation_level
    field(array(&Kind::Struct(&LIST_OFFSETS_TOPIC))),
    since(10, I32), // timeout_ms
]);
static LIST_OFFSETS_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&LIST_OFFSETS_PARTITION))),
]);
static LIST_OFFSETS_PARTITION: Shape = shape(&[
    field(I32),    // partition_index
    since(4, I32), // current_leader_epoch
    field(I64),    // timestamp
]);

static METADATA: Shape = shape(&[
    field(Kind::Array {
        null_from: 1,
        of: &Kind::Struct(&METADATA_TOPIC),
    }),
    since(4, Kind::Bool),       // allow_auto_topic_creation
    between(8, 10, Kind::Bool), // include_cluster_authorized_operations
    since(8, Kind::Bool),       // include_topic_authorized_operations
]);
static METADATA_TOPIC: Shape = shape(&[
    since(10, UUID),                       // topic_id
    field(Kind::String { null_from: 10 }), // name
]);

static FIND_COORDINATOR: Shape = shape(&[
    between(0, 3, STRING),    // key
    since(1, I8),             // key_type
    since(4, array(&STRING)), // coordinator_keys
]);

static API_VERSIONS: Shape = shape(&[
    since(3, STRING), // client_software_name
    since(3, STRING), // client_software_version
]);

static CREATE_TOPICS: Shape = shape(&[
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

static DELETE_TOPICS: Shape = shape(&[
    since(6, array(&Kind::Struct(&DELETE_TOPIC_STATE))),
    between(0, 5, array(&STRING)), // topic_names
    field(I32),                    // timeout_ms
]);
static DELETE_TOPIC_STATE: Shape = shape(&[
    field(NULLABLE_STRING), // name
    field(UUID),            // topic_id
]);

static INIT_PRODUCER_ID: Shape = shape(&[
    field(NULLABLE_STRING), // transactional_id
    field(I32),             // transaction_timeout_ms
    since(3, I64),          // producer_id
    since(3, I16),          // producer_epoch
]);

static OFFSET_FOR_LEADER_EPOCH: Shape = shape(&[
    since(3, I32), // replica_id
    field(array(&Kind::Struct(&OFFSET_FOR_LEADER_TOPIC))),
]);
static OFFSET_FOR_LEADER_TOPIC: Shape = shape(&[
    field(STRING), // topic
    field(array(&Kind::Struct(&OFFSET_FOR_LEADER_PARTITION))),
]);
static OFFSET_FOR_LEADER_PARTITION: Shape = shape(&[
    field(I32), // partition
    field(I32), // current_leader_epoch
    field(I32), // leader_epoch
]);

static DESCRIBE_CONFIGS: Shape = shape(&[
    field(array(&Kind::Struct(&DESCRIBE_CONFIGS_RESOURCE))),
    field(Kind::Bool),    // include_synonyms
    since(3, Kind::Bool), // include_documentation
]);
static DESCRIBE_CONFIGS_RESOURCE: Shape = shape(&[
    field(I8),     // resource_type
    field(STRING), // resource_name
    field(Kind::Array {
        null_from: 0,
        of: &STRING,
    }), // configuration_keys
]);

static DESCRIBE_CLUSTER: Shape = shape(&[
    field(Kind::Bool),    // include_cluster_authorized_operations
    since(1, I8),         // endpoint_type
    since(2, Kind::Bool), // include_fenced_brokers
]);
