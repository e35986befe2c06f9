//! Checks what a producer sends for one partition, before anything of it is appended.
//!
//! The order is Kafka's (`ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`,
//! `LogValidator`), because client suites assert which error they get. Where we differ: unknown attribute bits
//! are refused, since one of them marks our hidden entries; compressed records are not inflated unless
//! [`RecordCheck::All`] asks for it.

use bytes::Bytes;

use super::batch::{Attributes, Batch, BatchHeader, CRC_FROM, HEADER_LEN, NO_PRODUCER, crc32c};
use super::compression::{Compression, CompressionError, decompress};
use super::records::{MIN_RECORD, RecordError, Records};

/// What a batch must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest batch in bytes as received, header included; inclusive (`max.message.bytes`).
    pub max_bytes: usize,
    /// Whether zstd is allowed: Produce 7 and later (KIP-110).
    pub allow_zstd: bool,
    /// Earliest timestamp allowed, in milliseconds, inclusive. -1, no timestamp, is always allowed.
    pub min_timestamp: i64,
    /// Latest timestamp allowed, in milliseconds, inclusive.
    pub max_timestamp: i64,
    /// Which records are read.
    pub records: RecordCheck,
    /// Whether a record that is read must have a key: the topic is compacted.
    pub require_keys: bool,
}

impl Default for Limits {
    /// Kafka's default size; zstd, any timestamp, uncompressed records read.
    fn default() -> Self {
        Self {
            max_bytes: 1_048_588,
            allow_zstd: true,
            min_timestamp: i64::MIN,
            max_timestamp: i64::MAX,
            records: RecordCheck::Uncompressed,
            require_keys: false,
        }
    }
}

/// Which records [`validate_produced`] reads, beyond header and CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordCheck {
    /// None.
    HeaderOnly,
    /// Those of batches that are not compressed. Allocates nothing.
    Uncompressed,
    /// All; compressed ones are inflated into at most `budget` bytes.
    All {
        /// In bytes, inclusive.
        budget: usize,
    },
}

/// Why a producer's batch is refused. Nothing of it was appended.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// There are no records, or null.
    #[error("partition has no record batch; exactly one is allowed")]
    NoBatch,
    /// More bytes follow the batch.
    #[error("{bytes} bytes follow the record batch; exactly one batch is allowed")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// An old or unknown format.
    #[error("record batch has magic {magic}; only 2 is supported")]
    Magic {
        /// The magic byte.
        magic: i8,
    },
    /// Too short for a header, or the length field does not fit the bytes.
    #[error("record batch says it has {claimed} bytes but has {actual}")]
    Length {
        /// Header's length, plus 12; 0 if there is no whole header.
        claimed: usize,
        /// Bytes received.
        actual: usize,
    },
    /// zstd at a version that cannot have it.
    #[error("zstd needs a newer version of the produce request")]
    ZstdNotAllowed,
    /// The batch exceeds [`Limits::max_bytes`].
    #[error("record batch of {size} bytes is larger than the {max} allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// The checksum is wrong.
    #[error("record batch has checksum {stored:#010x} but its bytes give {computed:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Producers count from 0.
    #[error("base offset must be 0, not {base_offset}")]
    BaseOffset {
        /// The base offset.
        base_offset: i64,
    },
    /// Codec 5, 6 or 7.
    #[error("compression codec {id} is unknown")]
    Codec {
        /// The codec's number.
        id: i16,
    },
    /// Attribute bits without a meaning, or with one that is not for producers.
    #[error("attribute bits {bits:#06x} are not for producers")]
    ReservedAttributes {
        /// Those bits.
        bits: i16,
    },
    /// A control batch.
    #[error("clients cannot write control records")]
    Control,
    /// LogAppendTime is for the broker to set.
    #[error("producers cannot set the timestamp type to LogAppendTime")]
    TimestampType,
    /// The number of records and the last offset do not agree, or there are none.
    #[error("record count {records_count} does not fit last offset delta {last_offset_delta}")]
    Count {
        /// Header's number of records.
        records_count: i32,
        /// Header's last offset delta.
        last_offset_delta: i32,
    },
    /// A producer id needs an epoch and a sequence, a transaction a producer id; none of them is negative.
    #[error(
        "producer id {producer_id}, epoch {producer_epoch}, sequence {base_sequence} do not fit together"
    )]
    Producer {
        /// Producer id.
        producer_id: i64,
        /// Producer epoch.
        producer_epoch: i16,
        /// First sequence number.
        base_sequence: i32,
    },
    /// A timestamp outside the limits.
    #[error("timestamp {timestamp} is outside {min}..={max}")]
    Timestamp {
        /// The timestamp, in milliseconds.
        timestamp: i64,
        /// Earliest allowed.
        min: i64,
        /// Latest allowed.
        max: i64,
    },
    /// Compressed records cannot be inflated, or not within the budget.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A record cannot be read.
    #[error("record {index} is malformed")]
    Record {
        /// Its position in the batch, from 0.
        index: i32,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// Offsets are not 0, 1, 2 and so on.
    #[error("record {index} has offset delta {offset_delta}")]
    RecordOffset {
        /// Its position in the batch, from 0.
        index: i32,
        /// Its offset delta.
        offset_delta: i32,
    },
    /// Records without a key for a compacted topic.
    #[error("compacted topics need a key, which {} records lack", indexes.len())]
    NullKeys {
        /// Their positions in the batch, from 0; at most the first thousand.
        indexes: Vec<i32>,
    },
}

