//! Requests about configurations.

use crate::guard::shape::{
    I8, Kind, NULLABLE_STRING, STRING, Shape, array, field, nullable_array, shape, since,
};

pub(super) static DESCRIBE_CONFIGS: Shape = shape(&[
    field(array(&Kind::Struct(&DESCRIBE_CONFIGS_RESOURCE))),
    field(Kind::Bool),    // include_synonyms
    since(3, Kind::Bool), // include_documentation
]);
static DESCRIBE_CONFIGS_RESOURCE: Shape = shape(&[
    field(I8),                      // resource_type
    field(STRING),                  // resource_name
    field(nullable_array(&STRING)), // configuration_keys
]);

pub(super) static ALTER_CONFIGS: Shape = shape(&[
    field(array(&Kind::Struct(&ALTER_CONFIGS_RESOURCE))),
    field(Kind::Bool), // validate_only
]);
static ALTER_CONFIGS_RESOURCE: Shape = shape(&[
    field(I8),     // resource_type
    field(STRING), // resource_name
    field(array(&Kind::Struct(&ALTERABLE_CONFIG))),
]);
static ALTERABLE_CONFIG: Shape = shape(&[
    field(STRING),          // name
    field(NULLABLE_STRING), // value
]);

pub(super) static INCREMENTAL_ALTER_CONFIGS: Shape = shape(&[
    field(array(&Kind::Struct(&INCREMENTAL_RESOURCE))),
    field(Kind::Bool), // validate_only
]);
static INCREMENTAL_RESOURCE: Shape = shape(&[
    field(I8),     // resource_type
    field(STRING), // resource_name
    field(array(&Kind::Struct(&INCREMENTAL_CONFIG))),
]);
static INCREMENTAL_CONFIG: Shape = shape(&[
    field(STRING),          // name
    field(I8),              // config_operation
    field(NULLABLE_STRING), // value
]);

pub(super) static LIST_CONFIG_RESOURCES: Shape = shape(&[
    since(1, array(&I8)), // resource_types
]);
