//! What a topic's configuration asks of a batch (reference: Kafka's `LogValidator` and `UnifiedLog.append`).

use bytes::Bytes;
use takhin_cluster::MAX_COMPACTED_BATCH as MAX_INFLATED;
use takhin_config::topic::{CompressionType, TimestampType, TopicConfig};
use takhin_protocol::record::{
    Batch, BatchError, BuildError, Compression, Limits, RecordCheck, validate_produced,
};

use super::Refused;
use crate::context::RequestContext;
use crate::error::ToErrorCode as _;

/// Checks one partition's records and stamps them where the topic wants the broker's time. The batch shares the
/// request's bytes.
pub(super) fn validate(
    cx: &RequestContext,
    topic: &TopicConfig,
    records: Option<Bytes>,
) -> Result<Batch, Refused> {
    let now_ms = cx.broker().env.clock.now_ms();
    let batch = validate_produced(records, &limits(cx.version, topic, now_ms)).map_err(refuse)?;
    let batch = recompress(batch, topic)?;
    Ok(match topic.message_timestamp_type {
        TimestampType::CreateTime => batch,
        TimestampType::LogAppendTime => batch.with_append_time(now_ms),
    })
}

fn limits(version: i16, topic: &TopicConfig, now_ms: i64) -> Limits {
    // The broker's own time replaces the client's, so the client's may be anything.
    let (min_timestamp, max_timestamp) = match topic.message_timestamp_type {
        TimestampType::CreateTime => (
            now_ms.saturating_sub(topic.message_timestamp_before_max_ms),
            now_ms.saturating_add(topic.message_timestamp_after_max_ms),
        ),
        TimestampType::LogAppendTime => (i64::MIN, i64::MAX),
    };
    Limits {
        max_bytes: topic.max_message_bytes as usize,
        allow_zstd: allows_zstd(version),
        min_timestamp,
        max_timestamp,
        // Compaction needs the keys of all records, so it must be able to read them; and what is compressed anew must be
        // records.
        records: match topic.cleanup_policy.compact || topic.compression_type != CompressionType::Producer {
            true => RecordCheck::All { budget: MAX_INFLATED },
            false => RecordCheck::Uncompressed,
        },
        require_keys: topic.cleanup_policy.compact,
    }
}

/// The batch with the codec that the topic asks for (P9). Its size is looked at again (P6).
fn recompress(batch: Batch, topic: &TopicConfig) -> Result<Batch, Refused> {
    let (codec, level) = match topic.compression_type {
        CompressionType::Producer => return Ok(batch),
        CompressionType::Uncompressed => (Compression::None, None),
        CompressionType::Gzip => (Compression::Gzip, Some(topic.compression_gzip_level)),
        CompressionType::Snappy => (Compression::Snappy, None),
        CompressionType::Lz4 => (Compression::Lz4, None),
        CompressionType::Zstd => (Compression::Zstd, Some(topic.compression_zstd_level)),
    };
    let max = topic.max_message_bytes as usize;
    let batch = batch
        .recompressed(codec, level, MAX_INFLATED)
        .map_err(|error| match error {
            BuildError::Compression(error) => refuse(BatchError::Compression(error)),
            BuildError::TooLarge { len } => refuse(BatchError::TooLarge { size: len, max }),
            BuildError::Empty => refuse(BatchError::NoBatch),
        })?;
    match batch.header.total_len() {
        size if size > max => Err(refuse(BatchError::TooLarge { size, max })),
        _ => Ok(batch),
    }
}

/// KIP-110.
fn allows_zstd(version: i16) -> bool {
    version >= 7
}

fn refuse(error: BatchError) -> Refused {
    let records = match &error {
        BatchError::NullKeys { indexes } => indexes.clone(),
        BatchError::RecordOffset { index, .. } | BatchError::Record { index, .. } => vec![*index],
        _ => Vec::new(),
    };
    Refused {
        message: Some(error.to_string()),
        records,
        ..Refused::from(error.to_error_code())
    }
}
