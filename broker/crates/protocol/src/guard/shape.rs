//! What the tables of schemas are made of.
//!
//! Source of the tables: the message definitions of Kafka 4.1, as the codec's generated modules have them. A
//! field has the versions in which it exists; whether strings, bytes and arrays are compact follows from the
//! API's first flexible version (KIP-482).

/// The schema of an API's request or response.
pub(super) struct Api {
    pub(super) key: i16,
    /// First version, inclusive.
    pub(super) min: i16,
    /// Last version, inclusive.
    pub(super) max: i16,
    /// First flexible version (KIP-482).
    pub(super) flexible: i16,
    pub(super) body: &'static Shape,
}

/// A struct: its fields in order, then its known tagged fields.
pub(super) struct Shape {
    pub(super) fields: &'static [Field],
    pub(super) tags: &'static [(u32, Field)],
}

/// A field and the versions in which it exists, both ends inclusive.
pub(super) struct Field {
    pub(super) since: i16,
    pub(super) until: i16,
    pub(super) kind: Kind,
}

/// How a value is laid out. `null_from` is the first version in which it may be null.
pub(super) enum Kind {
    Bool,
    /// A number or id of so many bytes.
    Fixed(usize),
    String {
        null_from: i16,
    },
    Bytes {
        null_from: i16,
    },
    Array {
        null_from: i16,
        of: &'static Kind,
    },
    Struct(&'static Shape),
    /// A struct behind a byte that says whether it is there: 1, or negative for null.
    Nullable(&'static Shape),
}

pub(super) const NEVER: i16 = i16::MAX;
pub(super) const I8: Kind = Kind::Fixed(1);
pub(super) const I16: Kind = Kind::Fixed(2);
pub(super) const I32: Kind = Kind::Fixed(4);
pub(super) const I64: Kind = Kind::Fixed(8);
pub(super) const UUID: Kind = Kind::Fixed(16);
pub(super) const STRING: Kind = Kind::String { null_from: NEVER };
pub(super) const NULLABLE_STRING: Kind = Kind::String { null_from: 0 };
pub(super) const BYTES: Kind = Kind::Bytes { null_from: NEVER };

pub(super) const fn array(of: &'static Kind) -> Kind {
    Kind::Array { null_from: NEVER, of }
}

pub(super) const fn nullable_array(of: &'static Kind) -> Kind {
    Kind::Array { null_from: 0, of }
}

pub(super) const fn field(kind: Kind) -> Field {
    Field {
        since: 0,
        until: i16::MAX,
        kind,
    }
}

pub(super) const fn since(version: i16, kind: Kind) -> Field {
    Field {
        since: version,
        until: i16::MAX,
        kind,
    }
}

/// Exists in `since..=until`.
pub(super) const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, kind }
}

pub(super) const fn shape(fields: &'static [Field]) -> Shape {
    Shape { fields, tags: &[] }
}

pub(super) const fn api(key: i16, min: i16, max: i16, flexible: i16, body: &'static Shape) -> Api {
    Api {
        key,
        min,
        max,
        flexible,
        body,
    }
}

impl Field {
    pub(super) fn exists_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }
}
