//! The bytes of a segment: a header, then records, each with its length and checksum.

use bytes::{Buf, Bytes};
use takhin_pika::Position;
use takhin_pika::binlog::Item;
use takhin_pika::legacy::LastRecord;

use crate::source::Received;

/// What a segment begins with.
const MAGIC: &[u8; 8] = b"TKCDCWAL";

/// Version of the format; a newer one is refused.
pub(super) const VERSION: u32 = 1;

/// Bytes of a master's version that are kept.
const MASTER: usize = 16;

/// Bytes before the first record.
pub(super) const HEADER: usize = 8 + 4 + 12 + 12 + 4 + MASTER + 4;

/// Bytes before what a record holds: length and checksum.
pub(super) const BEFORE: usize = 8;

/// Bytes of a record before its item.
const PLACE: usize = 4 + 8 + 4;

/// Longest record.
const MAX: usize = (1 << 30) - 1;

/// Where a segment begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// The end of what is before it.
    pub(super) end: Position,
    /// The last record before it, if it is known.
    pub(super) last: Option<LastRecord>,
    /// The version of the master.
    pub(super) master: String,
}

/// Why a header makes no sense.
pub(super) enum HeaderError {
    /// It is cut, or was damaged.
    Damaged,
    /// It has this version.
    Newer(u32),
}

impl Base {
    pub(super) fn encode(&self) -> Vec<u8> {
        let last = self.last.unwrap_or_else(|| LastRecord {
            header: Position::default(),
            commands: 0,
        });
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        for position in [self.end, last.header] {
            out.extend_from_slice(&position.filenum.to_le_bytes());
            out.extend_from_slice(&position.offset.to_le_bytes());
        }
        out.extend_from_slice(&last.commands.to_le_bytes());
        let mut master = [0; MASTER];
        for (to, from) in master.iter_mut().zip(self.master.bytes()) {
            *to = from;
        }
        out.extend_from_slice(&master);
        out.extend_from_slice(&checksum(&out).to_le_bytes());
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() < HEADER || !bytes.starts_with(MAGIC) {
            return Err(HeaderError::Damaged);
        }
        let sum = checksum(&bytes[..HEADER - 4]);
        bytes.advance(MAGIC.len());
        let version = bytes.get_u32_le();
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        let end = Position::new(bytes.get_u32_le(), bytes.get_u64_le());
        let header = Position::new(bytes.get_u32_le(), bytes.get_u64_le());
        let commands = bytes.get_u32_le();
        let master: Vec<u8> = bytes[..MASTER]
            .iter()
            .copied()
            .filter(|byte| *byte != 0)
            .collect();
        bytes.advance(MASTER);
        if bytes.get_u32_le() != sum {
            return Err(HeaderError::Damaged);
        }
        Ok(Self {
            end,
            last: (commands > 0).then_some(LastRecord { header, commands }),
            master: String::from_utf8_lossy(&master).into_owned(),
        })
    }
}

/// Appends a record.
pub(super) fn put(out: &mut Vec<u8>, received: &Received) {
    let mut body = Vec::with_capacity(PLACE + 64 + received.item.content.len());
    body.extend_from_slice(&received.end.filenum.to_le_bytes());
    body.extend_from_slice(&received.end.offset.to_le_bytes());
    body.extend_from_slice(&received.index.to_le_bytes());
    body.extend_from_slice(&received.item.encode());
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&checksum(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

/// The length that a record claims to have behind its first bytes, and its checksum; `None` if it cannot be one.
pub(super) fn claim(mut before: &[u8]) -> Option<(usize, u32)> {
    if before.len() < BEFORE {
        return None;
    }
    let len = usize::try_from(before.get_u32_le()).ok()?;
    (PLACE..=MAX).contains(&len).then(|| (len, before.get_u32_le()))
}

/// Reads what a record holds; `None` if it is not what was written.
pub(super) fn read(mut body: Bytes, sum: u32) -> Option<Received> {
    if body.len() < PLACE || checksum(&body) != sum {
        return None;
    }
    let end = Position::new(body.get_u32_le(), body.get_u64_le());
    let index = body.get_u32_le();
    let item = Item::decode(body).ok()?;
    Some(Received { item, index, end })
}

/// CRC-32C.
pub fn checksum(bytes: &[u8]) -> u32 {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    // The upper half of a checksum of 32 bits is empty.
    u32::try_from(sum).unwrap_or(0)
}
