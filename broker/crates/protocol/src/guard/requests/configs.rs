//! Requests about configurations.

use crate::guard::shape::{I8, Kind, STRING, Shape, array, field, shape, since};

pub(super) static DESCRIBE_CONFIGS: Shape = shape(&[
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
