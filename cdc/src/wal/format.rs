//! The bytes of a segment: a header, then records, each with its length and checksum.

use bytes::{Buf, Bytes};
use takhin_pika::Position;
use takhin_pika::binlog::Item;
use takhin_pika::legacy::LastRecord;

use crate::source::Received;

/// What a segment begins with.
const MAGIC: &[u8; 8] = b"TKCDCWAL";

/// Version of the format; a newer one is refused. 1 has no [`Origin`].
pub(super) const VERSION: u32 = 2;

/// Bytes of a master's version that are kept.
const MASTER: usize = 16;

/// Bytes of a replication's name that there is room for.
pub(super) const REPLICATION: usize = 64;

/// Bytes before the first record, without an [`Origin`].
pub(super) const HEADER: usize = 8 + 4 + 12 + 12 + 4 + MASTER + 4;

/// Bytes before the first record, with one.
pub(super) const LONG_HEADER: usize = HEADER + 4 + REPLICATION;

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
    /// Whose binlog it is; masters before 3.1 do not say.
    pub(super) origin: Option<Origin>,
}

/// Whose binlog is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The master's replication; empty before 3.5.1.
    pub replication_id: String,
    /// Data sets by which a lost position was replaced.
    pub epoch: u32,
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
        out.extend_from_slice(&(1 + u32::from(self.origin.is_some())).to_le_bytes());
        for position in [self.end, last.header] {
            out.extend_from_slice(&position.filenum.to_le_bytes());
            out.extend_from_slice(&position.offset.to_le_bytes());
        }
        out.extend_from_slice(&last.commands.to_le_bytes());
        out.extend_from_slice(&padded::<MASTER>(&self.master));
        if let Some(origin) = &self.origin {
            out.extend_from_slice(&origin.epoch.to_le_bytes());
            out.extend_from_slice(&padded::<REPLICATION>(&origin.replication_id));
        }
        out.extend_from_slice(&checksum(&out).to_le_bytes());
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() < HEADER || !bytes.starts_with(MAGIC) {
            return Err(HeaderError::Damaged);
        }
        let len = header_len(bytes);
        let summed = bytes;
        bytes.advance(MAGIC.len());
        let version = bytes.get_u32_le();
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        if summed.len() < len {
            return Err(HeaderError::Damaged);
        }
        let sum = checksum(&summed[..len - 4]);
        let end = Position::new(bytes.get_u32_le(), bytes.get_u64_le());
        let header = Position::new(bytes.get_u32_le(), bytes.get_u64_le());
        let commands = bytes.get_u32_le();
        let master = text(&bytes[..MASTER]);
        bytes.advance(MASTER);
        let origin = (len == LONG_HEADER).then(|| Origin {
            epoch: bytes.get_u32_le(),
            replication_id: text(&bytes[..REPLICATION]),
        });
        if origin.is_some() {
            bytes.advance(REPLICATION);
        }
        if bytes.get_u32_le() != sum {
            return Err(HeaderError::Damaged);
        }
        Ok(Self {
            end,
            last: (commands > 0).then_some(LastRecord { header, commands }),
            master,
            origin,
        })
    }

    /// Bytes of the header.
    pub(super) fn len(&self) -> usize {
        match self.origin {
            None => HEADER,
            Some(_) => LONG_HEADER,
        }
    }
}

/// Bytes that a header has which begins so.
pub(super) fn header_len(bytes: &[u8]) -> usize {
    match bytes.strip_prefix(MAGIC) {
        Some([1, 0, 0, 0, ..]) => HEADER,
        _ => LONG_HEADER,
    }
}

/// The version of a master as it is kept.
pub fn version_kept(version: &str) -> String {
    text(&padded::<MASTER>(version))
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    out
}

fn text(padded: &[u8]) -> String {
    let text: Vec<u8> = padded.iter().copied().filter(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
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
