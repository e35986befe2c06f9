//! Requests about records: writing and reading them, their offsets and their producers.

use crate::guard::shape::{
    I8, I16, I32, I64, Kind, NULLABLE_STRING, STRING, Shape, UUID, array, between, field, shape, since,
};

pub(super) static PRODUCE: Shape = shape(&[
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

pub(super) static FETCH: Shape = Shape {
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

pub(super) static LIST_OFFSETS: Shape = shape(&[
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

pub(super) static INIT_PRODUCER_ID: Shape = shape(&[
    field(NULLABLE_STRING), // transactional_id
    field(I32),             // transaction_timeout_ms
    since(3, I64),          // producer_id
    since(3, I16),          // producer_epoch
]);

pub(super) static OFFSET_FOR_LEADER_EPOCH: Shape = shape(&[
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

pub(super) static DELETE_RECORDS: Shape = shape(&[
    field(array(&Kind::Struct(&DELETE_RECORDS_TOPIC))),
    field(I32), // timeout_ms
]);
static DELETE_RECORDS_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&DELETE_RECORDS_PARTITION))),
]);
static DELETE_RECORDS_PARTITION: Shape = shape(&[
    field(I32), // partition_index
    field(I64), // offset
]);

pub(super) static DESCRIBE_PRODUCERS: Shape =
    shape(&[field(array(&Kind::Struct(&DESCRIBE_PRODUCERS_TOPIC)))]);
static DESCRIBE_PRODUCERS_TOPIC: Shape = shape(&[
    field(STRING),      // name
    field(array(&I32)), // partition_indexes
]);

pub(super) static ADD_PARTITIONS_TO_TXN: Shape = shape(&[
    since(4, array(&Kind::Struct(&ADD_PARTITIONS_TRANSACTION))),
    between(0, 3, STRING), // transactional_id
    between(0, 3, I64),    // producer_id
    between(0, 3, I16),    // producer_epoch
    between(0, 3, array(&Kind::Struct(&ADD_PARTITIONS_TOPIC))),
]);
static ADD_PARTITIONS_TRANSACTION: Shape = shape(&[
    field(STRING),     // transactional_id
    field(I64),        // producer_id
    field(I16),        // producer_epoch
    field(Kind::Bool), // verify_only
    field(array(&Kind::Struct(&ADD_PARTITIONS_TOPIC))),
]);
static ADD_PARTITIONS_TOPIC: Shape = shape(&[
    field(STRING),      // name
    field(array(&I32)), // partitions
]);

pub(super) static END_TXN: Shape = shape(&[
    field(STRING),     // transactional_id
    field(I64),        // producer_id
    field(I16),        // producer_epoch
    field(Kind::Bool), // committed
]);
