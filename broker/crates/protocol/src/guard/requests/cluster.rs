//! Requests about the cluster as a whole: brokers, versions and features.

use crate::guard::shape::{I8, Kind, STRING, Shape, UUID, between, field, shape, since};

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
