//! Records of consumer groups (KIP-848), types 3 to 8 and 16.
//!
//! Source: Kafka 4.1, `ConsumerGroup*Key.json` and `ConsumerGroup*Value.json` of its group coordinator. Keys are not
//! flexible and begin with the type; values are flexible and begin with their version, 0.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use uuid::Uuid;

use super::codec::RecordError;
use super::flexible::{BadField, Reader, Writer};

/// Partitions by topic. No set in it is empty.
pub type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// A record of a consumer group. A value of `None` is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of keys are Kafka's and say it all")]
pub enum ConsumerRecord {
    /// The group's epoch, type 3. Its tombstone ends the group.
    Group {
        group_id: String,
        value: Option<GroupEpoch>,
    },
    /// What 4.0 remembered of the group's topics, type 4. Since 4.1 the hash in [`GroupEpoch`] stands in its place.
    PartitionMetadata {
        group_id: String,
        value: Option<Vec<TopicMetadata>>,
    },
    /// What a member said of itself, type 5.
    Member {
        group_id: String,
        member_id: String,
        value: Option<ConsumerMember>,
    },
    /// The group epoch that the target assignment was made for, type 6.
    TargetEpoch { group_id: String, value: Option<i32> },
    /// What a member is to own, type 7.
    Target {
        group_id: String,
        member_id: String,
        value: Option<Partitions>,
    },
    /// What a member owns, type 8.
    Current {
        group_id: String,
        member_id: String,
        value: Option<CurrentAssignment>,
    },
    /// The topics whose names match a regular expression, type 16.
    Regex {
        group_id: String,
        regex: String,
        value: Option<ResolvedRegex>,
    },
}

/// `ConsumerGroupMetadataValue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupEpoch {
    /// The group epoch.
    pub epoch: i32,
    /// Hash of the topics that the group is subscribed to; 0 if there are none.
    pub metadata_hash: i64,
}

/// One topic of `ConsumerGroupPartitionMetadataValue`, without its racks, which nothing has used since 4.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// The topic's id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Number of its partitions.
    pub partitions: i32,
}

/// `ConsumerGroupMemberMetadataValue`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerMember {
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Address of the client as Java prints it.
    pub client_host: String,
    /// Topics by name.
    pub topics: BTreeSet<String>,
    /// A regular expression for more topics; empty is none.
    pub regex: Option<String>,
    /// Milliseconds the member has for giving up partitions; -1 is unknown.
    pub rebalance_timeout_ms: i32,
    /// The assignor the member asks for.
    pub assignor: Option<String>,
    /// Set if the member speaks the classic protocol.
    pub classic: Option<ClassicMetadata>,
}

/// `ClassicMemberMetadata`: what a member of the classic protocol joined with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassicMetadata {
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// Name and metadata of the protocols it supports, in its order.
    pub protocols: Vec<(String, Vec<u8>)>,
}

/// `ConsumerGroupCurrentMemberAssignmentValue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentAssignment {
    /// The epoch that the member's next heartbeat is to carry; -2 while a static member is away.
    pub epoch: i32,
    /// The epoch before, which the member still carries if our reply was lost.
    pub previous_epoch: i32,
    /// Where the member is in its reconciliation.
    pub state: MemberState,
    /// Partitions that are the member's.
    pub assigned: Partitions,
    /// Partitions that it must give up first.
    pub revoking: Partitions,
}

/// Where a member is in its reconciliation with the target assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberState {
    /// It has what the target of its epoch gives it.
    #[default]
    Stable,
    /// It must give up partitions before its epoch rises.
    UnrevokedPartitions,
    /// It waits for partitions that others have not given up.
    UnreleasedPartitions,
    /// A state of a later version.
    Unknown,
}

/// `ConsumerGroupRegularExpressionValue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRegex {
    /// Names that match.
    pub topics: BTreeSet<String>,
    /// Version of the topics that it was resolved against.
    pub version: i64,
    /// Milliseconds since 1970 at which it was resolved.
    pub timestamp: i64,
}

impl MemberState {
    fn code(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }

