//! Responses about records: writing and reading them, their offsets and their producers.

use crate::guard::shape::{
    I16, I32, I64, Kind, NULLABLE_STRING, STRING, Shape, UUID, array, between, field, nullable_array, shape,
    since,
};

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

pub(super) static PRODUCE: Shape = Shape {
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

pub(super) static FETCH: Shape = Shape {
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
        field(nullable_array(&Kind::Struct(&ABORTED_TRANSACTION))),
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

pub(super) static LIST_OFFSETS: Shape = shape(&[
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

pub(super) static INIT_PRODUCER_ID: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(I16), // error_code
    field(I64), // producer_id
    field(I16), // producer_epoch
]);

pub(super) static OFFSET_FOR_LEADER_EPOCH: Shape = shape(&[
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

pub(super) static DELETE_RECORDS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&DELETE_RECORDS_TOPIC_RESULT))),
]);
static DELETE_RECORDS_TOPIC_RESULT: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&DELETE_RECORDS_PARTITION_RESULT))),
]);
static DELETE_RECORDS_PARTITION_RESULT: Shape = shape(&[
    field(I32), // partition_index
    field(I64), // low_watermark
    field(I16), // error_code
]);

pub(super) static DESCRIBE_PRODUCERS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&DESCRIBE_PRODUCERS_TOPIC))),
]);
static DESCRIBE_PRODUCERS_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&DESCRIBE_PRODUCERS_PARTITION))),
]);
static DESCRIBE_PRODUCERS_PARTITION: Shape = shape(&[
    field(I32),             // partition_index
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
    field(array(&Kind::Struct(&PRODUCER_STATE))),
]);
static PRODUCER_STATE: Shape = shape(&[
    field(I64), // producer_id
    field(I32), // producer_epoch
    field(I32), // last_sequence
    field(I64), // last_timestamp
    field(I32), // coordinator_epoch
    field(I64), // current_txn_start_offset
]);

pub(super) static ADD_PARTITIONS_TO_TXN: Shape = shape(&[
    field(I32),    // throttle_time_ms
    since(4, I16), // error_code
    since(4, array(&Kind::Struct(&ADD_PARTITIONS_RESULT))),
    between(0, 3, array(&Kind::Struct(&ADD_PARTITIONS_TOPIC))),
]);
static ADD_PARTITIONS_RESULT: Shape = shape(&[
    field(STRING), // transactional_id
    field(array(&Kind::Struct(&ADD_PARTITIONS_TOPIC))),
]);
static ADD_PARTITIONS_TOPIC: Shape = shape(&[
    field(STRING), // name
    field(array(&Kind::Struct(&ADD_PARTITIONS_PARTITION))),
]);
static ADD_PARTITIONS_PARTITION: Shape = shape(&[
    field(I32), // partition_index
    field(I16), // partition_error_code
]);

pub(super) static END_TXN: Shape = shape(&[
    field(I32),    // throttle_time_ms
    field(I16),    // error_code
    since(5, I64), // producer_id
    since(5, I16), // producer_epoch
]);
