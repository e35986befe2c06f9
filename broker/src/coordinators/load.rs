//! Loading: a shard is what replaying its partition makes.

use std::sync::Arc;

use takhin_cluster::{Isolation, Partition, ReadError, ServedBy};
use takhin_coordinator::{GroupConfig, Record, RecordError, Shard};
use takhin_protocol::record::{Compression, CompressionError, Records, decompress, scan};
use takhin_protocol::{record::Attributes, record::HEADER_LEN};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Largest inflated batch: what the coordinator writes is smaller, and not compressed.
const MAX_INFLATED: usize = 16 << 20;

/// Why a shard cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// The partition cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file of it cannot be read.
    #[error("a segment cannot be read")]
    Io(#[from] std::io::Error),
    /// What was read is no batch.
    #[error("the batch at offset {offset} is damaged: {reason}")]
    Batch {
        /// Where the read began.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// A batch cannot be inflated.
    #[error("the batch at offset {offset} cannot be inflated")]
    Inflate {
        /// Base offset of the batch.
        offset: i64,
        /// What is wrong.
        source: CompressionError,
    },
    /// A record of a known kind cannot be read.
    #[error("the record at offset {offset} cannot be decoded")]
    Record {
        /// Its offset.
        offset: i64,
        /// What is wrong.
        source: RecordError,
    },
}

/// What loading did, for the log.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) records: usize,
    /// Records of kinds that a newer release may have written.
    pub(super) skipped: usize,
}

/// Replays what is committed in `partition`. Blocks on the disk.
///
/// # Errors
/// [`LoadError`]: serving with part of the groups would lose offsets, so the shard stays unavailable.
pub(super) fn load(partition: &Arc<Partition>, config: GroupConfig) -> Result<(Shard, Loaded), LoadError> {
    let mut shard = Shard::new(config);
    let mut loaded = Loaded::default();
    let mut offset = partition.offsets().log_start_offset;
    loop {
        let fetched = partition.fetch(offset, CHUNK, true, Isolation::ReadCommitted, ServedBy::Leader)?;
        if fetched.ranges.bytes == 0 {
            return Ok((shard, loaded));
        }
        let bytes = fetched.ranges.read_all()?;
        replay(&bytes, offset, &mut shard, &mut loaded)?;
        offset = fetched.ranges.next_offset;
    }
}

fn replay(mut bytes: &[u8], at: i64, shard: &mut Shard, loaded: &mut Loaded) -> Result<(), LoadError> {
    while !bytes.is_empty() {
        let (header, len) = scan::check(bytes).map_err(|damage| LoadError::Batch {
            offset: at,
            reason: damage.to_string(),
        })?;
        let (body, rest) = (&bytes[HEADER_LEN..len], &bytes[len..]);
        bytes = rest;
        if header.attributes.has(Attributes::CONTROL) {
            continue;
        }
        let offset = header.base_offset;
        let codec =
            Compression::from_id(header.attributes.compression()).ok_or_else(|| LoadError::Batch {
                offset,
                reason: "unknown compression".to_owned(),
            })?;
        let body =
            decompress(codec, body, MAX_INFLATED).map_err(|source| LoadError::Inflate { offset, source })?;
        for record in Records::new(&body, header.records_count) {
            let record = record.map_err(|error| LoadError::Batch {
                offset,
                reason: error.to_string(),
            })?;
            let offset = offset + i64::from(record.offset_delta);
            let decoded = Record::decode(record.key.unwrap_or_default(), record.value);
            match decoded.map_err(|source| LoadError::Record { offset, source })? {
                Some(record) => shard.replay(&record),
                None => loaded.skipped += 1,
            }
            loaded.records += 1;
        }
    }
    Ok(())
}
