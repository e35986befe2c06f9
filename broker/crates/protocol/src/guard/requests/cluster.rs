//! Requests about the cluster as a whole: brokers, versions and features.

use crate::guard::shape::{I8, I16, I32, Kind, STRING, Shape, UUID, array, between, field, shape, since};

pub(super) static METADATA: Shape = shape(&[
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

pub(super) static API_VERSIONS: Shape = shape(&[
    since(3, STRING), // client_software_name
    since(3, STRING), // client_software_version
]);

pub(super) static DESCRIBE_CLUSTER: Shape = shape(&[
    field(Kind::Bool),    // include_cluster_authorized_operations
    since(1, I8),         // endpoint_type
    since(2, Kind::Bool), // include_fenced_brokers
]);

pub(super) static DESCRIBE_QUORUM: Shape = shape(&[field(array(&Kind::Struct(&QUORUM_TOPIC)))]);
static QUORUM_TOPIC: Shape = shape(&[
    field(STRING), // topic_name
    field(array(&Kind::Struct(&QUORUM_PARTITION))),
]);
static QUORUM_PARTITION: Shape = shape(&[
    field(I32), // partition_index
]);

pub(super) static UNREGISTER_BROKER: Shape = shape(&[
    field(I32), // broker_id
]);

pub(super) static UPDATE_FEATURES: Shape = shape(&[
    field(I32), // timeout_ms
    field(array(&Kind::Struct(&FEATURE_UPDATE))),
    since(1, Kind::Bool), // validate_only
]);
static FEATURE_UPDATE: Shape = shape(&[
    field(STRING),             // feature
    field(I16),                // max_version_level
    between(0, 0, Kind::Bool), // allow_downgrade
    since(1, I8),              // upgrade_type
]);

pub(super) static DESCRIBE_TOPIC_PARTITIONS: Shape = shape(&[
    field(array(&Kind::Struct(&DESCRIBE_TOPIC_PARTITIONS_TOPIC))),
    field(I32),                     // response_partition_limit
    field(Kind::Nullable(&CURSOR)), // cursor
]);
static DESCRIBE_TOPIC_PARTITIONS_TOPIC: Shape = shape(&[
    field(STRING), // name
]);
static CURSOR: Shape = shape(&[
    field(STRING), // topic_name
    field(I32),    // partition_index
]);
