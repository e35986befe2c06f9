//! The records of `__consumer_offsets`, in Kafka's own schemas.
//!
//! The first two bytes of a key are its version, and the version says which kind of record it is:
//!
//! ```text
//! 0, 1   OffsetCommit     offset of a group for a partition        offset.rs
//! 2      GroupMetadata    a classic group's generation             classic.rs
//! 3-8    ConsumerGroup*   a consumer group's epochs and members    consumer.rs
//! 16     ConsumerGroupRegularExpression                            consumer.rs
//! ```
//!
//! Written is what Kafka 4.x writes, read is all that it reads. Source: `group-coordinator/src/main/resources` of
//! Apache Kafka.

mod classic;
mod codec;
mod consumer;
mod flexible;
mod offset;

#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::classic::{ClassicRecord, GroupMetadata, MemberMetadata};
pub use self::codec::RecordError;
pub(crate) use self::codec::{Reader, Writer};
pub use self::consumer::{
    ClassicMetadata, ConsumerMember, ConsumerRecord, CurrentAssignment, GroupEpoch, MemberState, Partitions,
    ResolvedRegex, TopicMetadata,
};
pub use self::offset::{CommittedOffset, OffsetRecord};

/// What a record takes in a batch besides its key and value, at most: lengths, deltas, attributes.
const RECORD_OVERHEAD: usize = 32;

/// One record, decoded.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// An offset of a group for a partition.
    Offset(OffsetRecord),
    /// A classic group's generation.
    Classic(ClassicRecord),
    /// One of those that make up a consumer group.
    Consumer(ConsumerRecord),
}

impl Record {
    /// Encodes into key and value; no value is a tombstone.
    ///
    /// # Errors
    ///
    /// [`RecordError::TooLong`]: a string is longer than 32767 bytes. Handlers refuse requests that would lead to it.
    pub fn encode(&self) -> Result<(Bytes, Option<Bytes>), RecordError> {
        match self {
            Record::Offset(record) => record.encode(),
            Record::Classic(record) => record.encode(),
            Record::Consumer(record) => record.encode(),
        }
    }

    /// Decodes a key and value of the topic; what it returns shares no memory with them.
    ///
    /// `None` is a record of a kind that this code does not know. It is to be skipped, so that a log survives a
    /// downgrade (KIP-915).
    ///
    /// # Errors
    ///
    /// [`RecordError`]: a field of a known kind cannot be read, or its value has an unknown version.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, RecordError> {
        let behind_version = key.get(2..).unwrap_or_default();
        let mut key = Reader::new(key);
        let record = match key.int16("key version")? {
            version if OffsetRecord::KEY_VERSIONS.contains(&version) => {
                Record::Offset(OffsetRecord::decode(&mut key, value)?)
            }
            ClassicRecord::KEY_VERSION => Record::Classic(ClassicRecord::decode(&mut key, value)?),
            kind if ConsumerRecord::is_kind(kind) => {
                Record::Consumer(ConsumerRecord::decode(kind, behind_version, value)?)
            }
            _ => return Ok(None),
        };
        Ok(Some(record))
    }

    /// Upper bound of what the record takes in a batch, in bytes.
    pub fn size(&self) -> usize {
        RECORD_OVERHEAD
            + match self {
                Record::Offset(record) => record.size(),
                Record::Classic(record) => record.size(),
                Record::Consumer(record) => record.size(),
            }
    }
}
