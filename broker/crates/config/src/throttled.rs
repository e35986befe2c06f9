//! Lists of replicas whose replication is throttled (KIP-73), in Kafka's notation.

use std::collections::BTreeSet;

/// `leader.replication.throttled.replicas` or `follower.replication.throttled.replicas` of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// None.
    #[default]
    None,
    /// All of them: `*`.
    All,
    /// These: partition and broker; not empty.
    Listed(BTreeSet<(i32, i32)>),
}

impl ThrottledReplicas {
    /// Reads `*`, or `partition:broker` with commas between them. Empty items count for nothing, as in Kafka's
    /// `ThrottledReplicaListValidator`; a number that no partition or broker can have is refused, too.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::All);
        }
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let listed = items.map(pair).collect::<Option<BTreeSet<_>>>()?;
        Some(if listed.is_empty() {
            Self::None
        } else {
            Self::Listed(listed)
        })
    }

    /// Whether the replica of `partition` on `broker` is one of them.
    pub fn names(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Listed(listed) => listed.contains(&(partition, broker)),
        }
    }
}

fn pair(item: &str) -> Option<(i32, i32)> {
    let (partition, broker) = item.split_once(':')?;
    Some((number(partition)?, number(broker)?))
}

fn number(digits: &str) -> Option<i32> {
    let is_plain = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_kafka_reads_them() {
        let listed = |text: &str| -> Vec<(i32, i32)> {
            match ThrottledReplicas::parse(text) {
                Some(ThrottledReplicas::Listed(pairs)) => pairs.into_iter().collect(),
                other => panic!("{text}: {other:?}"),
            }
        };
        assert_eq!(listed("0:101,0:102 , 1:0"), [(0, 101), (0, 102), (1, 0)]);
        assert_eq!(listed(",7:1,,7:1,"), [(7, 1)]);
        for nothing in ["", " ", ",", " , "] {
            assert_eq!(ThrottledReplicas::parse(nothing), Some(ThrottledReplicas::None));
        }
        assert_eq!(ThrottledReplicas::parse(" * "), Some(ThrottledReplicas::All));
        let wrong = [
            "100",
            "100:",
            ":0",
            "0:1:2",
            "0: 1",
            "0:-1",
            "0:+1",
            "*,0:1",
            "**",
            "a:b",
            "0:2147483648",
        ];
        for text in wrong {
            assert_eq!(ThrottledReplicas::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_replica_is_meant_by_partition_and_broker() {
        let list = ThrottledReplicas::parse("0:1,2:3").unwrap();
        assert!(list.names(0, 1) && list.names(2, 3));
        assert!(!list.names(0, 3) && !list.names(2, 1) && !list.names(1, 1));
        assert!(ThrottledReplicas::All.names(5, 5) && !ThrottledReplicas::None.names(0, 0));
    }
}
