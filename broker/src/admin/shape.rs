//! JSON that describes itself: from one declaration come a struct, its JSON, and its schema in the OpenAPI document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The schemas of structs by name, which other schemas refer to.
pub(super) type Shapes = Map<String, Value>;

/// What has a JSON value and a schema (JSON Schema 2020-12).
pub(super) trait Shape {
    /// Whether a member of this type may be missing.
    const IS_OPTIONAL: bool = false;

    /// Its schema; that of a struct is put into `shapes` and referred to.
    fn schema(shapes: &mut Shapes) -> Value;

    /// Its JSON; `None` if it is left out.
    fn value(&self) -> Option<Value>;

    /// Its JSON as text with a line end.
    fn text(&self) -> String {
        format!("{}\n", self.value().unwrap_or_default())
    }
}

/// Declares structs that are [`Shape`]s, with the text of every member.
macro_rules! shape {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $text:literal])+ $member:ident: $type:ty,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) struct $name {
            $($(#[doc = $text])+ pub(super) $member: $type,)+
        }

        impl $crate::admin::shape::Shape for $name {
            fn schema(shapes: &mut $crate::admin::shape::Shapes) -> serde_json::Value {
                let members = [$((
                    stringify!($member),
                    concat!($($text),+),
                    <$type as $crate::admin::shape::Shape>::IS_OPTIONAL,
                    <$type as $crate::admin::shape::Shape>::schema(shapes),
                ),)+];
                $crate::admin::shape::object(shapes, stringify!($name), concat!($($doc),+), members)
            }

            fn value(&self) -> Option<serde_json::Value> {
                Some($crate::admin::shape::members([$((
                    stringify!($member),
                    $crate::admin::shape::Shape::value(&self.$member),
                ),)+]))
            }
        }
    };
}
pub(super) use shape;

/// Text, whether it may be missing, and schema of a member.
type Member = (&'static str, &'static str, bool, Value);

/// Names that are words of Rust are written with a mark.
fn plain(name: &str) -> &str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// The reference to the schema of a struct, which is put into `shapes`.
pub(super) fn object(
    shapes: &mut Shapes,
    name: &str,
    text: &str,
    members: impl IntoIterator<Item = Member>,
) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (member, text, is_optional, mut schema) in members {
        // What a schema says of itself is told after what the member says.
        let own = schema
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        schema["description"] = format!("{}\n{own}", text.trim()).trim().into();
        if !is_optional {
            required.push(plain(member));
        }
        properties.insert(plain(member).to_owned(), schema);
    }
    let schema = json!({
        "type": "object",
        "description": text.trim(),
        "properties": properties,
        "required": required,
    });
    shapes.insert(name.to_owned(), schema);
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The JSON of a struct.
pub(super) fn members(members: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let given = members
        .into_iter()
        .filter_map(|(name, value)| Some((plain(name).to_owned(), value?)));
    Value::Object(given.collect())
}

macro_rules! numbers {
    ($($type:ty, $format:literal, $least:expr;)+) => {
        $(impl Shape for $type {
            fn schema(_: &mut Shapes) -> Value {
                json!({ "type": "integer", "format": $format, "minimum": $least })
            }

            fn value(&self) -> Option<Value> {
                Some((*self).into())
            }
        })+
    };
}

// All numbers of the API are counts, sizes and ids.
numbers! {
    i32, "int32", 0;
    u16, "int32", 0;
    u64, "int64", 0;
    usize, "int64", 0;
}

impl Shape for bool {
    fn schema(_: &mut Shapes) -> Value {
        json!({ "type": "boolean" })
    }

    fn value(&self) -> Option<Value> {
        Some((*self).into())
    }
}

impl Shape for String {
    fn schema(_: &mut Shapes) -> Value {
        json!({ "type": "string" })
    }

    fn value(&self) -> Option<Value> {
        Some(self.as_str().into())
    }
}

impl Shape for &str {
    fn schema(shapes: &mut Shapes) -> Value {
        String::schema(shapes)
    }

    fn value(&self) -> Option<Value> {
        Some((*self).into())
    }
}

impl<T: Shape> Shape for Option<T> {
    const IS_OPTIONAL: bool = true;

    fn schema(shapes: &mut Shapes) -> Value {
        T::schema(shapes)
    }

    fn value(&self) -> Option<Value> {
        self.as_ref()?.value()
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn schema(shapes: &mut Shapes) -> Value {
        json!({ "type": "array", "items": T::schema(shapes) })
    }

    fn value(&self) -> Option<Value> {
        Some(self.iter().filter_map(Shape::value).collect())
    }
}

impl<T: Shape> Shape for BTreeMap<&'static str, T> {
    fn schema(shapes: &mut Shapes) -> Value {
        json!({ "type": "object", "additionalProperties": T::schema(shapes) })
    }

    fn value(&self) -> Option<Value> {
        let members = self
            .iter()
            .filter_map(|(name, value)| Some(((*name).to_owned(), value.value()?)));
        Some(Value::Object(members.collect()))
    }
}
