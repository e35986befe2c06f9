//! Requests about consumer groups: coordinators, members and committed offsets.

use crate::guard::shape::{I8, STRING, Shape, array, between, shape, since};

pub(super) static FIND_COORDINATOR: Shape = shape(&[
    between(0, 3, STRING),    // key
    since(1, I8),             // key_type
    since(4, array(&STRING)), // coordinator_keys
]);
