//! Classic groups: `GroupMetadataKey` and `GroupMetadataValue`.

use bytes::Bytes;
use takhin_protocol::messages::StrBytes;

use super::codec::{Reader, RecordError, Writer};

const VALUE_VERSION: i16 = 3;
const FIRST_FLEXIBLE: i16 = 4;

/// A classic group's generation, or the tombstone of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicRecord {
    /// Group id.
    pub group: StrBytes,
    /// The group; `None` is a tombstone.
    pub value: Option<GroupMetadata>,
}

/// A generation of a classic group with the assignment that its leader made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupMetadata {
    /// `consumer`, `connect` and the like; empty if no member has ever joined.
    pub protocol_type: StrBytes,
    /// Counts rebalances.
    pub generation: i32,
    /// Name of the chosen protocol; `None` without members.
    pub protocol: Option<StrBytes>,
    /// Member id of the leader; `None` without members.
    pub leader: Option<StrBytes>,
    /// Wall time in milliseconds since which the group is in its state; -1 if it was written before Kafka 2.1.
    pub current_state_timestamp: i64,
    /// Its members.
    pub members: Vec<MemberMetadata>,
}

/// A member of a classic group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberMetadata {
    /// Member id.
    pub member_id: StrBytes,
    /// Instance id of a static member (KIP-345).
    pub group_instance_id: Option<StrBytes>,
    /// The client's name of itself.
    pub client_id: StrBytes,
    /// Its address as Java prints it.
    pub client_host: StrBytes,
    /// In milliseconds. A record without it has the session timeout here.
    pub rebalance_timeout: i32,
    /// In milliseconds.
    pub session_timeout: i32,
    /// The member's metadata for the chosen protocol.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}

impl ClassicRecord {
    pub(super) const KEY_VERSION: i16 = 2;

    pub(super) fn encode(&self) -> Result<(Bytes, Option<Bytes>), RecordError> {
        let mut key = Writer::new(Self::KEY_VERSION);
        key.string("group", &self.group)?;
        let value = self.value.as_ref().map(GroupMetadata::encode).transpose()?;
        Ok((key.finish(), value))
    }

    /// `key` stands behind its version.
    pub(super) fn decode(key: &mut Reader<'_>, value: Option<&[u8]>) -> Result<Self, RecordError> {
        Ok(Self {
            group: key.string("group")?,
            value: value.map(GroupMetadata::decode).transpose()?,
        })
    }

    /// Upper bound of what the record takes in a batch, in bytes.
    pub(super) fn size(&self) -> usize {
        4 + self.group.len() + self.value.as_ref().map_or(0, GroupMetadata::size)
    }
}

impl GroupMetadata {
    fn size(&self) -> usize {
        let text = |text: &Option<StrBytes>| text.as_ref().map_or(0, |text| text.len());
        let members: usize = self
            .members
            .iter()
            .map(|member| {
                24 + member.member_id.len()
                    + text(&member.group_instance_id)
                    + member.client_id.len()
                    + member.client_host.len()
                    + member.subscription.len()
                    + member.assignment.len()
            })
            .sum();
        24 + self.protocol_type.len() + text(&self.protocol) + text(&self.leader) + members
    }

    fn encode(&self) -> Result<Bytes, RecordError> {
        let mut value = Writer::new(VALUE_VERSION);
        value.string("protocolType", &self.protocol_type)?;
        value.int32(self.generation);
        value.nullable_string("protocol", self.protocol.as_deref())?;
        value.nullable_string("leader", self.leader.as_deref())?;
        value.int64(self.current_state_timestamp);
        value.count("members", self.members.len())?;
        for member in &self.members {
            member.encode(&mut value)?;
        }
        Ok(value.finish())
    }

    fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut value = Reader::new(value);
        let version = value.int16("version")?;
        if !(0..=FIRST_FLEXIBLE).contains(&version) {
            return Err(RecordError::Version {
                schema: "GroupMetadataValue",
                version,
            });
        }
        value.set_flexible(version >= FIRST_FLEXIBLE);
        let mut decoded = Self {
            protocol_type: value.string("protocolType")?,
            generation: value.int32("generation")?,
            protocol: value.nullable_string("protocol")?,
            leader: value.nullable_string("leader")?,
            current_state_timestamp: if version >= 2 {
                value.int64("currentStateTimestamp")?
            } else {
                -1
            },
            members: Vec::new(),
        };
        for _ in 0..value.count("members")? {
            decoded.members.push(MemberMetadata::decode(&mut value, version)?);
        }
        value.tagged_fields()?;
        Ok(decoded)
    }
}

impl MemberMetadata {
    fn encode(&self, value: &mut Writer) -> Result<(), RecordError> {
        value.string("memberId", &self.member_id)?;
        value.nullable_string("groupInstanceId", self.group_instance_id.as_deref())?;
        value.string("clientId", &self.client_id)?;
        value.string("clientHost", &self.client_host)?;
        value.int32(self.rebalance_timeout);
        value.int32(self.session_timeout);
        value.byte_string("subscription", &self.subscription)?;
        value.byte_string("assignment", &self.assignment)
    }

    fn decode(value: &mut Reader<'_>, version: i16) -> Result<Self, RecordError> {
        let mut member = Self {
            member_id: value.string("memberId")?,
            ..Self::default()
        };
        if version >= 3 {
            member.group_instance_id = value.nullable_string("groupInstanceId")?;
        }
        member.client_id = value.string("clientId")?;
        member.client_host = value.string("clientHost")?;
        let rebalance_timeout = if version >= 1 {
            value.int32("rebalanceTimeout")?
        } else {
            -1
        };
        member.session_timeout = value.int32("sessionTimeout")?;
        member.rebalance_timeout = match rebalance_timeout {
            -1 => member.session_timeout,
            _ => rebalance_timeout,
        };
        member.subscription = value.byte_string("subscription")?;
        member.assignment = value.byte_string("assignment")?;
        value.tagged_fields()?;
        Ok(member)
    }
}
