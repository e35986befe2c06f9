//! Reads the records of a batch without copying them.
//!
//! ```text
//! length varint | attributes i8 | timestamp_delta varlong | offset_delta varint
//! | key_length varint, key | value_length varint, value | header_count varint, headers
//! header: key_length varint, key | value_length varint, value
//! ```
//!
//! Lengths are in bytes; −1 is null. A header's key is never null.

use super::varint::{self, BadVarint};

/// Smallest record there is, in bytes: seven fields of one byte.
pub(super) const MIN_RECORD: usize = 7;

/// Why bytes are not a batch's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end before the announced number of records, or within one.
    #[error("record ends too early")]
    Truncated,
    /// A varint is too long.
    #[error("record holds a malformed varint")]
    Varint,
    /// A length is negative or beyond the record's end.
    #[error("length {length} within a record is out of range")]
    Length {
        /// The length.
        length: i32,
    },
    /// More headers than the record's bytes can hold.
    #[error("header count {count} is out of range")]
    HeaderCount {
        /// The claimed count.
        count: i32,
    },
    /// A record, or the batch, is longer than what is in it.
    #[error("{bytes} bytes are left over")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl From<BadVarint> for RecordError {
    fn from(_: BadVarint) -> Self {
        RecordError::Varint
    }
}

/// A record, as slices of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Milliseconds after the batch's base timestamp; may be negative.
    pub timestamp_delta: i64,
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: Headers<'a>,
}

/// A header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key, which should be UTF-8 but is not checked.
    pub key: &'a [u8],
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record. They were checked when the record was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Headers<'a> {
    /// Number of headers left.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Reads `count` headers off the front of `bytes`, to know that they are there.
    fn check(bytes: &mut &'a [u8]) -> Result<Self, RecordError> {
        let claimed = varint::take_i32(bytes)?;
        // A header takes two bytes at least.
        let count = usize::try_from(claimed)
            .ok()
            .filter(|count| *count <= bytes.len() / 2)
            .ok_or(RecordError::HeaderCount { count: claimed })?;
        let all = *bytes;
        for _ in 0..count {
            header(bytes)?;
        }
        Ok(Self {
            bytes: &all[..all.len() - bytes.len()],
            count,
        })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.count = self.count.checked_sub(1)?;
        header(&mut self.bytes).ok()
    }
}

/// Iterates over the records of a batch. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    left: i32,
}

impl<'a> Records<'a> {
    /// Reads `count` records (the header's `records_count`) from `bytes`, the uncompressed body.
    ///
    /// The iterator yields an error if there are fewer, or if bytes follow the last one.
    pub fn new(bytes: &'a [u8], count: i32) -> Self {
        Self { bytes, left: count }
    }

    /// The bytes that were not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn read(&mut self) -> Result<Record<'a>, RecordError> {
        if self.bytes.is_empty() {
            return Err(RecordError::Truncated);
        }
        let length = varint::take_i32(&mut self.bytes)?;
        let len = usize::try_from(length).map_err(|_| RecordError::Length { length })?;
        let (record, rest) = self.bytes.split_at_checked(len).ok_or(RecordError::Truncated)?;
        self.bytes = rest;
        record_of(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            let bytes = std::mem::take(&mut self.bytes).len();
            return (bytes > 0).then_some(Err(RecordError::Trailing { bytes }));
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            *self = Self::new(&[], 0);
        }
        Some(record)
    }
}

fn record_of(mut bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    // No bit of a record's attributes has a meaning; Kafka ignores them.
    bytes = bytes.get(1..).ok_or(RecordError::Truncated)?;
    let record = Record {
        timestamp_delta: varint::take_i64(&mut bytes)?,
        offset_delta: varint::take_i32(&mut bytes)?,
        key: nullable(&mut bytes)?,
        value: nullable(&mut bytes)?,
        headers: Headers::check(&mut bytes)?,
    };
    if bytes.is_empty() {
        Ok(record)
    } else {
        Err(RecordError::Trailing { bytes: bytes.len() })
    }
}

fn header<'a>(bytes: &mut &'a [u8]) -> Result<Header<'a>, RecordError> {
    let key = nullable(bytes)?.ok_or(RecordError::Length { length: -1 })?;
    Ok(Header {
        key,
        value: nullable(bytes)?,
    })
}

fn nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
    let length = varint::take_i32(bytes)?;
    if length == -1 {
        return Ok(None);
    }
    let len = usize::try_from(length).map_err(|_| RecordError::Length { length })?;
    let (value, rest) = bytes
        .split_at_checked(len)
        .ok_or(RecordError::Length { length })?;
    *bytes = rest;
    Ok(Some(value))
}
