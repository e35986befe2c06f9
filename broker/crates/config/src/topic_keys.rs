//! The table of topic settings.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.x (`TopicConfig`, `LogConfig`).

use crate::kind::ConfigKind;
use crate::node::Durability;
use crate::scalar::Scalar;
use crate::throttled::ThrottledReplicas;
use crate::topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig, TopicConfigFault};

/// One topic setting.
#[derive(Debug)]
pub struct TopicKey {
    /// Kafka's name; ours begin with `takhin.`.
    pub name: &'static str,
    /// Type on the wire.
    pub kind: ConfigKind,
    /// Value of a topic for which nobody says otherwise.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Name of the broker setting that gives topics their default.
    pub broker_key: Option<&'static str>,
    /// What this version does with it.
    pub effect: Effect,
    values: Values,
}

/// What this version does with a setting.
#[derive(Debug, Clone, Copy)]
pub enum Effect {
    /// Acts on it.
    Acts(fn(&mut TopicConfig, &Value)),
    /// Takes every valid value, since none of them is needed for what it promises; the text says why.
    Accepts(&'static str),
    /// Takes this value only and refuses other valid ones.
    Only(&'static str),
}

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number within the setting's bounds.
    Number(i64),
    /// A fraction within the setting's bounds.
    Fraction(f64),
    /// One or more of the setting's words.
    Text(String),
}

impl Value {
    fn bool(&self) -> bool {
        matches!(self, Self::Bool(true))
    }
    fn i64(&self) -> i64 {
        match self {
            Self::Number(n) => *n,
            _ => 0,
        }
    }
    fn f64(&self) -> f64 {
        match self {
            Self::Fraction(n) => *n,
            _ => 0.0,
        }
    }
    /// The bounds of settings read so lie within those of the type.
    fn u32(&self) -> u32 {
        u32::try_from(self.i64()).unwrap_or(u32::MAX)
    }
    /// The bounds of settings read so lie within those of the type.
    fn i32(&self) -> i32 {
        i32::try_from(self.i64()).unwrap_or(i32::MAX)
    }
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }
}

#[derive(Debug)]
enum Values {
    Bool,
    /// Inclusive bounds.
    Number(i64, i64),
    /// Inclusive bounds.
    Fraction(f64, f64),
    OneOf(&'static [&'static str]),
    /// Any of these, each once, with commas between them; none of them too.
    ListOf(&'static [&'static str]),
    /// See [`ThrottledReplicas`].
    Replicas,
}

const INT_MAX: i64 = i32::MAX as i64;

impl TopicKey {
    /// Reads a value.
    ///
    /// # Errors
    /// [`TopicConfigFault::Invalid`], [`TopicConfigFault::Unsupported`].
    pub fn check(&'static self, text: &str) -> Result<Value, TopicConfigFault> {
        let text = text.trim();
        let invalid = || TopicConfigFault::Invalid {
            key: self.name,
            value: text.to_owned(),
            expected: self.expected(),
        };
        let value = self.values.parse(text).ok_or_else(invalid)?;
        match self.effect {
            Only(only) if self.values.parse(only).as_ref() != Some(&value) => {
                Err(TopicConfigFault::Unsupported {
                    key: self.name,
                    value: text.to_owned(),
                    remedy: format!("use {only}"),
                })
            }
            _ => Ok(value),
        }
    }

    /// Puts a checked value into `config`.
    pub(crate) fn apply(&self, config: &mut TopicConfig, value: &Value) {
        if let Acts(put) = self.effect {
            put(config, value);
        }
    }

    /// What a value may be, in words.
    pub fn expected(&self) -> String {
        match &self.values {
            Bool => "true or false".to_owned(),
            Number(low, i64::MAX) => format!("a whole number, at least {low}"),
            Number(low, high) => format!("a whole number from {low} to {high}"),
            Fraction(low, high) => format!("a number from {low} to {high}"),
            OneOf(words) => format!("one of {}", words.join(", ")),
            ListOf(words) => format!("a list of {}, each at most once", words.join(", ")),
            // Kafka's words, which its users search for.
            Replicas => "the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                .to_owned(),
        }
    }

