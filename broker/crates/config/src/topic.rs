//! The settings of a topic, under Kafka's names: what they are, what they may be, what this version does with them.

use std::collections::BTreeMap;
use std::fmt;

use crate::kind::{ConfigEntry, ConfigKind, ConfigSource, ConfigSynonym};
use crate::live::Dynamic;
use crate::nearest::nearest;
use crate::node::{Durability, NodeConfig};

pub use crate::throttled::ThrottledReplicas;
pub use crate::topic_keys::{Effect, TOPIC_KEYS, TopicKey};

/// Which timestamp a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, set when the batch is appended.
    LogAppendTime,
}

/// Codec of stored batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    /// The producer's.
    Producer,
    /// None.
    Uncompressed,
    /// gzip
    Gzip,
    /// snappy
    Snappy,
    /// lz4
    Lz4,
    /// zstd
    Zstd,
}

/// What happens to old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Whole segments are deleted by age and size.
    pub delete: bool,
    /// Only the last record of each key is kept.
    pub compact: bool,
}

/// The effective settings of one topic: those that this version acts on, typed and within their bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`
    pub cleanup_policy: CleanupPolicy,
    /// `compression.type`
    pub compression_type: CompressionType,
    /// `compression.gzip.level`; -1 is the codec's own default.
    pub compression_gzip_level: i32,
    /// `compression.zstd.level`
    pub compression_zstd_level: i32,
    /// `delete.retention.ms`: how long a tombstone stays after the compaction that made it removable.
    pub delete_retention_ms: i64,
    /// `takhin.durability`
    pub durability: Durability,
    /// `follower.replication.throttled.replicas`
    pub follower_throttled: ThrottledReplicas,
    /// `index.interval.bytes`: bytes of log between two entries of the offset index.
    pub index_interval_bytes: u32,
    /// `leader.replication.throttled.replicas`
    pub leader_throttled: ThrottledReplicas,
    /// `max.message.bytes`: largest batch as received, inclusive.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far before the broker's time a timestamp may lie.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far after the broker's time a timestamp may lie.
    pub message_timestamp_after_max_ms: i64,
    /// `max.compaction.lag.ms`: age at which a record makes compaction due.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`: share of uncompacted bytes above which compaction begins, 0.0 to 1.0.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: age below which a record is not compacted.
    pub min_compaction_lag_ms: i64,
    /// `min.insync.replicas`: in-sync replicas without which `acks=all` is refused; at least 1.
    pub min_insync_replicas: u16,
    /// `retention.bytes`; -1 for no limit.
    pub retention_bytes: i64,
    /// `retention.ms`; -1 for no limit.
    pub retention_ms: i64,
    /// `segment.bytes`: size at which a segment is closed; at most `i32::MAX`.
    pub segment_bytes: u32,
    /// `segment.index.bytes`: size at which an index is full and its segment closed.
    pub segment_index_bytes: u32,
    /// `segment.ms`: age at which a segment is closed.
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`: whether replicas that may lack acknowledged records do without those that are missing.
    pub unclean_leader_election: bool,
}

/// One thing wrong with the settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicConfigFault {
    /// No such setting.
    #[error("unknown topic config {key}{hint}", hint = did_you_mean(.nearest.as_deref()))]
    Unknown {
        /// The name given.
        key: String,
        /// The known name that looks most like it.
        nearest: Option<String>,
    },
    /// Not a value of this setting.
    #[error("invalid value {value:?} for {key}: expected {expected}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// The value given.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A value that Kafka knows and this version cannot honour.
    #[error("{key}={value} is not supported yet by this version: {remedy}")]
    Unsupported {
        /// The setting.
        key: &'static str,
        /// The value given.
        value: String,
        /// What to do instead.
        remedy: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!(": did you mean {name}?"))
        .unwrap_or_default()
}

/// Everything wrong with the settings of a topic; never empty. Kafka's INVALID_CONFIG.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TopicConfigError {
    /// The faults, in order of the names.
    pub faults: Vec<TopicConfigFault>,
}

impl fmt::Display for TopicConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            cleanup_policy: CleanupPolicy {
                delete: true,
                compact: false,
            },
            compression_type: CompressionType::Producer,
            compression_gzip_level: -1,
            compression_zstd_level: 3,
            delete_retention_ms: 86_400_000,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            durability: Durability::Flushed,
            follower_throttled: ThrottledReplicas::None,
            index_interval_bytes: 4096,
            leader_throttled: ThrottledReplicas::None,
            max_message_bytes: 1_048_588,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 3_600_000,
            min_insync_replicas: 1,
            retention_bytes: -1,
            retention_ms: 604_800_000,
            segment_bytes: 1 << 30,
            segment_index_bytes: 10 << 20,
            segment_ms: 604_800_000,
            unclean_leader_election: false,
        }
    }
}

impl TopicConfig {
    /// The settings of a topic without any of its own on a broker configured like this.
    pub fn defaults(node: &NodeConfig) -> Self {
        let mut config = Self::default();
        for (key, value) in broker_values(node) {
            if let Ok(value) = key.check(&value) {
                key.apply(&mut config, &value);
            }
        }
        config
    }

    /// These settings with a topic's own on top.
    ///
    /// # Errors
    /// All faults: unknown names, values that are none, values that this version does not support.
    pub fn with_overrides(&self, overrides: &BTreeMap<String, String>) -> Result<Self, TopicConfigError> {
        let mut config = self.clone();
        let mut faults = Vec::new();
        for (name, value) in overrides {
            match TopicKey::find(name).and_then(|key| Ok((key, key.check(value)?))) {
                Ok((key, value)) => key.apply(&mut config, &value),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(TopicConfigError { faults })
        }
    }
}

impl TopicKey {
    /// The setting of this name.
    ///
    /// # Errors
    /// [`TopicConfigFault::Unknown`] with the nearest name.
    pub fn find(name: &str) -> Result<&'static Self, TopicConfigFault> {
        TOPIC_KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
            let nearest = nearest(name, TOPIC_KEYS.iter().map(|key| key.name));
            TopicConfigFault::Unknown {
                key: name.to_owned(),
                nearest: nearest.map(str::to_owned),
            }
        })
    }
}

/// Every topic setting with its value for a topic with these overrides, in order of the names; DescribeConfigs
/// of a topic (KIP-133, KIP-226).
///
/// `dynamic` is what the broker was told while it ran; its own value counts as static when it differs from the default. Overrides of unknown names, which
/// a newer version may have left behind, are not shown.
pub fn describe(
    node: &NodeConfig,
    dynamic: Dynamic<'_>,
    overrides: &BTreeMap<String, String>,
) -> Vec<ConfigEntry> {
    let at_broker: BTreeMap<&str, String> = broker_values(node)
        .map(|(key, value)| (key.name, value))
        .collect();
    let entry = |key: &'static TopicKey| {
        let mut synonyms = Vec::new();
        if let Some(value) = overrides.get(key.name) {
            synonyms.push(synonym(key.name, value, ConfigSource::Topic));
        }
        let name = key.broker_key.unwrap_or(key.name);
        synonyms.extend(crate::broker_keys::dynamic_links(dynamic, name));
        if let Some(value) = at_broker.get(key.name).filter(|value| *value != key.default) {
            synonyms.push(synonym(name, value, ConfigSource::StaticBroker));
        }
        synonyms.push(synonym(name, key.default, ConfigSource::Default));
        ConfigEntry {
            name: key.name.to_owned(),
            value: Some(synonyms[0].value.clone()),
            source: synonyms[0].source,
            read_only: false,
            sensitive: false,
            kind: key.kind,
            documentation: key.documentation(),
            synonyms,
        }
    };
    TOPIC_KEYS.iter().map(entry).collect()
}

/// Type and value of one setting for a topic that has none of its own.
pub fn find(node: &NodeConfig, dynamic: Dynamic<'_>, name: &str) -> Option<(ConfigKind, String)> {
    let mut entries = describe(node, dynamic, &BTreeMap::new()).into_iter();
    let entry = entries.find(|entry| entry.name == name)?;
    Some((entry.kind, entry.value?))
}

fn synonym(name: &str, value: &str, source: ConfigSource) -> ConfigSynonym {
    ConfigSynonym {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    }
}

/// The topic settings that the node file gives a default for, with that default in Kafka's units.
fn broker_values(node: &NodeConfig) -> impl Iterator<Item = (&'static TopicKey, String)> {
    let of_kafka_name = crate::broker_keys::values(node);
    TOPIC_KEYS.iter().filter_map(move |key| {
        let value = of_kafka_name.get(key.broker_key?)?;
        Some((key, value.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn table_is_sorted_and_every_default_is_valid_and_what_the_struct_says() {
        assert!(TOPIC_KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
        let mut config = TopicConfig {
            durability: Durability::Cached,
            retention_ms: 0,
            ..TopicConfig::default()
        };
        for key in TOPIC_KEYS {
            let value = key.check(key.default).unwrap_or_else(|fault| panic!("{fault}"));
            key.apply(&mut config, &value);
        }
        assert_eq!(config, TopicConfig::default());
        assert_eq!(
            TopicConfig::defaults(&NodeConfig::default()),
            TopicConfig::default()
        );
    }

    #[test]
    fn overrides_win_over_the_node_file_and_that_over_defaults() {
        let mut node = NodeConfig::default();
        node.storage.segment_size = crate::ByteSize::mib(2);
        node.storage.retention_size = crate::Limit::At(crate::ByteSize::mib(7));
        node.storage.durability = Durability::Cached;
        let defaults = TopicConfig::defaults(&node);
        let mine = overrides(&[
            ("segment.bytes", "1048576"),
            ("message.timestamp.type", "LogAppendTime"),
            ("cleanup.policy", "compact, delete"),
            ("min.cleanable.dirty.ratio", "0.25"),
        ]);
        let config = defaults.with_overrides(&mine).unwrap();
        assert_eq!(config.segment_bytes, 1 << 20);
        assert_eq!(config.retention_bytes, 7 << 20);
        assert!(config.cleanup_policy.compact && config.cleanup_policy.delete);
        assert!((config.min_cleanable_dirty_ratio - 0.25).abs() < 1e-9);
        assert_eq!(config.durability, Durability::Cached);
        assert_eq!(config.message_timestamp_type, TimestampType::LogAppendTime);

        let entries = describe(&node, Dynamic::NONE, &mine);
        let entry = entries
            .iter()
            .find(|entry| entry.name == "segment.bytes")
            .unwrap();
        let chain: Vec<_> = entry
            .synonyms
            .iter()
            .map(|s| (s.name.as_str(), s.value.as_str(), s.source))
            .collect();
        assert_eq!(
            chain,
            [
                ("segment.bytes", "1048576", ConfigSource::Topic),
                ("log.segment.bytes", "2097152", ConfigSource::StaticBroker),
                ("log.segment.bytes", "1073741824", ConfigSource::Default),
            ]
        );
        assert_eq!(
            (entry.value.as_deref(), entry.source),
            (Some("1048576"), ConfigSource::Topic)
        );
    }

    #[test]
    fn every_fault_is_reported_with_a_remedy() {
        let bad = overrides(&[
            ("cleanup.policy", "compact,squash"),
            ("compression.type", "lzma"),
            ("remote.storage.enable", "true"),
            ("retention.msx", "1"),
            ("segment.bytes", "12"),
            ("leader.replication.throttled.replicas", "0:1,2"),
            ("takhin.durability", "maybe"),
        ]);
        let error = TopicConfig::default().with_overrides(&bad).unwrap_err();
        assert_eq!(
            error.to_string().replace("; ", "\n"),
            "invalid value \"compact,squash\" for cleanup.policy: expected a list of delete, compact, each at most once\n\
             invalid value \"lzma\" for compression.type: expected one of uncompressed, zstd, lz4, snappy, gzip, producer\n\
             invalid value \"0:1,2\" for leader.replication.throttled.replicas: expected the literal '*' or a list of \
             replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...\n\
             remote.storage.enable=true is not supported yet by this version: use false\n\
             unknown topic config retention.msx: did you mean retention.ms?\n\
             invalid value \"12\" for segment.bytes: expected a whole number from 1048576 to 2147483647\n\
             invalid value \"maybe\" for takhin.durability: expected one of flushed, cached"
        );
    }

    #[test]
    fn a_list_may_be_empty_and_holds_no_word_twice() {
        let kept = TopicConfig::default()
            .with_overrides(&overrides(&[("cleanup.policy", "")]))
            .unwrap();
        assert!(!kept.cleanup_policy.delete && !kept.cleanup_policy.compact);
        for value in ["delete,delete", "delete,,", "delete,remove"] {
            let error = TopicConfig::default().with_overrides(&overrides(&[("cleanup.policy", value)]));
            assert!(
                matches!(error.unwrap_err().faults[..], [TopicConfigFault::Invalid { .. }]),
                "{value}"
            );
        }
    }
}
