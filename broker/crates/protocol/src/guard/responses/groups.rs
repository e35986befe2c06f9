//! Responses about consumer groups: coordinators, members and committed offsets.

use crate::guard::shape::{
    I16, I32, Kind, NULLABLE_STRING, STRING, Shape, array, between, field, shape, since,
};

pub(super) static FIND_COORDINATOR: Shape = shape(&[
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
