//! Kafka's binary primitives, with every length checked against the bytes that are there.

use bytes::{BufMut, Bytes, BytesMut};
use takhin_protocol::messages::StrBytes;

/// Why a record of `__consumer_offsets` could not be decoded or encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside a field.
    #[error("field {field} needs {needed} bytes and {left} are left")]
    Truncated {
        /// Name in the schema.
        field: &'static str,
        /// Bytes that the field needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length or count is negative where it may not be, or longer than its encoding.
    #[error("field {field} has the length {length}")]
    Length {
        /// Name in the schema.
        field: &'static str,
        /// The length as it was read.
        length: i64,
    },
    /// A string is not UTF-8.
    #[error("field {field} is not UTF-8")]
    NotUtf8 {
        /// Name in the schema.
        field: &'static str,
    },
    /// A field of a flexible schema ends early, or has a length that it cannot have.
    #[error("field {field} is malformed")]
    Malformed {
        /// Name in the schema.
        field: &'static str,
    },
    /// A value of a version that this code does not know.
    #[error("{schema} has the version {version}")]
    Version {
        /// Name of the schema.
        schema: &'static str,
        /// The version as it was read.
        version: i16,
    },
    /// A field is longer than its length prefix can say.
    #[error("field {field} of {length} bytes is too long to write")]
    TooLong {
        /// Name in the schema.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
    },
}

/// Reads fields off the front of a key or value. Bytes behind the last field are left alone, as Kafka does.
///
/// Everything it returns is copied: what is kept must not hold on to the batch that it came in.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            flexible: false,
        }
    }

    /// From here on strings, bytes and arrays are compact and structs end in tagged fields (KIP-482).
    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    fn take(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], RecordError> {
        match self.bytes.split_at_checked(needed) {
            Some((head, tail)) => {
                self.bytes = tail;
                Ok(head)
            }
            None => Err(RecordError::Truncated {
                field,
                needed,
                left: self.bytes.len(),
            }),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    pub(crate) fn int16(&mut self, field: &'static str) -> Result<i16, RecordError> {
        Ok(i16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn int32(&mut self, field: &'static str) -> Result<i32, RecordError> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn int64(&mut self, field: &'static str) -> Result<i64, RecordError> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    fn unsigned_varint(&mut self, field: &'static str) -> Result<u32, RecordError> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array(field)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let length = i64::try_from(value).unwrap_or(i64::MAX);
                return u32::try_from(value).map_err(|_| RecordError::Length { field, length });
            }
        }
        Err(RecordError::Length {
            field,
            length: i64::MAX,
        })
    }

    /// A length or count as it stands before a string (`wide` is false), bytes or an array; `None` for null.
    fn length(&mut self, field: &'static str, wide: bool) -> Result<Option<usize>, RecordError> {
        let length = if self.flexible {
            i64::from(self.unsigned_varint(field)?) - 1
        } else if wide {
            i64::from(self.int32(field)?)
        } else {
            i64::from(self.int16(field)?)
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length)
                .map(Some)
                .map_err(|_| RecordError::Length { field, length }),
        }
    }

    pub(crate) fn nullable_string(&mut self, field: &'static str) -> Result<Option<StrBytes>, RecordError> {
        let Some(length) = self.length(field, false)? else {
            return Ok(None);
        };
        let bytes = Bytes::copy_from_slice(self.take(field, length)?);
        let string = StrBytes::from_utf8(bytes).map_err(|_| RecordError::NotUtf8 { field })?;
        Ok(Some(string))
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<StrBytes, RecordError> {
        self.nullable_string(field)?
            .ok_or(RecordError::Length { field, length: -1 })
    }

    pub(crate) fn byte_string(&mut self, field: &'static str) -> Result<Bytes, RecordError> {
        let length = self
            .length(field, true)?
            .ok_or(RecordError::Length { field, length: -1 })?;
        Ok(Bytes::copy_from_slice(self.take(field, length)?))
    }

    pub(crate) fn nullable_byte_string(&mut self, field: &'static str) -> Result<Option<Bytes>, RecordError> {
        match self.length(field, true)? {
            Some(length) => Ok(Some(Bytes::copy_from_slice(self.take(field, length)?))),
            None => Ok(None),
        }
    }

    /// Number of elements of an array. Nothing is to be allocated for it: each element is checked as it is read.
    pub(crate) fn count(&mut self, field: &'static str) -> Result<usize, RecordError> {
        self.length(field, true)?
            .ok_or(RecordError::Length { field, length: -1 })
    }

    /// Skips the tagged fields at the end of a struct, if this version has them.
    pub(crate) fn tagged_fields(&mut self) -> Result<(), RecordError> {
        const FIELD: &str = "tagged fields";
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint(FIELD)? {
            self.unsigned_varint(FIELD)?;
            let size = self.unsigned_varint(FIELD)?;
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            self.take(FIELD, size)?;
        }
        Ok(())
    }
}

/// Writes fields of the versions that are not flexible.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: BytesMut,
}

impl Writer {
    /// Begins a key or value with its version.
    pub(crate) fn new(version: i16) -> Self {
        let mut writer = Self::default();
        writer.int16(version);
        writer
    }

    pub(crate) fn int16(&mut self, value: i16) {
        self.bytes.put_i16(value);
    }

    pub(crate) fn int32(&mut self, value: i32) {
        self.bytes.put_i32(value);
    }

    pub(crate) fn int64(&mut self, value: i64) {
        self.bytes.put_i64(value);
    }

    pub(crate) fn nullable_string(
        &mut self,
        field: &'static str,
        value: Option<&str>,
    ) -> Result<(), RecordError> {
        match value {
            None => self.int16(-1),
            Some(value) => {
                let length = value.len();
                let prefix = i16::try_from(length).map_err(|_| RecordError::TooLong { field, length })?;
                self.int16(prefix);
                self.bytes.put_slice(value.as_bytes());
            }
        }
        Ok(())
    }

    pub(crate) fn string(&mut self, field: &'static str, value: &str) -> Result<(), RecordError> {
        self.nullable_string(field, Some(value))
    }

    pub(crate) fn byte_string(&mut self, field: &'static str, value: &[u8]) -> Result<(), RecordError> {
        self.count(field, value.len())?;
        self.bytes.put_slice(value);
        Ok(())
    }

    pub(crate) fn count(&mut self, field: &'static str, length: usize) -> Result<(), RecordError> {
        let prefix = i32::try_from(length).map_err(|_| RecordError::TooLong { field, length })?;
        self.int32(prefix);
        Ok(())
    }

    pub(crate) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}