    /// What it does, and what of that this version leaves out.
    pub fn documentation(&self) -> String {
        match self.effect {
            Acts(_) => self.doc.to_owned(),
            Accepts(why) => format!("{} No effect: {why}.", self.doc),
            Only(only) => format!("{} This version takes no value but {only}.", self.doc),
        }
    }
}

impl Values {
    fn parse(&self, text: &str) -> Option<Value> {
        match self {
            // Kafka reads booleans without regard to case.
            Self::Bool => text.to_ascii_lowercase().parse().ok().map(Value::Bool),
            Self::Number(low, high) => text
                .parse()
                .ok()
                .filter(|n| (*low..=*high).contains(n))
                .map(Value::Number),
            Self::Fraction(low, high) => text
                .parse()
                .ok()
                .filter(|n| (*low..=*high).contains(n))
                .map(Value::Fraction),
            Self::OneOf(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            // As in Kafka 4: neither word, so nothing old is touched.
            Self::ListOf(_) if text.is_empty() => Some(Value::Text(String::new())),
            Self::ListOf(words) => {
                let items: Vec<&str> = text.split(',').map(str::trim).collect();
                let once = |(i, item): (usize, &&str)| words.contains(item) && !items[..i].contains(item);
                items
                    .iter()
                    .enumerate()
                    .all(once)
                    .then(|| Value::Text(items.join(",")))
            }
            Self::Replicas => ThrottledReplicas::parse(text).map(|_| Value::Text(text.to_owned())),
        }
    }
}

const NO_TIERING: &str = "it matters only with remote.storage.enable=true";
const DURABILITY_DECIDES: &str = "takhin.durability decides: flushed has every record on the medium before it is \
     acknowledged, cached flushes every ten seconds and after 16 MiB";

macro_rules! keys {
    ($($name:literal $kind:ident $values:expr, $default:expr, $broker:expr, $effect:expr, $doc:literal;)*) => {
        /// All topic settings, sorted by name.
        pub static TOPIC_KEYS: &[TopicKey] = &[$(TopicKey {
            name: $name,
            kind: ConfigKind::$kind,
            values: $values,
            default: $default,
            broker_key: $broker,
            effect: $effect,
            doc: $doc,
        },)*];
    };
}

use Effect::{Accepts, Acts, Only};
use Values::{Bool, Fraction, ListOf, Number, OneOf, Replicas};

keys! {
    "cleanup.policy" List ListOf(&["delete", "compact"]), "delete", Some("log.cleanup.policy"),
        Acts(|config, value| config.cleanup_policy = cleanup_policy(value.text())),
        "What happens to old records: delete removes whole segments by age and size, compact keeps the last record of each key; \
         empty keeps everything.";
    "compression.gzip.level" Int Number(-1, 9), "-1", Some("compression.gzip.level"),
        Acts(|config, value| config.compression_gzip_level = value.i32()),
        "Level for compression.type=gzip; -1 is the codec's own default.";
    "compression.lz4.level" Int Number(1, 17), "9", Some("compression.lz4.level"),
        Accepts("this version's lz4 encoder has one level"),
        "Level for compression.type=lz4.";
    "compression.type" String OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "producer",
        Some("compression.type"), Acts(|config, value| config.compression_type = compression_type(value.text())),
        "Codec of stored batches; producer keeps what the producer chose. A batch with another codec is compressed anew.";
    "compression.zstd.level" Int Number(-131_072, 22), "3", Some("compression.zstd.level"),
        Acts(|config, value| config.compression_zstd_level = value.i32()),
        "Level for compression.type=zstd.";
    "delete.retention.ms" Long Number(0, i64::MAX), "86400000", Some("log.cleaner.delete.retention.ms"),
        Acts(|config, value| config.delete_retention_ms = value.i64()),
        "How long a tombstone stays after the compaction that made it removable.";
    "file.delete.delay.ms" Long Number(0, i64::MAX), "60000", Some("log.segment.delete.delay.ms"),
        Accepts("a removed segment lives until its last reader closes it"),
        "Delay before the file of a deleted segment is removed.";
    "flush.messages" Long Number(1, i64::MAX), "9223372036854775807", Some("log.flush.interval.messages"),
        Accepts(DURABILITY_DECIDES),
        "Records after which the log is flushed.";
    "flush.ms" Long Number(0, i64::MAX), "9223372036854775807", Some("log.flush.interval.ms"), Accepts(DURABILITY_DECIDES),
        "Time after which the log is flushed.";
    "follower.replication.throttled.replicas" List Replicas, "", None,
        Acts(|config, value| config.follower_throttled = throttled(value.text())),
        "Replicas that are sent what they lack no faster than follower.replication.throttled.rate of their broker allows, while \
         they are not in sync: partition:broker with commas between them, * for all, empty for none (KIP-73).";
    "index.interval.bytes" Int Number(0, INT_MAX), "4096", Some("log.index.interval.bytes"),
        Acts(|config, value| config.index_interval_bytes = value.u32()),
        "Bytes of log between two entries of the offset index.";
    "leader.replication.throttled.replicas" List Replicas, "", None,
        Acts(|config, value| config.leader_throttled = throttled(value.text())),
        "Replicas that, while they lead, send to those that are not in sync no faster than leader.replication.throttled.rate of \
         their broker allows: partition:broker with commas between them, * for all, empty for none (KIP-73).";
    "local.retention.bytes" Long Number(-2, i64::MAX), "-2", Some("log.local.retention.bytes"), Accepts(NO_TIERING),
        "Bytes kept on the broker's disk; -2 is retention.bytes.";
    "local.retention.ms" Long Number(-2, i64::MAX), "-2", Some("log.local.retention.ms"), Accepts(NO_TIERING),
        "Time that records are kept on the broker's disk; -2 is retention.ms.";
    "max.compaction.lag.ms" Long Number(1, i64::MAX), "9223372036854775807", Some("log.cleaner.max.compaction.lag.ms"),
        Acts(|config, value| config.max_compaction_lag_ms = value.i64()),
        "Age at which a record makes compaction due, whatever the share of uncompacted bytes; a segment is closed at this age.";
    "max.message.bytes" Int Number(0, INT_MAX), "1048588", Some("message.max.bytes"),
        Acts(|config, value| config.max_message_bytes = value.u32()),
        "Largest batch as received, that is after the producer's compression.";
    "message.downconversion.enable" Boolean Bool, "true", Some("log.message.downconversion.enable"),
        Accepts("clients too old for the stored format are not served, as in Kafka 4"),
        "Whether batches are converted for old consumers.";
    "message.timestamp.after.max.ms" Long Number(0, i64::MAX), "3600000", Some("log.message.timestamp.after.max.ms"),
        Acts(|config, value| config.message_timestamp_after_max_ms = value.i64()),
        "How far ahead of the broker's clock a record's timestamp may be; not looked at with LogAppendTime (KIP-937).";
    "message.timestamp.before.max.ms" Long Number(0, i64::MAX), "9223372036854775807",
        Some("log.message.timestamp.before.max.ms"),
        Acts(|config, value| config.message_timestamp_before_max_ms = value.i64()),
        "How far behind the broker's clock a record's timestamp may be; not looked at with LogAppendTime (KIP-937).";
    "message.timestamp.type" String OneOf(&["CreateTime", "LogAppendTime"]), "CreateTime", Some("log.message.timestamp.type"),
        Acts(|config, value| config.message_timestamp_type = timestamp_type(value.text())),
        "Whether records keep the producer's timestamp or get the broker's.";
    "min.cleanable.dirty.ratio" Double Fraction(0.0, 1.0), "0.5", Some("log.cleaner.min.cleanable.ratio"),
        Acts(|config, value| config.min_cleanable_dirty_ratio = value.f64()),
        "Share of uncompacted bytes above which compaction begins.";
    "min.compaction.lag.ms" Long Number(0, i64::MAX), "0", Some("log.cleaner.min.compaction.lag.ms"),
        Acts(|config, value| config.min_compaction_lag_ms = value.i64()),
        "Shortest time that a record stays uncompacted.";
    "min.insync.replicas" Int Number(1, u16::MAX as i64), "1", Some("min.insync.replicas"),
        Acts(|config, value| config.min_insync_replicas = u16::try_from(value.i64()).unwrap_or(u16::MAX)),
        "In-sync replicas without which a produce request with acks=all is refused, and which have a record before that is answered. Below a majority it acts as the majority.";
    "preallocate" Boolean Bool, "false", Some("log.preallocate"), Only("false"),
        "Whether segment files are created in their full size.";
    "remote.log.copy.disable" Boolean Bool, "false", None, Accepts(NO_TIERING),
        "Whether copying to remote storage is stopped.";
    "remote.log.delete.on.disable" Boolean Bool, "false", None, Accepts(NO_TIERING),
        "Whether switching remote storage off deletes what is there.";
    "remote.storage.enable" Boolean Bool, "false", None, Only("false"),
        "Whether old segments move to remote storage.";
    "retention.bytes" Long Number(-1, i64::MAX), "-1", Some("log.retention.bytes"),
        Acts(|config, value| config.retention_bytes = value.i64()),
        "Size of a partition above which its oldest segments are deleted; -1 is no limit.";
    "retention.ms" Long Number(-1, i64::MAX), "604800000", Some("log.retention.ms"),
        Acts(|config, value| config.retention_ms = value.i64()),
        "Age at which records are deleted, a whole segment at a time; -1 is no limit.";
    "segment.bytes" Int Number(1 << 20, INT_MAX), "1073741824", Some("log.segment.bytes"),
        Acts(|config, value| config.segment_bytes = value.u32()),
        "Size at which a segment is closed and the next one begun.";
    "segment.index.bytes" Int Number(4, INT_MAX), "10485760", Some("log.index.size.max.bytes"),
        Acts(|config, value| config.segment_index_bytes = value.u32()),
        "Size at which an offset index is full and its segment is closed.";
    "segment.jitter.ms" Long Number(0, i64::MAX), "0", Some("log.roll.jitter.ms"), Only("0"),
        "Random part of segment.ms by which segments are closed earlier.";
    "segment.ms" Long Number(1, i64::MAX), "604800000", Some("log.roll.ms"),
        Acts(|config, value| config.segment_ms = value.i64()),
        "Age at which a segment is closed even if it is not full.";
    "takhin.durability" String OneOf(Durability::WORDS), "flushed", Some("takhin.durability"),
        Acts(|config, value| config.durability = durability(value.text())),
        "When a record counts as written: flushed once it is on the medium, cached once it is in the page cache. \
         cached can lose acknowledged records when a majority of the replicas loses power, or has syncs fail, at the same \
         time.";
    "unclean.leader.election.enable" Boolean Bool, "false", Some("unclean.leader.election.enable"),
        Acts(|config, value| config.unclean_leader_election = value.bool()),
        "Whether replicas of a cached topic that may lack acknowledged records, because power or a sync has failed, may go on \
         as a majority without waiting for the others, and give up what only these have. A flushed topic never needs it.";
}

fn throttled(list: &str) -> ThrottledReplicas {
    ThrottledReplicas::parse(list).unwrap_or_default()
}

fn timestamp_type(word: &str) -> TimestampType {
    if word == "LogAppendTime" {
        TimestampType::LogAppendTime
    } else {
        TimestampType::CreateTime
    }
}

fn compression_type(word: &str) -> CompressionType {
    match word {
        "uncompressed" => CompressionType::Uncompressed,
        "gzip" => CompressionType::Gzip,
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4,
        "zstd" => CompressionType::Zstd,
        _ => CompressionType::Producer,
    }
}

fn cleanup_policy(list: &str) -> CleanupPolicy {
    CleanupPolicy {
        delete: list.split(',').any(|word| word == "delete"),
        compact: list.split(',').any(|word| word == "compact"),
    }
}

fn durability(word: &str) -> Durability {
    Durability::parse(word).unwrap_or(Durability::Flushed)
}
