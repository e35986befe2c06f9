//! Responses about the cluster as a whole: brokers, versions and features.

use crate::guard::shape::{
    I8, I16, I32, I64, Kind, NULLABLE_STRING, STRING, Shape, UUID, array, between, field, nullable_array,
    shape, since,
};

pub(super) static METADATA: Shape = shape(&[
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

pub(super) static API_VERSIONS: Shape = Shape {
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

pub(super) static DESCRIBE_CLUSTER: Shape = shape(&[
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

pub(super) static UNREGISTER_BROKER: Shape = shape(&[
    field(I32),             // throttle_time_ms
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
]);

pub(super) static DESCRIBE_QUORUM: Shape = shape(&[
    field(I16),                // error_code
    since(2, NULLABLE_STRING), // error_message
    field(array(&Kind::Struct(&QUORUM_TOPIC))),
    since(2, array(&Kind::Struct(&QUORUM_NODE))),
]);
static QUORUM_TOPIC: Shape = shape(&[
    field(STRING), // topic_name
    field(array(&Kind::Struct(&QUORUM_PARTITION))),
]);
static QUORUM_PARTITION: Shape = shape(&[
    field(I32),                                   // partition_index
    field(I16),                                   // error_code
    since(2, NULLABLE_STRING),                    // error_message
    field(I32),                                   // leader_id
    field(I32),                                   // leader_epoch
    field(I64),                                   // high_watermark
    field(array(&Kind::Struct(&QUORUM_REPLICA))), // current_voters
    field(array(&Kind::Struct(&QUORUM_REPLICA))), // observers
]);
static QUORUM_REPLICA: Shape = shape(&[
    field(I32),     // replica_id
    since(2, UUID), // replica_directory_id
    field(I64),     // log_end_offset
    since(1, I64),  // last_fetch_timestamp
    since(1, I64),  // last_caught_up_timestamp
]);
static QUORUM_NODE: Shape = shape(&[
    field(I32), // node_id
    field(array(&Kind::Struct(&QUORUM_LISTENER))),
]);
static QUORUM_LISTENER: Shape = shape(&[
    field(STRING), // name
    field(STRING), // host
    field(I16),    // port
]);

pub(super) static UPDATE_FEATURES: Shape = shape(&[
    field(I32),             // throttle_time_ms
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
    between(0, 1, array(&Kind::Struct(&UPDATED_FEATURE))),
]);
static UPDATED_FEATURE: Shape = shape(&[
    field(STRING),          // feature
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
]);

pub(super) static DESCRIBE_TOPIC_PARTITIONS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&DESCRIBE_TOPIC_PARTITIONS_TOPIC))),
    field(Kind::Nullable(&CURSOR)), // next_cursor
]);
static DESCRIBE_TOPIC_PARTITIONS_TOPIC: Shape = shape(&[
    field(I16),             // error_code
    field(NULLABLE_STRING), // name
    field(UUID),            // topic_id
    field(Kind::Bool),      // is_internal
    field(array(&Kind::Struct(&DESCRIBE_TOPIC_PARTITIONS_PARTITION))),
    field(I32), // topic_authorized_operations
]);
static DESCRIBE_TOPIC_PARTITIONS_PARTITION: Shape = shape(&[
    field(I16),                  // error_code
    field(I32),                  // partition_index
    field(I32),                  // leader_id
    field(I32),                  // leader_epoch
    field(array(&I32)),          // replica_nodes
    field(array(&I32)),          // isr_nodes
    field(nullable_array(&I32)), // eligible_leader_replicas
    field(nullable_array(&I32)), // last_known_elr
    field(array(&I32)),          // offline_replicas
]);
static CURSOR: Shape = shape(&[
    field(STRING), // topic_name
    field(I32),    // partition_index
]);
