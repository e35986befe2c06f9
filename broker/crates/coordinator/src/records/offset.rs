//! Committed offsets: `OffsetCommitKey` and `OffsetCommitValue`.

use bytes::Bytes;
use takhin_protocol::messages::StrBytes;

use super::codec::{Reader, RecordError, Writer};

/// Version of the key that is written; version 0 reads the same.
const KEY_VERSION: i16 = 1;
/// Version of a value that never expires by itself.
const VALUE_VERSION: i16 = 3;
/// The only version with an expire timestamp, and it has no leader epoch.
const VALUE_VERSION_WITH_EXPIRY: i16 = 1;
const FIRST_FLEXIBLE: i16 = 4;

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
        let value = self.value.as_ref().map_or(0, |value| 32 + value.metadata.len());
        10 + self.group.len() + self.topic.len() + value
    }
}

impl CommittedOffset {
    fn encode(&self) -> Result<Bytes, RecordError> {
        let version = match self.expire_timestamp {
            Some(_) => VALUE_VERSION_WITH_EXPIRY,
            None => VALUE_VERSION,
        };
        let mut value = Writer::new(version);
        value.int64(self.offset);
        if version == VALUE_VERSION {
            value.int32(self.leader_epoch);
        }
        value.string("metadata", &self.metadata)?;
        value.int64(self.commit_timestamp);
        if let Some(expire_timestamp) = self.expire_timestamp {
            value.int64(expire_timestamp);
        }
        Ok(value.finish())
    }

    fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut value = Reader::new(value);
        let version = value.int16("version")?;
        if !(0..=FIRST_FLEXIBLE).contains(&version) {
            return Err(RecordError::Version {
                schema: "OffsetCommitValue",
                version,
            });
        }
        value.set_flexible(version >= FIRST_FLEXIBLE);
        let decoded = Self {
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
        };
        value.tagged_fields()?;
        Ok(decoded)
    }
}
