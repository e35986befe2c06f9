//! What every message on a stream is, and its codec.
//!
//! On the wire it is the protobuf message `Envelope` of `proto/link.proto`. The body is the last field, so that its
//! parts are gathered behind the header without being joined first; tonic's send buffer is the only place that they
//! are copied to. A received body is a slice of the receive buffer.

use bytes::{BufMut, Bytes};
use prost::Message;
use smallvec::SmallVec;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Tag of the body: field 4, length-delimited.
const BODY_TAG: u8 = 4 << 3 | 2;

/// Most bytes that an envelope has beside its body.
pub(crate) const MAX_HEADER: usize = 32;

/// Bytes that a stream's send buffer begins with.
const BUFFER: usize = 32 * 1024;

/// Bytes from which on a buffer is sent, although more waits.
const GATHER: usize = 128 * 1024;

/// The contents of a call or an answer: buffers that belong one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body(SmallVec<[Bytes; 2]>);

impl Body {
    /// Length of all parts, in bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All parts as one; copies them if there are several.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        match self.0.len() {
            0 => Bytes::new(),
            1 => self.0.remove(0),
            _ => self.0.concat().into(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(SmallVec::from_iter([bytes]))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl FromIterator<Bytes> for Body {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(parts: Vec<Bytes>) -> Self {
        parts.into_iter().collect()
    }
}

/// What an envelope is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Request = 0,
    Answer = 1,
    Failure = 2,
    OneWay = 3,
    Greeting = 4,
}

/// One message on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) correlation: u64,
    pub(crate) kind: u16,
    pub(crate) role: Role,
    pub(crate) body: Body,
}

impl Envelope {
    pub(crate) fn new(role: Role, kind: u16, body: Body) -> Self {
        Self {
            correlation: 0,
            kind,
            role,
            body,
        }
    }

    /// A Hello or a Welcome.
    pub(crate) fn greeting(message: &impl Message) -> Self {
        Self::new(Role::Greeting, 0, message.encode_to_vec().into())
    }

    /// Bytes that it counts in queues: the body, and a guess at what it costs beside that.
    pub(crate) fn cost(&self) -> usize {
        self.body.len() + 128
    }
}

/// The message as protobuf has it.
#[derive(Clone, PartialEq, Message)]
struct Plain {
    #[prost(uint64, tag = "1")]
    correlation: u64,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(uint32, tag = "3")]
    role: u32,
    #[prost(bytes = "bytes", tag = "4")]
    body: Bytes,
}

/// Encodes and decodes envelopes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EnvelopeCodec;

impl Codec for EnvelopeCodec {
    type Encode = Envelope;
    type Decode = Envelope;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for EnvelopeCodec {
    type Item = Envelope;
    type Error = Status;

    fn encode(&mut self, envelope: Envelope, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(MAX_HEADER + envelope.body.len());
        write(envelope, dst)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, GATHER)
    }
}

impl Decoder for EnvelopeCodec {
    type Item = Envelope;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Envelope>, Status> {
        read(src).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, GATHER)
    }
}

fn write(envelope: Envelope, dst: &mut impl BufMut) -> Result<(), Status> {
    let full = |_| Status::internal("no room for an envelope");
    let header = Plain {
        correlation: envelope.correlation,
        kind: envelope.kind.into(),
        role: envelope.role as u32,
        body: Bytes::new(),
    };
    header.encode(dst).map_err(full)?;
    let len = envelope.body.len();
    if len > 0 {
        dst.put_u8(BODY_TAG);
        prost::encode_length_delimiter(len, dst).map_err(full)?;
        for part in envelope.body.0 {
            dst.put(part);
        }
    }
    Ok(())
}

fn read(src: &mut impl bytes::Buf) -> Result<Envelope, Status> {
    let malformed = |what: &'static str| Status::invalid_argument(what);
    let plain = Plain::decode(src).map_err(|_| malformed("not an envelope"))?;
    let role = match plain.role {
        0 => Role::Request,
        1 => Role::Answer,
        2 => Role::Failure,
        3 => Role::OneWay,
        4 => Role::Greeting,
        _ => return Err(malformed("an envelope of no known role")),
    };
    Ok(Envelope {
        correlation: plain.correlation,
        kind: u16::try_from(plain.kind).map_err(|_| malformed("an envelope whose kind is above 65535"))?,
        role,
        body: plain.body.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_the_protobuf_message() {
        for (correlation, kind, parts) in [
            (0, 0, vec![]),
            (u64::MAX, u16::MAX, vec![Bytes::from_static(b"one part")]),
            (
                300,
                7,
                vec![
                    Bytes::from(vec![1; 200]),
                    Bytes::new(),
                    Bytes::from(vec![2; 100_000]),
                ],
            ),
        ] {
            let body = parts.concat();
            let mut envelope = Envelope::new(Role::Greeting, kind, parts.into());
            envelope.correlation = correlation;
            let mut written = Vec::new();
            write(envelope.clone(), &mut written).unwrap();
            let plain = Plain {
                correlation,
                kind: kind.into(),
                role: 4,
                body: body.clone().into(),
            };
            assert!(written == plain.encode_to_vec());
            assert!(written.len() <= MAX_HEADER + body.len());
            let read = read(&mut Bytes::from(written)).unwrap();
            assert_eq!(
                (read.correlation, read.kind, read.role),
                (correlation, kind, Role::Greeting)
            );
            assert!(read.body.into_bytes() == body);
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let plain = |kind, role| Plain {
            correlation: 1,
            kind,
            role,
            body: Bytes::new(),
        };
        for plain in [plain(65_536, 0), plain(0, 5)] {
            assert!(read(&mut Bytes::from(plain.encode_to_vec())).is_err());
        }
        assert!(read(&mut &[BODY_TAG, 0xff, 0xff, 0xff, 0xff, 0x0f][..]).is_err());
    }
}
