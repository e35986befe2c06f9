//! The v2 batch header, and a batch as header plus untouched body.
//!
//! ```text
//!  0  base_offset             i64   outside the CRC; filled in on append
//!  8  batch_length            i32   bytes that follow this field: total length - 12
//! 12  partition_leader_epoch  i32   outside the CRC; filled in on append
//! 16  magic                   i8    2
//! 17  crc                     u32   CRC-32C of everything from `attributes` to the end
//! 21  attributes              i16
//! 23  last_offset_delta       i32   -1 in a hidden entry
//! 27  base_timestamp          i64
//! 35  max_timestamp           i64
//! 43  producer_id             i64
//! 51  producer_epoch          i16
//! 53  base_sequence           i32
//! 57  records_count           i32
//! 61  records
//! ```

use bytes::{BufMut, Bytes, BytesMut};

/// Length in bytes of the batch header, including base offset and batch length.
pub const HEADER_LEN: usize = 61;

/// Position of the first byte that the CRC covers.
pub(crate) const CRC_FROM: usize = 21;

/// `producer_id` of a batch without idempotence.
pub const NO_PRODUCER: i64 = -1;

/// The attribute bits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    /// Bits 0 to 2: the compression codec.
    pub const COMPRESSION_MASK: i16 = 0x07;
    /// Bit 3: timestamps are the broker's append time.
    pub const LOG_APPEND_TIME: i16 = 0x08;
    /// Bit 4: part of a transaction.
    pub const TRANSACTIONAL: i16 = 0x10;
    /// Bit 5: a control batch (transaction marker).
    pub const CONTROL: i16 = 0x20;
    /// Bit 6: the base timestamp is a delete horizon.
    pub const DELETE_HORIZON: i16 = 0x40;
    /// Bit 15: a hidden entry of the replication layer, never sent to a client and never accepted from one.
    pub const HIDDEN: i16 = i16::MIN;

    /// Number of the compression codec, 0 to 7.
    pub fn compression(self) -> i16 {
        self.0 & Self::COMPRESSION_MASK
    }
    /// Whether all of `bits` are set.
    pub fn has(self, bits: i16) -> bool {
        self.0 & bits == bits
    }
}

/// The fixed header of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes after the length field: total length minus 12.
    pub batch_length: i32,
    /// Leader epoch in which the batch was appended.
    pub partition_leader_epoch: i32,
    /// Format version; 2.
    pub magic: i8,
    /// CRC-32C from `attributes` to the end of the batch.
    pub crc: u32,
    /// Attribute bits.
    pub attributes: Attributes,
    /// Offset of the last record minus `base_offset`; -1 in a hidden entry.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, milliseconds since the epoch.
    pub base_timestamp: i64,
    /// Largest timestamp in the batch, milliseconds since the epoch.
    pub max_timestamp: i64,
    /// Producer id, or [`NO_PRODUCER`].
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads a header from its 61 bytes. Nothing is checked.
    pub fn parse(b: &[u8; HEADER_LEN]) -> Self {
        fn i16_at(b: &[u8], i: usize) -> i16 {
            i16::from_be_bytes([b[i], b[i + 1]])
        }
        fn i32_at(b: &[u8], i: usize) -> i32 {
            i32::from_be_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]])
        }
        fn i64_at(b: &[u8], i: usize) -> i64 {
            let mut x = [0; 8];
            x.copy_from_slice(&b[i..i + 8]);
            i64::from_be_bytes(x)
        }
        Self {
            base_offset: i64_at(b, 0),
            batch_length: i32_at(b, 8),
            partition_leader_epoch: i32_at(b, 12),
            magic: i8::from_be_bytes([b[16]]),
            crc: u32::from_be_bytes([b[17], b[18], b[19], b[20]]),
            attributes: Attributes(i16_at(b, 21)),
            last_offset_delta: i32_at(b, 23),
            base_timestamp: i64_at(b, 27),
            max_timestamp: i64_at(b, 35),
            producer_id: i64_at(b, 43),
            producer_epoch: i16_at(b, 51),
            base_sequence: i32_at(b, 53),
            records_count: i32_at(b, 57),
        }
    }

    /// The 61 bytes of this header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        b[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        b[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        b[16] = self.magic.to_be_bytes()[0];
        b[17..21].copy_from_slice(&self.crc.to_be_bytes());
        b[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        b[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        b[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        b[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        b[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        b[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        b[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        b[57..61].copy_from_slice(&self.records_count.to_be_bytes());
        b
    }

    /// Length in bytes of the whole batch, header included; 12 plus `batch_length`.
    pub fn total_len(&self) -> usize {
        usize::try_from(self.batch_length).unwrap_or(0) + 12
    }

    /// The offset after this batch: `base_offset + last_offset_delta + 1`, never a record count.
    pub fn next_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
            .saturating_add(1)
    }

    /// Whether this is a hidden entry of the replication layer; it takes no offset.
    pub fn is_hidden(&self) -> bool {
        self.attributes.has(Attributes::HIDDEN)
    }
}

/// A record batch: its header as a value, its body as the bytes that arrived.
///
/// Writing one is a gather write of `header.encode()` and `body`; the body is never copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The header; base offset and leader epoch are filled in on append.
    pub header: BatchHeader,
    /// Everything after the header.
    pub body: Bytes,
}

impl Batch {
    /// A hidden entry of the replication layer around `body`, with its CRC computed.
    ///
    /// It takes no Kafka offset: `base_offset` is the offset that the next record will get.
    pub fn hidden(base_offset: i64, partition_leader_epoch: i32, timestamp: i64, body: Bytes) -> Self {
        let batch_length = i32::try_from(body.len() + HEADER_LEN - 12).unwrap_or(i32::MAX);
        let mut header = BatchHeader {
            base_offset,
            batch_length,
            partition_leader_epoch,
            magic: 2,
            crc: 0,
            attributes: Attributes(Attributes::HIDDEN | Attributes::CONTROL),
            last_offset_delta: -1,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            producer_id: NO_PRODUCER,
            producer_epoch: -1,
            base_sequence: -1,
            records_count: 0,
        };
        header.crc = crc(&header, &body);
        Self { header, body }
    }

    /// The CRC-32C that the header ought to carry.
    pub fn compute_crc(&self) -> u32 {
        crc(&self.header, &self.body)
    }

    /// The whole batch in one piece; copies the body. For clients and tests.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_LEN + self.body.len());
        out.put_slice(&self.header.encode());
        out.put_slice(&self.body);
        out.freeze()
    }
}

fn crc(header: &BatchHeader, body: &[u8]) -> u32 {
    let head = header.encode();
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&head[CRC_FROM..]);
    digest.update(body);
    u32::try_from(digest.finalize()).unwrap_or(0)
}

/// CRC-32C of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
