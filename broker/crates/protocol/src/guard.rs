//! Checks the body of a request or response against its schema before the message codec sees it.
//!
//! The codec reserves room for as many elements as an array claims, so that a frame of 20 bytes that claims
//! 2³¹ elements ends the process. This walk over the bytes allocates nothing and lets through only bodies in
//! which every count and every length is backed by bytes that are there. A body without a schema here is
//! refused: what was not walked is not decoded.
//!
//! Stricter than the codec, as Kafka is: tags come in ascending order without repetition (KIP-482), a known
//! tag's value fills its size, a compact string has at most 32767 bytes. Stricter than Kafka too: what comes before a
//! nullable struct is 1 or negative, because Kafka and the codec differ on other values.

mod requests;
mod responses;
mod shape;
#[cfg(test)]
mod tests;

use shape::{Api, Kind, Shape};

/// Most array elements and tagged fields that one message may hold, together.
pub const MAX_ELEMENTS: usize = 1_000_000;

/// What is wrong with a body. `at` is the position in the body, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There is no schema for this API and version.
    #[error("api {api_key} has no version {version} here")]
    Unsupported {
        /// The API's key.
        api_key: i16,
        /// The version asked for.
        version: i16,
    },
    /// The body ends within a field.
    #[error("body ends within the field at byte {at}")]
    Truncated {
        /// Where the field begins.
        at: usize,
    },
    /// A length or count is negative or beyond what its type allows.
    #[error("length at byte {at} is out of range")]
    Length {
        /// Where the length is.
        at: usize,
    },
    /// A field that cannot be null is null.
    #[error("field at byte {at} cannot be null")]
    Null {
        /// Where the field is.
        at: usize,
    },
    /// The byte that says whether a struct is there is neither 1 nor negative.
    #[error("byte at {at} does not say whether a struct follows")]
    Presence {
        /// Where the byte is.
        at: usize,
    },
    /// An array claims more elements than its bytes can hold.
    #[error("array at byte {at} claims {count} elements, more than its bytes can hold")]
    Count {
        /// Where the count is.
        at: usize,
        /// The claimed count.
        count: usize,
    },
    /// The message holds more than [`MAX_ELEMENTS`] elements.
    #[error("message holds more than {MAX_ELEMENTS} elements")]
    TooManyElements,
    /// A varint has more than 32 bits.
    #[error("varint at byte {at} has more than 32 bits")]
    Varint {
        /// Where the varint begins.
        at: usize,
    },
    /// A tag is repeated or out of order.
    #[error("tag {tag} at byte {at} is repeated or out of order")]
    TagOrder {
        /// Where the tag is.
        at: usize,
        /// The tag.
        tag: u32,
    },
    /// A known tag does not exist in this version, or its value does not fill its size.
    #[error("tagged field {tag} at byte {at} does not fit its schema")]
    TagValue {
        /// Where the value is.
        at: usize,
        /// The tag.
        tag: u32,
    },
}

/// Checks that `body`, the bytes after the request header, is a request of this API and version.
///
/// Returns the number of bytes that the request takes. Bytes may follow it: like Kafka, we let them be.
///
/// # Errors
///
/// [`Malformed`]; after that the body must not be decoded, and the connection is to be closed.
pub fn check(api_key: i16, version: i16, body: &[u8]) -> Result<usize, Malformed> {
    walk(requests::REQUESTS, api_key, version, body)
}

/// Checks that `body`, the bytes after the response header, is a response of this API and version.
///
/// For clients: they decode what a broker sends, or something that sits where a broker should.
///
/// # Errors
///
/// [`Malformed`]; after that the body must not be decoded, and the connection is to be closed.
pub fn check_response(api_key: i16, version: i16, body: &[u8]) -> Result<usize, Malformed> {
    walk(responses::RESPONSES, api_key, version, body)
}

/// Checks the tagged fields of a header; none of them is known. Returns the number of bytes they take.
///
/// # Errors
///
/// [`Malformed`], with positions from the first of `bytes`.
pub(crate) fn check_tags(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut walker = Walker {
        body: bytes,
        at: 0,
        version: 0,
        flexible: true,
        elements: 0,
    };
    walker.tags(&Shape {
        fields: &[],
        tags: &[],
    })?;
    Ok(walker.at)
}

fn walk(apis: &[Api], api_key: i16, version: i16, body: &[u8]) -> Result<usize, Malformed> {
    let api = apis
        .iter()
        .find(|api| api.key == api_key && (api.min..=api.max).contains(&version))
        .ok_or(Malformed::Unsupported { api_key, version })?;
    let mut walker = Walker::new(api, version, body);
    walker.shape(api.body)?;
    Ok(walker.at)
}

struct Walker<'a> {
    body: &'a [u8],
    at: usize,
    version: i16,
    flexible: bool,
    elements: usize,
}

impl<'a> Walker<'a> {
    fn new(api: &Api, version: i16, body: &'a [u8]) -> Self {
        Self {
            body,
            at: 0,
            version,
            flexible: version >= api.flexible,
            elements: 0,
        }
    }

    fn shape(&mut self, shape: &Shape) -> Result<(), Malformed> {
        for field in shape.fields {
            if field.exists_in(self.version) {
                self.kind(&field.kind)?;
            }
        }
        if self.flexible { self.tags(shape) } else { Ok(()) }
    }

