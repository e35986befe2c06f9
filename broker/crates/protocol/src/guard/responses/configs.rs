//! Responses about configurations.

use crate::guard::shape::{I8, I16, I32, Kind, NULLABLE_STRING, STRING, Shape, array, field, shape, since};

pub(super) static DESCRIBE_CONFIGS: Shape = shape(&[
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

pub(super) static ALTER_CONFIGS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&ALTERED_RESOURCE))),
]);
static ALTERED_RESOURCE: Shape = shape(&[
    field(I16),             // error_code
    field(NULLABLE_STRING), // error_message
    field(I8),              // resource_type
    field(STRING),          // resource_name
]);

pub(super) static INCREMENTAL_ALTER_CONFIGS: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(array(&Kind::Struct(&ALTERED_RESOURCE))),
]);

pub(super) static LIST_CONFIG_RESOURCES: Shape = shape(&[
    field(I32), // throttle_time_ms
    field(I16), // error_code
    field(array(&Kind::Struct(&CONFIG_RESOURCE))),
]);
static CONFIG_RESOURCE: Shape = shape(&[
    field(STRING), // resource_name
    since(1, I8),  // resource_type
]);