/// Checks the records of one partition of a produce request: exactly one sound batch within `limits`.
///
/// The batch shares the request's bytes. Base offset and leader epoch are as sent. Like Kafka, a max timestamp
/// that is not the records' largest is corrected (and the CRC with it) where the records are read; some clients
/// leave it unset.
///
/// # Errors
///
/// The first rule that is broken, in Kafka's order.
pub fn validate_produced(records: Option<Bytes>, limits: &Limits) -> Result<Batch, BatchError> {
    let bytes = records
        .filter(|bytes| !bytes.is_empty())
        .ok_or(BatchError::NoBatch)?;
    let header = one_batch(&bytes)?;
    let codec = header.attributes.compression();
    if codec == Compression::Zstd.id() && !limits.allow_zstd {
        return Err(BatchError::ZstdNotAllowed);
    }
    if bytes.len() > limits.max_bytes {
        return Err(BatchError::TooLarge {
            size: bytes.len(),
            max: limits.max_bytes,
        });
    }
    if header.base_offset != 0 {
        return Err(BatchError::BaseOffset {
            base_offset: header.base_offset,
        });
    }
    let computed = crc32c(&bytes[CRC_FROM..]);
    if computed != header.crc {
        return Err(BatchError::Crc {
            stored: header.crc,
            computed,
        });
    }
    let codec = Compression::from_id(codec).ok_or(BatchError::Codec { id: codec })?;
    let mut batch = Batch {
        header,
        body: bytes.slice(HEADER_LEN..),
    };
    check_header(&batch, codec, limits)?;
    let max_timestamp = match limits.records {
        RecordCheck::Uncompressed if codec == Compression::None => {
            check_records(&header, &batch.body, limits)?
        }
        RecordCheck::All { .. } if codec == Compression::None => check_records(&header, &batch.body, limits)?,
        RecordCheck::All { budget } => {
            check_records(&header, &decompress(codec, &batch.body, budget)?, limits)?
        }
        RecordCheck::HeaderOnly | RecordCheck::Uncompressed => {
            header.max_timestamp.max(header.base_timestamp)
        }
    };
    if max_timestamp != header.max_timestamp {
        batch.header.max_timestamp = max_timestamp;
        batch.header.crc = batch.compute_crc();
    }
    Ok(batch)
}