    fn kind(&mut self, kind: &Kind) -> Result<(), Malformed> {
        let at = self.at;
        match *kind {
            Kind::Bool => self.skip(1),
            Kind::Fixed(len) => self.skip(len),
            Kind::String { null_from } => match self.string_length()? {
                Some(len) if len > 0x7fff => Err(Malformed::Length { at }),
                Some(len) => self.skip(len),
                None => self.null(at, null_from),
            },
            Kind::Bytes { null_from } => match self.length()? {
                Some(len) => self.skip(len),
                None => self.null(at, null_from),
            },
            Kind::Array { null_from, of } => match self.length()? {
                Some(count) => self.array(at, count, of),
                None => self.null(at, null_from),
            },
            Kind::Struct(shape) => self.shape(shape),
            Kind::Nullable(shape) => match i8::from_be_bytes(self.take::<1>()?) {
                1 => self.shape(shape),
                ..=-1 => Ok(()),
                _ => Err(Malformed::Presence { at }),
            },
        }
    }

    fn array(&mut self, at: usize, count: usize, of: &Kind) -> Result<(), Malformed> {
        let smallest = self.smallest(of).max(1);
        if count > (self.body.len() - self.at) / smallest {
            return Err(Malformed::Count { at, count });
        }
        self.count_elements(count)?;
        if let Kind::Fixed(len) = of {
            return self.skip(count * len);
        }
        for _ in 0..count {
            self.kind(of)?;
        }
        Ok(())
    }

    fn tags(&mut self, shape: &Shape) -> Result<(), Malformed> {
        let at = self.at;
        let count = self.uvarint()? as usize;
        // A tagged field takes two bytes at least: tag and size.
        if count > (self.body.len() - self.at) / 2 {
            return Err(Malformed::Count { at, count });
        }
        self.count_elements(count)?;
        let mut lowest = 0;
        for _ in 0..count {
            let at = self.at;
            let tag = self.uvarint()?;
            if u64::from(tag) < lowest {
                return Err(Malformed::TagOrder { at, tag });
            }
            lowest = u64::from(tag) + 1;
            let size = self.uvarint()? as usize;
            self.tagged(shape, tag, size)?;
        }
        Ok(())
    }

    fn tagged(&mut self, shape: &Shape, tag: u32, size: usize) -> Result<(), Malformed> {
        let at = self.at;
        self.skip(size)?;
        let end = self.at;
        let Some((_, field)) = shape.tags.iter().find(|(known, _)| *known == tag) else {
            return Ok(());
        };
        if !field.exists_in(self.version) {
            return Err(Malformed::TagValue { at, tag });
        }
        self.at = at;
        self.kind(&field.kind)?;
        if self.at == end {
            Ok(())
        } else {
            Err(Malformed::TagValue { at, tag })
        }
    }

    /// Smallest number of bytes that a value of this kind takes.
    fn smallest(&self, kind: &Kind) -> usize {
        match (kind, self.flexible) {
            (Kind::Bool | Kind::Nullable(_), _) => 1,
            (Kind::Fixed(len), _) => *len,
            (Kind::String { .. }, false) => 2,
            (Kind::Bytes { .. } | Kind::Array { .. }, false) => 4,
            (Kind::String { .. } | Kind::Bytes { .. } | Kind::Array { .. }, true) => 1,
            (Kind::Struct(shape), flexible) => {
                let fields = shape.fields.iter().filter(|field| field.exists_in(self.version));
                fields.map(|field| self.smallest(&field.kind)).sum::<usize>() + usize::from(flexible)
            }
        }
    }

    fn count_elements(&mut self, count: usize) -> Result<(), Malformed> {
        self.elements = self.elements.saturating_add(count);
        if self.elements > MAX_ELEMENTS {
            Err(Malformed::TooManyElements)
        } else {
            Ok(())
        }
    }

    fn null(&self, at: usize, null_from: i16) -> Result<(), Malformed> {
        if self.version >= null_from {
            Ok(())
        } else {
            Err(Malformed::Null { at })
        }
    }

    /// Length of a string; `None` is null.
    fn string_length(&mut self) -> Result<Option<usize>, Malformed> {
        if self.flexible {
            return self.compact_length();
        }
        let at = self.at;
        let length = i16::from_be_bytes(self.take::<2>()?);
        Self::signed_length(at, length.into())
    }

    /// Length of bytes or count of an array; `None` is null.
    fn length(&mut self) -> Result<Option<usize>, Malformed> {
        if self.flexible {
            return self.compact_length();
        }
        let at = self.at;
        let length = i32::from_be_bytes(self.take::<4>()?);
        Self::signed_length(at, length)
    }

    fn signed_length(at: usize, length: i32) -> Result<Option<usize>, Malformed> {
        if length == -1 {
            return Ok(None);
        }
        usize::try_from(length)
            .map(Some)
            .map_err(|_| Malformed::Length { at })
    }

    fn compact_length(&mut self) -> Result<Option<usize>, Malformed> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    fn uvarint(&mut self) -> Result<u32, Malformed> {
        let at = self.at;
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take::<1>()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint { at })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let bytes = *rest
            .first_chunk::<N>()
            .ok_or(Malformed::Truncated { at: self.at })?;
        self.at += N;
        Ok(bytes)
    }

    fn skip(&mut self, len: usize) -> Result<(), Malformed> {
        if len > self.body.len() - self.at {
            return Err(Malformed::Truncated { at: self.at });
        }
        self.at += len;
        Ok(())
    }
}
