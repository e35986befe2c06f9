//! Kafka's flexible encoding: compact strings and arrays, tagged fields (KIP-482).

use uuid::Uuid;

use super::codec::RecordError;

/// A value does not have the shape of its schema. Names the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadField(pub(super) &'static str);

impl From<BadField> for RecordError {
    fn from(BadField(field): BadField) -> Self {
        RecordError::Malformed { field }
    }
}

/// Takes fields off the front of a slice. A length is believed only as far as there are bytes.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], BadField> {
        let (front, rest) = self.rest.split_first_chunk().ok_or(BadField(field))?;
        self.rest = rest;
        Ok(*front)
    }

    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], BadField> {
        let (front, rest) = self.rest.split_at_checked(len).ok_or(BadField(field))?;
        self.rest = rest;
        Ok(front)
    }

    pub(super) fn i8(&mut self, field: &'static str) -> Result<i8, BadField> {
        Ok(i8::from_be_bytes(self.array(field)?))
    }

    pub(super) fn i16(&mut self, field: &'static str) -> Result<i16, BadField> {
        Ok(i16::from_be_bytes(self.array(field)?))
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, BadField> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, BadField> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    pub(super) fn uuid(&mut self, field: &'static str) -> Result<Uuid, BadField> {
        Ok(Uuid::from_bytes(self.array(field)?))
    }

    fn varint(&mut self, field: &'static str) -> Result<u32, BadField> {
        let mut value: u64 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array(field)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| BadField(field));
            }
        }
        Err(BadField(field))
    }

    /// A length as compact types write it; `None` is null.
    fn length(&mut self, field: &'static str) -> Result<Option<usize>, BadField> {
        let Some(len) = self.varint(field)?.checked_sub(1) else {
            return Ok(None);
        };
        let len = usize::try_from(len).map_err(|_| BadField(field))?;
        // No element is shorter than a byte.
        if len > self.rest.len() {
            return Err(BadField(field));
        }
        Ok(Some(len))
    }

    /// A string of a key, which is not flexible: a length of two bytes.
    pub(super) fn key_string(&mut self, field: &'static str) -> Result<String, BadField> {
        let len = usize::try_from(self.i16(field)?).map_err(|_| BadField(field))?;
        text(self.take(len, field)?, field)
    }

    pub(super) fn nullable_string(&mut self, field: &'static str) -> Result<Option<String>, BadField> {
        match self.length(field)? {
            Some(len) => text(self.take(len, field)?, field).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<String, BadField> {
        self.nullable_string(field)?.ok_or(BadField(field))
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<Vec<u8>, BadField> {
        let len = self.length(field)?.ok_or(BadField(field))?;
        self.take(len, field).map(<[u8]>::to_vec)
    }

    /// An array that is not null; `element` takes one element.
    pub(super) fn elements<T>(
        &mut self,
        field: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T, BadField>,
    ) -> Result<Vec<T>, BadField> {
        let count = self.length(field)?.ok_or(BadField(field))?;
        // Grows with what is really there: an element in memory may be larger than its byte on disk.
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// The tagged fields at the end of a struct. `known` sees each; what it does not know it leaves.
    pub(super) fn tags(
        &mut self,
        field: &'static str,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<(), BadField>,
    ) -> Result<(), BadField> {
        for _ in 0..self.varint(field)? {
            let tag = self.varint(field)?;
            let len = usize::try_from(self.varint(field)?).map_err(|_| BadField(field))?;
            known(tag, &mut Reader::new(self.take(len, field)?))?;
        }
        Ok(())
    }

    /// Tagged fields of a struct that has none of ours.
    pub(super) fn no_tags(&mut self, field: &'static str) -> Result<(), BadField> {
        self.tags(field, |_, _| Ok(()))
    }
}

fn text(bytes: &[u8], field: &'static str) -> Result<String, BadField> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| BadField(field))
}

/// Appends fields to a vector.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
}

impl Writer {
    pub(super) fn i8(&mut self, value: i8) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn uuid(&mut self, value: Uuid) {
        self.out.extend(value.as_bytes());
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out
                .push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.out.push(u8::try_from(value).unwrap_or_default());
    }

    /// A string of a key, which is not flexible: a length of two bytes.
    pub(super) fn key_string(&mut self, field: &'static str, value: &str) -> Result<(), RecordError> {
        let length = value.len();
        self.i16(i16::try_from(length).map_err(|_| RecordError::TooLong { field, length })?);
        self.out.extend(value.bytes());
        Ok(())
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() + 1);
        self.out.extend(value);
    }

    pub(super) fn string(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(super) fn nullable_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.varint(0),
        }
    }

    /// An array; `element` appends one element.
    pub(super) fn elements<T>(
        &mut self,
        elements: impl ExactSizeIterator<Item = T>,
        mut element: impl FnMut(&mut Self, T),
    ) {
        self.varint(elements.len() + 1);
        for each in elements {
            element(self, each);
        }
    }

    /// The tagged fields at the end of a struct, in ascending order.
    pub(super) fn tags(&mut self, fields: &[(usize, Vec<u8>)]) {
        self.varint(fields.len());
        for (tag, value) in fields {
            self.varint(*tag);
            self.varint(value.len());
            self.out.extend(value);
        }
    }
}
