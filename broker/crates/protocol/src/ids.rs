//! Ids that must not be confused with one another, and the rules for topic names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

macro_rules! number_ids {
    ($( $(#[$doc:meta])* $name:ident($int:ty) )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )* };
}

number_ids! {
    /// A broker's node id.
    BrokerId(i32)
    /// Index of a partition within its topic, from 0.
    PartitionIndex(i32)
    /// Counts the leaderships of a partition; fences old leaders (KIP-101).
    LeaderEpoch(i32)
    /// Identifies a producer (KIP-98).
    ProducerId(i64)
}

/// A topic's id, which outlives its name (KIP-516).
///
/// Written as Kafka writes it: 22 characters of base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// "No topic id"; never the id of a topic.
    pub const ZERO: Self = Self(Uuid::nil());

    /// Kafka's own metadata topic; never the id of a topic of ours.
    pub const METADATA: Self = Self(Uuid::from_u128(1));

    /// Returns a version 4 id from 16 random bytes, or `None` if they give an id that Kafka never hands out.
    ///
    /// Kafka draws again for reserved ids and for those that begin with a dash, which command lines take for
    /// a flag.
    pub fn from_random(bytes: [u8; 16]) -> Option<Self> {
        let id = Self(uuid::Builder::from_random_bytes(bytes).into_uuid());
        (!id.is_reserved() && !id.to_string().starts_with('-')).then_some(id)
    }

    /// Returns whether no topic can have this id: the first 100 ids are reserved.
    pub fn is_reserved(self) -> bool {
        self.0.as_u128() < 100
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits are 21 groups of six and a last one of two, filled up with four zero bits.
        for group in 0..22u32 {
            let value = self.0.as_u128();
            let six = if group < 21 {
                value >> (122 - 6 * group)
            } else {
                value << 4
            };
            let digit = BASE64[usize::try_from(six & 63).map_err(|_| fmt::Error)?];
            fmt::Write::write_char(f, char::from(digit))?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// The text is not a topic id in Kafka's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a topic id is 22 characters of base64url")]
pub struct InvalidTopicId;

impl FromStr for TopicId {
    type Err = InvalidTopicId;

    fn from_str(s: &str) -> Result<Self, InvalidTopicId> {
        let (&last, digits) = s.as_bytes().split_last().ok_or(InvalidTopicId)?;
        if digits.len() != 21 {
            return Err(InvalidTopicId);
        }
        let value_of = |digit: u8| {
            let position = BASE64.iter().position(|b| *b == digit).ok_or(InvalidTopicId)?;
            u128::try_from(position).map_err(|_| InvalidTopicId)
        };
        let mut value = 0u128;
        for &digit in digits {
            value = value << 6 | value_of(digit)?;
        }
        let tail = value_of(last)?;
        if tail & 15 != 0 {
            return Err(InvalidTopicId);
        }
        Ok(Self(Uuid::from_u128(value << 2 | tail >> 4)))
    }
}

/// A partition of a topic that has an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

/// A legal topic name: 1 to 249 of `[a-zA-Z0-9._-]`, neither `.` nor `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

/// Why a text is no topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// The name is empty.
    #[error("topic name is empty")]
    Empty,
    /// The name is longer than [`TopicName::MAX_LEN`].
    #[error("topic name has {len} characters, more than the 249 allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The name is `.` or `..`.
    #[error("topic name cannot be \".\" or \"..\"")]
    Dots,
    /// A character is not allowed.
    #[error("topic name contains {character:?}; allowed are ASCII letters, digits, '.', '_' and '-'")]
    Character {
        /// The first such character.
        character: char,
    },
}

impl TopicName {
    /// Greatest length of a name, inclusive. `<name>-<partition>` must fit in a directory name.
    pub const MAX_LEN: usize = 249;

    /// Checks `name` by the rules of `org.apache.kafka.common.internals.Topic`.
    ///
    /// # Errors
    ///
    /// Says which rule `name` breaks; to a client that is INVALID_TOPIC_EXCEPTION.
    pub fn parse(name: &str) -> Result<Self, InvalidTopicName> {
        if name.is_empty() {
            return Err(InvalidTopicName::Empty);
        }
        if name == "." || name == ".." {
            return Err(InvalidTopicName::Dots);
        }
        if name.len() > Self::MAX_LEN {
            return Err(InvalidTopicName::TooLong { len: name.len() });
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(character) = name.chars().find(|c| !legal(*c)) {
            return Err(InvalidTopicName::Character { character });
        }
        Ok(Self(Arc::from(name)))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name with `.` as `_`: two topics whose keys are equal cannot both exist, because Kafka's metric
    /// names could not tell them apart.
    pub fn collision_key(&self) -> String {
        self.0.replace('.', "_")
    }

    /// Returns the name as the message codec wants it.
    pub fn to_message(&self) -> kafka_protocol::messages::TopicName {
        StrBytes::from_string(self.0.to_string()).into()
    }
}

impl FromStr for TopicName {
    type Err = InvalidTopicName;

    fn from_str(s: &str) -> Result<Self, InvalidTopicName> {
        Self::parse(s)
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rules() {
        for name in ["a", "a.b_c-9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(TopicName::parse(name).unwrap().as_str(), name);
        }
        assert_eq!(TopicName::parse(""), Err(InvalidTopicName::Empty));
        for dots in [".", ".."] {
            assert_eq!(TopicName::parse(dots), Err(InvalidTopicName::Dots));
        }
        assert_eq!(
            TopicName::parse(&"x".repeat(250)),
            Err(InvalidTopicName::TooLong { len: 250 })
        );
        for (name, character) in [("a/b", '/'), ("a\0", '\0'), ("é", 'é'), ("a b", ' ')] {
            assert_eq!(
                TopicName::parse(name),
                Err(InvalidTopicName::Character { character })
            );
        }
        let keys = ["a.b_c", "a_b.c"].map(|n| TopicName::parse(n).unwrap().collision_key());
        assert_eq!(keys[0], keys[1]);
    }

    #[test]
    fn topic_ids_are_written_as_kafka_writes_them() {
        // From Kafka's UuidTest: toString is base64url of the 16 bytes.
        let id = TopicId(Uuid::from_u128(0x1234_5678_9abc_def0_0fed_cba9_8765_4321));
        assert_eq!(id.to_string(), "EjRWeJq83vAP7cuph2VDIQ");
        assert_eq!("EjRWeJq83vAP7cuph2VDIQ".parse(), Ok(id));
        assert_eq!(TopicId::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(TopicId::METADATA.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        for bad in [
            "",
            "A",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAA=",
            "ÄÄÄÄÄÄÄÄÄÄÄ",
        ] {
            assert_eq!(bad.parse::<TopicId>(), Err(InvalidTopicId), "{bad}");
        }
    }

    #[test]
    fn random_ids_never_begin_with_a_dash() {
        assert_eq!(TopicId::from_random([0xf8; 16]), None);
        let id = TopicId::from_random([7; 16]).unwrap();
        assert_eq!(id.0.get_version_num(), 4);
        assert!(!id.is_reserved() && TopicId::METADATA.is_reserved());
    }
}
