//! Settings as they are in force: those read at start, and on top of them what brokers were told since (KIP-226).
//!
//! Under Kafka's names a value set on one broker wins over one set on all brokers, and that over the node file.

use std::collections::BTreeMap;

use crate::nearest::nearest;
use crate::node::NodeConfig;
use crate::section::{Rules, Setting as _};
use crate::topic::{TOPIC_KEYS, TopicConfig, TopicConfigFault, TopicKey};

/// Values by Kafka's names, as given.
pub type Values = BTreeMap<String, String>;

/// What one broker was told while it ran.
#[derive(Debug, Clone, Copy)]
pub struct Dynamic<'a> {
    /// Set on this broker.
    pub own: &'a Values,
    /// Set on all brokers.
    pub all: &'a Values,
}

impl Dynamic<'static> {
    /// Nothing was set.
    pub const NONE: Self = Self {
        own: &Values::new(),
        all: &Values::new(),
    };
}

/// The settings in force on one broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Those of the node.
    pub node: NodeConfig,
    /// Those of topics that have none of their own.
    pub topic_defaults: TopicConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(NodeConfig::default())
    }
}

impl Settings {
    /// The settings of a broker that was told nothing.
    pub fn of(node: NodeConfig) -> Self {
        Self {
            topic_defaults: TopicConfig::defaults(&node),
            node,
        }
    }

    /// These settings with what the broker was told on top. Values that are none, which a newer version may have
    /// left behind, change nothing.
    pub fn with(&self, dynamic: Dynamic<'_>) -> Self {
        let mut settings = self.clone();
        for (name, value) in dynamic.all.iter().chain(dynamic.own) {
            if let Some(key) = topic_default(name)
                && let Ok(value) = key.check(value)
            {
                key.apply(&mut settings.topic_defaults, &value);
            }
            // A name of both kinds has been judged by the rules of topics, which are the wider ones.
            let _ = settings.node.assign(&Rules::new(""), name, value);
        }
        settings
    }
}

/// Why a broker does not take a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerConfigFault {
    /// No such setting.
    #[error("unknown broker config {key}{}", .nearest.map(|name| format!(": did you mean {name}?")).unwrap_or_default())]
    Unknown {
        /// The name given.
        key: String,
        /// The known name that looks most like it.
        nearest: Option<&'static str>,
    },
    /// Read at start only.
    #[error("Cannot update these configs dynamically: [{key}]")]
    ReadOnly {
        /// The setting.
        key: String,
    },
    /// Not a value of this setting, or one that this version does not support.
    #[error("{0}")]
    Value(String),
}

/// Whether a broker takes `value` for `name` while it runs.
///
/// # Errors
/// [`BrokerConfigFault`], which names the setting.
pub fn check(name: &str, value: &str) -> Result<(), BrokerConfigFault> {
    if let Some(key) = topic_default(name) {
        return key
            .check(value)
            .map(drop)
            .map_err(|fault| BrokerConfigFault::Value(under_name(fault, name)));
    }
    match NodeConfig::default().assign(&Rules::new(""), name, value) {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => {
            let message = format!("invalid value {value:?} for {name}: {error}");
            Err(BrokerConfigFault::Value(message))
        }
        None => Err(not_dynamic(name)),
    }
}

fn not_dynamic(name: &str) -> BrokerConfigFault {
    let known = crate::broker_keys::names();
    let key = name.to_owned();
    if known.contains(name) {
        return BrokerConfigFault::ReadOnly { key };
    }
    BrokerConfigFault::Unknown {
        key,
        nearest: nearest(name, known),
    }
}

/// The setting of topics whose default at the broker has this name.
fn topic_default(name: &str) -> Option<&'static TopicKey> {
    TOPIC_KEYS.iter().find(|key| key.broker_key == Some(name))
}

/// The fault's text with the broker's name of the setting in place of the topic's.
fn under_name(fault: TopicConfigFault, name: &str) -> String {
    match fault {
        TopicConfigFault::Invalid { value, expected, .. } => {
            format!("invalid value {value:?} for {name}: expected {expected}")
        }
        TopicConfigFault::Unsupported { value, remedy, .. } => {
            format!("{name}={value} is not supported yet by this version: {remedy}")
        }
        unknown @ TopicConfigFault::Unknown { .. } => unknown.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ByteSize, Limit};

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn the_nearest_level_wins_in_node_settings_and_topic_defaults() {
        let mut node = NodeConfig::default();
        node.kafka.num_partitions = 2;
        node.storage.retention_size = Limit::At(ByteSize::mib(1));
        let base = Settings::of(node);
        let all = values(&[
            ("num.partitions", "3"),
            ("log.retention.bytes", "-1"),
            ("log.message.timestamp.type", "LogAppendTime"),
            ("log.cleaner.nonsense", "1"),
            ("max.connections", "many"),
        ]);
        let own = values(&[("num.partitions", "4"), ("max.connections", "7")]);
        let settings = base.with(Dynamic { own: &own, all: &all });
        assert_eq!(settings.node.kafka.num_partitions, 4);
        assert_eq!(settings.node.kafka.limits.max_connections, 7);
        assert_eq!(settings.node.storage.retention_size, Limit::Unlimited);
        assert_eq!(settings.topic_defaults.retention_bytes, -1);
        assert_eq!(
            settings.topic_defaults.message_timestamp_type,
            crate::topic::TimestampType::LogAppendTime
        );
        assert_eq!(base.with(Dynamic::NONE), base);
    }

    #[test]
    fn what_a_broker_does_not_take_is_named() {
        let told = |name, value| check(name, value).map_err(|fault| fault.to_string());
        assert_eq!(told("log.retention.ms", "1000"), Ok(()));
        assert_eq!(told("auto.create.topics.enable", "false"), Ok(()));
        assert_eq!(told("log.retention.check.interval.ms", "1"), Ok(()));
        let errors = [
            (
                "node.id",
                "2",
                "Cannot update these configs dynamically: [node.id]",
            ),
            (
                "listeners",
                "",
                "Cannot update these configs dynamically: [listeners]",
            ),
            (
                "num.partition",
                "2",
                "unknown broker config num.partition: did you mean num.partitions?",
            ),
            (
                "num.partitions",
                "0",
                "invalid value \"0\" for num.partitions: expected 1 to 10000",
            ),
            (
                "log.segment.bytes",
                "12",
                "invalid value \"12\" for log.segment.bytes: expected a whole number from 1048576 to 2147483647",
            ),
            (
                "log.retention.check.interval.ms",
                "5 s",
                "invalid value \"5 s\" for log.retention.check.interval.ms: expected a whole number of milliseconds",
            ),
            (
                "log.preallocate",
                "true",
                "log.preallocate=true is not supported yet by this version: use false",
            ),
        ];
        for (name, value, message) in errors {
            assert_eq!(told(name, value), Err(message.to_owned()));
        }
    }
}