/// The header, if the bytes are one batch of format v2 as far as lengths tell.
fn one_batch(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let actual = bytes.len();
    // The magic byte is at the same place in every format, so old formats are named rather than called short.
    let magic = *bytes.get(16).ok_or(BatchError::Length { claimed: 0, actual })?;
    if magic != 2 {
        return Err(BatchError::Magic {
            magic: magic.cast_signed(),
        });
    }
    let head = bytes
        .first_chunk::<HEADER_LEN>()
        .ok_or(BatchError::Length { claimed: 0, actual })?;
    let header = BatchHeader::parse(head);
    let claimed = header.total_len();
    if claimed < HEADER_LEN || claimed > actual {
        return Err(BatchError::Length { claimed, actual });
    }
    if claimed < actual {
        return Err(BatchError::Trailing {
            bytes: actual - claimed,
        });
    }
    Ok(header)
}

fn check_header(batch: &Batch, codec: Compression, limits: &Limits) -> Result<(), BatchError> {
    const FOR_PRODUCERS: i16 = Attributes::COMPRESSION_MASK
        | Attributes::LOG_APPEND_TIME
        | Attributes::TRANSACTIONAL
        | Attributes::CONTROL;
    let BatchHeader {
        attributes,
        records_count,
        last_offset_delta,
        ..
    } = batch.header;
    if attributes.0 & !FOR_PRODUCERS != 0 {
        return Err(BatchError::ReservedAttributes {
            bits: attributes.0 & !FOR_PRODUCERS,
        });
    }
    // Without compression, the body shows how many records there can be at most.
    let most = if codec == Compression::None {
        batch.body.len() / MIN_RECORD
    } else {
        usize::MAX
    };
    let dense = records_count > 0 && last_offset_delta == records_count - 1;
    if !dense || usize::try_from(records_count).is_ok_and(|count| count > most) {
        return Err(BatchError::Count {
            records_count,
            last_offset_delta,
        });
    }
    if attributes.has(Attributes::CONTROL) {
        return Err(BatchError::Control);
    }
    check_producer(&batch.header)?;
    if attributes.has(Attributes::LOG_APPEND_TIME) {
        return Err(BatchError::TimestampType);
    }
    check_timestamp(batch.header.base_timestamp, limits)?;
    check_timestamp(batch.header.max_timestamp, limits)
}

fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let BatchHeader {
        producer_id,
        producer_epoch,
        base_sequence,
        ..
    } = *header;
    let sound = if producer_id == NO_PRODUCER {
        // Some clients then leave 0 as epoch and sequence, so neither is looked at.
        !header.attributes.has(Attributes::TRANSACTIONAL)
    } else {
        producer_id >= 0 && producer_epoch >= 0 && base_sequence >= 0
    };
    if sound {
        Ok(())
    } else {
        Err(BatchError::Producer {
            producer_id,
            producer_epoch,
            base_sequence,
        })
    }
}

fn check_timestamp(timestamp: i64, limits: &Limits) -> Result<(), BatchError> {
    let (min, max) = (limits.min_timestamp, limits.max_timestamp);
    if timestamp == -1 || (timestamp >= 0 && (min..=max).contains(&timestamp)) {
        return Ok(());
    }
    Err(BatchError::Timestamp {
        timestamp,
        min: min.max(0),
        max,
    })
}

/// Most records of a batch that an error names.
const MAX_BLAMED: usize = 1000;

/// Reads all records; returns their largest timestamp.
fn check_records(header: &BatchHeader, records: &[u8], limits: &Limits) -> Result<i64, BatchError> {
    let mut largest = -1;
    let mut without_key = Vec::new();
    for (index, record) in (0..).zip(Records::new(records, header.records_count)) {
        let record = record.map_err(|source| BatchError::Record { index, source })?;
        if record.offset_delta != index {
            return Err(BatchError::RecordOffset {
                index,
                offset_delta: record.offset_delta,
            });
        }
        if limits.require_keys && record.key.is_none() && without_key.len() < MAX_BLAMED {
            without_key.push(index);
        }
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        check_timestamp(timestamp, limits)?;
        largest = largest.max(timestamp);
    }
    if without_key.is_empty() {
        Ok(largest)
    } else {
        Err(BatchError::NullKeys { indexes: without_key })
    }
}
