//! Committed offsets: `OffsetCommitKey` and `OffsetCommitValue`.

use bytes::Bytes;
use takhin_protocol::messages::StrBytes;
use uuid::Uuid;

use super::codec::{Reader, RecordError, Writer};
use super::flexible;

/// Version of the key that is written; version 0 reads the same.
const KEY_VERSION: i16 = 1;
/// Version of a value that never expires by itself: the one that has room for a topic id (KAFKA-19141).
const VALUE_VERSION: i16 = 4;
/// The only version with an expire timestamp, and it has neither leader epoch nor topic id.
const VALUE_VERSION_WITH_EXPIRY: i16 = 1;
const TOPIC_ID_TAG: u32 = 0;

/// An offset that a group committed for a partition, or the tombstone of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetRecord {
    /// Group id.
    pub group: StrBytes,
    /// Topic, by name.
    pub topic: StrBytes,
    /// Partition.
    pub partition: i32,
    /// What was committed; `None` is a tombstone.
    pub value: Option<CommittedOffset>,
}

/// What a group committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Offset of the next record to process.
    pub offset: i64,
    /// Leader epoch of the last processed record, -1 if the client gave none.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: StrBytes,
    /// Wall time of the commit in milliseconds.
    pub commit_timestamp: i64,
    /// Wall time in milliseconds at which it expires, if the client asked for a retention (OffsetCommit 2 to 4).
    /// Such a value is written without its leader epoch, for want of a version that has both.
    pub expire_timestamp: Option<i64>,
    /// Identity of the topic that it was committed for, so that it is not taken for an offset of a later topic of that
    /// name. Absent from values that expire, and from those of Kafka before 4.1.
    pub topic_id: Option<Uuid>,
}

impl OffsetRecord {
    pub(super) const KEY_VERSIONS: std::ops::RangeInclusive<i16> = 0..=KEY_VERSION;

    pub(super) fn encode(&self) -> Result<(Bytes, Option<Bytes>), RecordError> {
        let mut key = Writer::new(KEY_VERSION);
        key.string("group", &self.group)?;
        key.string("topic", &self.topic)?;
        key.int32(self.partition);
        let value = self.value.as_ref().map(CommittedOffset::encode).transpose()?;
        Ok((key.finish(), value))
    }

    /// `key` stands behind its version.
    pub(super) fn decode(key: &mut Reader<'_>, value: Option<&[u8]>) -> Result<Self, RecordError> {
        Ok(Self {
            group: key.string("group")?,
            topic: key.string("topic")?,
            partition: key.int32("partition")?,
            value: value.map(CommittedOffset::decode).transpose()?,
        })
    }

    /// Upper bound of what the record takes in a batch, in bytes.
    pub(super) fn size(&self) -> usize {
        let value = self.value.as_ref().map_or(0, |value| 48 + value.metadata.len());
        10 + self.group.len() + self.topic.len() + value
    }
}

impl CommittedOffset {
    fn encode(&self) -> Result<Bytes, RecordError> {
        if let Some(expire_timestamp) = self.expire_timestamp {
            let mut value = Writer::new(VALUE_VERSION_WITH_EXPIRY);
            value.int64(self.offset);
            value.string("metadata", &self.metadata)?;
            value.int64(self.commit_timestamp);
            value.int64(expire_timestamp);
            return Ok(value.finish());
        }
        let mut value = flexible::Writer::default();
        value.i16(VALUE_VERSION);
        value.i64(self.offset);
        value.i32(self.leader_epoch);
        value.string(&self.metadata);
        value.i64(self.commit_timestamp);
        let topic_id = self
            .topic_id
            .map(|id| (TOPIC_ID_TAG as usize, id.as_bytes().to_vec()));
        value.tags(topic_id.as_slice());
        Ok(value.out.into())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut value = Reader::new(bytes);
        match value.int16("version")? {
            VALUE_VERSION => Self::decode_flexible(bytes.get(2..).unwrap_or_default()),
            version @ 0..VALUE_VERSION => Self::decode_plain(version, &mut value),
            version => Err(RecordError::Version {
                schema: "OffsetCommitValue",
                version,
            }),
        }
    }

    /// A value before version 4, behind its version.
    fn decode_plain(version: i16, value: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            offset: value.int64("offset")?,
            leader_epoch: if version >= 3 {
                value.int32("leaderEpoch")?
            } else {
                -1
            },
            metadata: value.string("metadata")?,
            commit_timestamp: value.int64("commitTimestamp")?,
            expire_timestamp: match version {
                VALUE_VERSION_WITH_EXPIRY => Some(value.int64("expireTimestamp")?).filter(|at| *at != -1),
                _ => None,
            },
            topic_id: None,
        })
    }

    /// A value of version 4, behind its version.
    fn decode_flexible(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut value = flexible::Reader::new(bytes);
        let mut decoded = Self {
            offset: value.i64("offset")?,
            leader_epoch: value.i32("leaderEpoch")?,
            metadata: StrBytes::from_string(value.string("metadata")?),
            commit_timestamp: value.i64("commitTimestamp")?,
            expire_timestamp: None,
            topic_id: None,
        };
        value.tags("tagged fields", |tag, field| {
            if tag == TOPIC_ID_TAG {
                // Kafka's way to say that there is none.
                decoded.topic_id = Some(field.uuid("topicId")?).filter(|id| !id.is_nil());
            }
            Ok(())
        })?;
        Ok(decoded)
    }
}
