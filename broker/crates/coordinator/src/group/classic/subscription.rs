//! Which topics the members of a consumer group read.

use super::Classic;
use crate::records::{Reader, RecordError};

impl Classic {
    /// Whether a member reads the topic. A live consumer group whose metadata cannot be read, or that has not chosen a
    /// protocol yet, counts as reading everything: its offsets must not be taken away.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        if !self.is_consumer() || self.is_empty() {
            return false;
        }
        if self.protocol.is_none() {
            return true;
        }
        // Who joined for the next generation may not have the protocol of this one: that cannot be read either.
        let protocol = self.protocol.as_ref();
        self.members
            .iter()
            .any(|(_, member)| subscribes(&member.metadata(protocol), topic).unwrap_or(true))
    }
}

/// Reads version 0 of the subscription, which every later version begins with. Source: `ConsumerProtocolSubscription`.
fn subscribes(metadata: &[u8], topic: &str) -> Result<bool, RecordError> {
    let mut metadata = Reader::new(metadata);
    metadata.int16("version")?;
    for _ in 0..metadata.count("topics")? {
        if metadata.string("topics")?.as_str() == topic {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_of_any_version_is_read_and_damage_is_noticed() {
        let newer = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(
            ["a", "bc", "b"].map(|topic| subscribes(newer, topic)),
            [Ok(true), Ok(true), Ok(false)]
        );
        assert!(subscribes(&newer[..12], "b").is_err());
        assert!(subscribes(b"", "b").is_err());
    }
}
