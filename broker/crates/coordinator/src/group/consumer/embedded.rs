//! The protocol that classic consumers speak with each other inside JoinGroup and SyncGroup, which the coordinator must
//! speak when such members are in a consumer group.
//!
//! Source: `ConsumerProtocolSubscription.json` and `ConsumerProtocolAssignment.json`, versions 0 to 3. A later version
//! begins with the fields of version 3, and is answered in it.

use std::collections::BTreeSet;

use bytes::Bytes;
use takhin_protocol::messages::StrBytes;
use uuid::Uuid;

use super::{collect, slots};
use crate::records::{Partitions, Reader, RecordError, Writer};
use crate::topics::Topics;

/// Protocol type of consumers.
pub(super) const PROTOCOL_TYPE: &str = "consumer";

const LATEST: i16 = 3;

/// Partitions by topic name.
type Named = Vec<(StrBytes, Vec<i32>)>;

/// What a member tells the leader.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) version: i16,
    pub(super) topics: BTreeSet<String>,
    /// What it has. Members that give up everything before they join, and those below version 1, say nothing here.
    pub(super) owned: Named,
    pub(super) rack_id: Option<String>,
}

impl Subscription {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut bytes = Reader::new(bytes);
        let version = bytes.int16("version")?;
        if version < 0 {
            return Err(RecordError::Version {
                schema: "ConsumerProtocolSubscription",
                version,
            });
        }
        let mut subscription = Self {
            version: version.min(LATEST),
            topics: BTreeSet::new(),
            owned: Vec::new(),
            rack_id: None,
        };
        for _ in 0..bytes.count("topics")? {
            subscription.topics.insert(bytes.string("topics")?.to_string());
        }
        bytes.nullable_byte_string("userData")?;
        if version >= 1 {
            subscription.owned = named(&mut bytes, "ownedPartitions")?;
        }
        if version >= 2 {
            bytes.int32("generationId")?;
        }
        if version >= 3 {
            subscription.rack_id = bytes.nullable_string("rackId")?.map(|rack| rack.to_string());
        }
        Ok(subscription)
    }
}

fn named(bytes: &mut Reader<'_>, field: &'static str) -> Result<Named, RecordError> {
    let mut all = Vec::new();
    for _ in 0..bytes.count(field)? {
        let topic = bytes.string("topic")?;
        let mut partitions = Vec::new();
        for _ in 0..bytes.count("partitions")? {
            partitions.push(bytes.int32("partitions")?);
        }
        all.push((topic, partitions));
    }
    Ok(all)
}

/// What the leader assigned to a member; an empty one is nothing.
pub(super) fn decode_assignment(bytes: &[u8]) -> Result<Named, RecordError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = Reader::new(bytes);
    bytes.int16("version")?;
    named(&mut bytes, "assignedPartitions")
}

/// An assignment in the version of the member's subscription. Topics that are no more are left out.
pub(super) fn encode_assignment(
    version: i16,
    partitions: &Partitions,
    topics: &dyn Topics,
) -> Result<Bytes, RecordError> {
    let named: Vec<(&str, Vec<i32>)> = partitions
        .iter()
        .filter_map(|(id, partitions)| Some((topics.name_of(*id)?, partitions.iter().copied().collect())))
        .collect();
    let mut out = Writer::new(version);
    out.count("assignedPartitions", named.len())?;
    for (topic, partitions) in named {
        out.string("topic", topic)?;
        out.count("partitions", partitions.len())?;
        for partition in partitions {
            out.int32(partition);
        }
    }
    // No user data: null.
    out.int32(-1);
    Ok(out.finish())
}

/// The same partitions by id; topics that are no more are left out.
pub(super) fn by_id(named: &Named, topics: &dyn Topics) -> Partitions {
    let ids = named.iter().filter_map(|(name, partitions)| {
        let id: Uuid = topics.by_name(name)?.id;
        Some(partitions.iter().map(move |partition| (id, *partition)))
    });
    let partitions = collect(ids.flatten());
    debug_assert!(slots(&partitions).all(|(id, _)| topics.name_of(id).is_some()));
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_read_in_all_versions() {
        let v3 =
            b"\0\x03\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x07\0\0\0\x02\0\x01r";
        let read = Subscription::decode(v3).unwrap();
        assert_eq!(read.version, 3);
        assert_eq!(read.topics, BTreeSet::from(["t".to_owned()]));
        assert_eq!(read.owned, [(StrBytes::from_static_str("t"), vec![7])]);
        assert_eq!(read.rack_id.as_deref(), Some("r"));

        let v0 = Subscription::decode(b"\0\0\0\0\0\x01\0\x01t\0\0\0\x01x").unwrap();
        assert_eq!((v0.version, v0.owned.len(), v0.rack_id), (0, 0, None));
        let later = [b"\0\x09", &v3[2..], b"more"].concat();
        assert_eq!(Subscription::decode(&later).unwrap().version, 3);
        for cut in 0..v3.len() {
            assert!(Subscription::decode(&v3[..cut]).is_err(), "{cut}");
        }
        assert!(Subscription::decode(b"\xff\xff\0\0\0\0\0\0\0\0").is_err());
    }

    #[test]
    fn no_assignment_is_nothing() {
        assert_eq!(decode_assignment(b""), Ok(Vec::new()));
        assert!(decode_assignment(b"\0\0\0").is_err());
    }
}