    fn from_code(code: i8) -> Self {
        match code {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }
}

impl ConsumerRecord {
    /// The group that the record belongs to.
    pub fn group_id(&self) -> &str {
        match self {
            Self::Group { group_id, .. }
            | Self::PartitionMetadata { group_id, .. }
            | Self::Member { group_id, .. }
            | Self::TargetEpoch { group_id, .. }
            | Self::Target { group_id, .. }
            | Self::Current { group_id, .. }
            | Self::Regex { group_id, .. } => group_id,
        }
    }

    /// Whether the record has no value.
    pub(crate) fn is_tombstone(&self) -> bool {
        match self {
            Self::Group { value, .. } => value.is_none(),
            Self::PartitionMetadata { value, .. } => value.is_none(),
            Self::Member { value, .. } => value.is_none(),
            Self::TargetEpoch { value, .. } => value.is_none(),
            Self::Target { value, .. } => value.is_none(),
            Self::Current { value, .. } => value.is_none(),
            Self::Regex { value, .. } => value.is_none(),
        }
    }

    /// Key and value as Kafka writes them.
    pub(super) fn encode(&self) -> Result<(Bytes, Option<Bytes>), RecordError> {
        let (kind, member) = match self {
            Self::Group { .. } => (3, None),
            Self::PartitionMetadata { .. } => (4, None),
            Self::Member { member_id, .. } => (5, Some(member_id)),
            Self::TargetEpoch { .. } => (6, None),
            Self::Target { member_id, .. } => (7, Some(member_id)),
            Self::Current { member_id, .. } => (8, Some(member_id)),
            Self::Regex { regex, .. } => (16, Some(regex)),
        };
        let mut key = Writer::default();
        key.i16(kind);
        key.key_string("GroupId", self.group_id())?;
        if let Some(member) = member {
            key.key_string(second_field(kind), member)?;
        }
        Ok((key.out.into(), self.encode_value().map(Bytes::from)))
    }

    /// Upper bound of key and value, in bytes.
    pub(super) fn size(&self) -> usize {
        let value = match self {
            Self::Group { .. } | Self::TargetEpoch { .. } => 0,
            Self::PartitionMetadata { value, .. } => {
                let topics = value.iter().flatten();
                topics.map(|topic| 40 + topic.name.len()).sum()
            }
            Self::Member { member_id, value, .. } => {
                member_id.len() + value.as_ref().map_or(0, ConsumerMember::size)
            }
            Self::Target { member_id, value, .. } => {
                member_id.len() + value.as_ref().map_or(0, size_of_partitions)
            }
            Self::Current { member_id, value, .. } => {
                let size = |value: &CurrentAssignment| {
                    size_of_partitions(&value.assigned) + size_of_partitions(&value.revoking)
                };
                member_id.len() + value.as_ref().map_or(0, size)
            }
            Self::Regex { regex, value, .. } => {
                let topics = value.iter().flat_map(|value| &value.topics);
                regex.len() + topics.map(|topic| 5 + topic.len()).sum::<usize>()
            }
        };
        // What has a fixed size, and the lengths before the rest.
        64 + self.group_id().len() + value
    }

    fn encode_value(&self) -> Option<Vec<u8>> {
        let mut out = Writer::default();
        out.i16(0);
        match self {
            Self::Group { value, .. } => {
                let value = value.as_ref()?;
                out.i32(value.epoch);
                if value.metadata_hash == 0 {
                    out.tags(&[]);
                } else {
                    out.tags(&[(0, value.metadata_hash.to_be_bytes().to_vec())]);
                }
            }
            Self::PartitionMetadata { value, .. } => {
                out.elements(value.as_ref()?.iter(), |out, topic| {
                    out.uuid(topic.id);
                    out.string(&topic.name);
                    out.i32(topic.partitions);
                    out.elements([(); 0].iter(), |_, ()| {});
                    out.tags(&[]);
                });
                out.tags(&[]);
            }
            Self::Member { value, .. } => put_member(&mut out, value.as_ref()?),
            Self::TargetEpoch { value, .. } => {
                out.i32((*value)?);
                out.tags(&[]);
            }
            Self::Target { value, .. } => {
                put_partitions(&mut out, value.as_ref()?);
                out.tags(&[]);
            }
            Self::Current { value, .. } => {
                let value = value.as_ref()?;
                out.i32(value.epoch);
                out.i32(value.previous_epoch);
                out.i8(value.state.code());
                put_partitions(&mut out, &value.assigned);
                put_partitions(&mut out, &value.revoking);
                out.tags(&[]);
            }
            Self::Regex { value, .. } => {
                let value = value.as_ref()?;
                out.elements(value.topics.iter(), |out, topic| out.string(topic));
                out.i64(value.version);
                out.i64(value.timestamp);
                out.tags(&[]);
            }
        }
        Some(out.out)
    }

    /// Types of keys that are of consumer groups.
    pub(super) fn is_kind(kind: i16) -> bool {
        matches!(kind, 3..=8 | 16)
    }

    /// Decodes a record whose key is of type `kind`; `key` is what follows the type.
    ///
    /// # Errors
    ///
    /// Names the field that is malformed; a value of an unknown version, or a kind that is not of a consumer group.
    pub(super) fn decode(kind: i16, key: &[u8], value: Option<&[u8]>) -> Result<Self, BadField> {
        let mut key = Reader::new(key);
        let group_id = key.key_string("GroupId")?;
        let mut member = || {
            key.key_string(if kind == 16 {
                "RegularExpression"
            } else {
                "MemberId"
            })
        };
        let value = value.map(Reader::new).map(versioned).transpose()?;
        Ok(match kind {
            3 => Self::Group {
                group_id,
                value: value.map(take_group).transpose()?,
            },
            4 => Self::PartitionMetadata {
                group_id,
                value: value.map(take_topics).transpose()?,
            },
            5 => Self::Member {
                group_id,
                member_id: member()?,
                value: value.map(take_member).transpose()?,
            },
            6 => Self::TargetEpoch {
                group_id,
                value: value.map(|mut value| value.i32("AssignmentEpoch")).transpose()?,
            },
            7 => Self::Target {
                group_id,
                member_id: member()?,
                value: value
                    .map(|mut value| take_partitions(&mut value, "TopicPartitions"))
                    .transpose()?,
            },
            8 => Self::Current {
                group_id,
                member_id: member()?,
                value: value.map(take_current).transpose()?,
            },
            16 => Self::Regex {
                group_id,
                regex: member()?,
                value: value.map(take_regex).transpose()?,
            },
            _ => return Err(BadField("key type")),
        })
    }
}

/// The field of a key that follows the group.
fn second_field(kind: i16) -> &'static str {
    if kind == 16 {
        "RegularExpression"
    } else {
        "MemberId"
    }
}

fn size_of_partitions(partitions: &Partitions) -> usize {
    let topics = partitions.values();
    topics.map(|partitions| 24 + 4 * partitions.len()).sum()
}

impl ConsumerMember {
    /// Upper bound of the encoded value, in bytes.
    pub(crate) fn size(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let topics: usize = self.topics.iter().map(|topic| 5 + topic.len()).sum();
        let protocols = self.classic.iter().flat_map(|classic| &classic.protocols);
        let protocols: usize = protocols
            .map(|(name, metadata)| 12 + name.len() + metadata.len())
            .sum();
        64 + text(&self.instance_id)
            + text(&self.rack_id)
            + text(&self.regex)
            + text(&self.assignor)
            + self.client_id.len()
            + self.client_host.len()
            + topics
            + protocols
    }
}

fn versioned(mut value: Reader<'_>) -> Result<Reader<'_>, BadField> {
    match value.i16("version")? {
        0 => Ok(value),
        _ => Err(BadField("version")),
    }
}

fn take_group(mut value: Reader<'_>) -> Result<GroupEpoch, BadField> {
    let epoch = value.i32("Epoch")?;
    let mut metadata_hash = 0;
    value.tags("Epoch", |tag, value| {
        if tag == 0 {
            metadata_hash = value.i64("MetadataHash")?;
        }
        Ok(())
    })?;
    Ok(GroupEpoch { epoch, metadata_hash })
}

fn take_topics(mut value: Reader<'_>) -> Result<Vec<TopicMetadata>, BadField> {
    value.elements("Topics", |value| {
        let topic = TopicMetadata {
            id: value.uuid("TopicId")?,
            name: value.string("TopicName")?,
            partitions: value.i32("NumPartitions")?,
        };
        value.elements("PartitionMetadata", |value| {
            value.i32("Partition")?;
            value.elements("Racks", |value| value.string("Racks"))?;
            value.no_tags("PartitionMetadata")
        })?;
        value.no_tags("Topics")?;
        Ok(topic)
    })
}

fn put_member(out: &mut Writer, value: &ConsumerMember) {
    out.nullable_string(value.instance_id.as_deref());
    out.nullable_string(value.rack_id.as_deref());
    out.string(&value.client_id);
    out.string(&value.client_host);
    out.elements(value.topics.iter(), |out, topic| out.string(topic));
    out.nullable_string(value.regex.as_deref());
    out.i32(value.rebalance_timeout_ms);
    out.nullable_string(value.assignor.as_deref());
    let Some(classic) = &value.classic else {
        return out.tags(&[]);
    };
    let mut tag = Writer::default();
    // A nullable struct begins with 1 when it is there.
    tag.i8(1);
    tag.i32(classic.session_timeout_ms);
    tag.elements(classic.protocols.iter(), |out, (name, metadata)| {
        out.string(name);
        out.bytes(metadata);
        out.tags(&[]);
    });
    tag.tags(&[]);
    out.tags(&[(0, tag.out)]);
}

fn take_member(mut value: Reader<'_>) -> Result<ConsumerMember, BadField> {
    let mut member = ConsumerMember {
        instance_id: value.nullable_string("InstanceId")?,
        rack_id: value.nullable_string("RackId")?,
        client_id: value.string("ClientId")?,
        client_host: value.string("ClientHost")?,
        topics: value
            .elements("SubscribedTopicNames", |value| {
                value.string("SubscribedTopicNames")
            })?
            .into_iter()
            .collect(),
        regex: value.nullable_string("SubscribedTopicRegex")?,
        rebalance_timeout_ms: value.i32("RebalanceTimeoutMs")?,
        assignor: value.nullable_string("ServerAssignor")?,
        classic: None,
    };
    value.tags("ServerAssignor", |tag, value| {
        if tag == 0 && value.i8("ClassicMemberMetadata")? >= 0 {
            member.classic = Some(ClassicMetadata {
                session_timeout_ms: value.i32("SessionTimeoutMs")?,
                protocols: value.elements("SupportedProtocols", |value| {
                    let protocol = (value.string("Name")?, value.bytes("Metadata")?);
                    value.no_tags("SupportedProtocols")?;
                    Ok(protocol)
                })?,
            });
        }
        Ok(())
    })?;
    Ok(member)
}

fn put_partitions(out: &mut Writer, partitions: &Partitions) {
    out.elements(partitions.iter(), |out, (topic, partitions)| {
        out.uuid(*topic);
        out.elements(partitions.iter(), |out, partition| out.i32(*partition));
        out.tags(&[]);
    });
}

fn take_partitions(value: &mut Reader<'_>, field: &'static str) -> Result<Partitions, BadField> {
    let topics = value.elements(field, |value| {
        let topic = value.uuid("TopicId")?;
        let partitions = value.elements("Partitions", |value| value.i32("Partitions"))?;
        value.no_tags(field)?;
        Ok((topic, partitions))
    })?;
    let mut all = Partitions::new();
    for (topic, partitions) in topics {
        if !partitions.is_empty() {
            all.entry(topic).or_default().extend(partitions);
        }
    }
    Ok(all)
}

fn take_current(mut value: Reader<'_>) -> Result<CurrentAssignment, BadField> {
    Ok(CurrentAssignment {
        epoch: value.i32("MemberEpoch")?,
        previous_epoch: value.i32("PreviousMemberEpoch")?,
        state: MemberState::from_code(value.i8("State")?),
        assigned: take_partitions(&mut value, "AssignedPartitions")?,
        revoking: take_partitions(&mut value, "PartitionsPendingRevocation")?,
    })
}

fn take_regex(mut value: Reader<'_>) -> Result<ResolvedRegex, BadField> {
    Ok(ResolvedRegex {
        topics: value
            .elements("Topics", |value| value.string("Topics"))?
            .into_iter()
            .collect(),
        version: value.i64("Version")?,
        timestamp: value.i64("Timestamp")?,
    })
}

#[cfg(test)]
mod tests;
