//! The settings of a single consumer group of KIP-848, under Kafka's names (`GroupConfig` of Apache Kafka 4.x).
//!
//! Kafka has more of them, for share and streams groups and for when an assignment is made. Nothing here would act on
//! them, so they are unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker_keys;
use crate::kind::{ConfigEntry, ConfigKind, ConfigSource, ConfigSynonym};
use crate::live::{Dynamic, Values};
use crate::nearest::nearest;
use crate::node::{Groups, NodeConfig};

const SESSION_TIMEOUT: &str = "consumer.session.timeout.ms";
const HEARTBEAT_INTERVAL: &str = "consumer.heartbeat.interval.ms";

/// One setting of groups: a whole number of milliseconds.
#[derive(Debug)]
pub struct GroupKey {
    /// Kafka's name.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Name of the broker setting that is in force where a group has none of its own.
    pub broker_key: &'static str,
    /// Names of the broker settings that bound it, inclusive.
    pub bounds: (&'static str, &'static str),
    read: fn(&Groups) -> Known,
}

/// What a broker says about a setting.
#[derive(Debug, Clone, Copy)]
struct Known {
    default: Duration,
    min: Duration,
    max: Duration,
}

/// Every setting of groups, sorted by name.
pub const GROUP_KEYS: &[GroupKey] = &[
    GroupKey {
        name: HEARTBEAT_INTERVAL,
        doc: "How often members of the group are told to send a heartbeat, in milliseconds.",
        broker_key: "group.consumer.heartbeat.interval.ms",
        bounds: (
            "group.consumer.min.heartbeat.interval.ms",
            "group.consumer.max.heartbeat.interval.ms",
        ),
        read: |groups| Known {
            default: groups.consumer_heartbeat_interval,
            min: groups.consumer_min_heartbeat_interval,
            max: groups.consumer_max_heartbeat_interval,
        },
    },
    GroupKey {
        name: SESSION_TIMEOUT,
        doc: "How long a member of the group may be silent, in milliseconds; longer than the heartbeat interval.",
        broker_key: "group.consumer.session.timeout.ms",
        bounds: (
            "group.consumer.min.session.timeout.ms",
            "group.consumer.max.session.timeout.ms",
        ),
        read: |groups| Known {
            default: groups.consumer_session_timeout,
            min: groups.consumer_min_session_timeout,
            max: groups.consumer_max_session_timeout,
        },
    },
];

/// Why a group does not take its settings. Kafka's INVALID_CONFIG.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupConfigFault {
    /// No such setting.
    #[error("Unknown group config name: {key}{}", .nearest.map(|name| format!(": did you mean {name}?")).unwrap_or_default())]
    Unknown {
        /// The name given.
        key: String,
        /// The known name that looks most like it.
        nearest: Option<&'static str>,
    },
    /// Not a value of this setting.
    #[error(
        "invalid value {value:?} for {key}: expected a whole number from 1 to {}",
        i32::MAX
    )]
    Invalid {
        /// The setting.
        key: &'static str,
        /// The value given.
        value: String,
    },
    /// Beyond a bound that the broker sets.
    #[error("{key} must be {} than or equal to {bound} ({ms})", if *.is_min { "greater" } else { "less" })]
    OutOfBounds {
        /// The setting.
        key: &'static str,
        /// The broker setting that bounds it.
        bound: &'static str,
        /// The bound in milliseconds.
        ms: u128,
        /// Whether it is the lower one.
        is_min: bool,
    },
    /// A member would be fenced between two heartbeats.
    #[error("{SESSION_TIMEOUT} must be greater than {HEARTBEAT_INTERVAL}")]
    SessionNotLonger,
}

/// The settings in force for one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSettings {
    /// `consumer.session.timeout.ms`
    pub consumer_session_timeout: Duration,
    /// `consumer.heartbeat.interval.ms`
    pub consumer_heartbeat_interval: Duration,
}

impl GroupSettings {
    /// The settings of a group that has `own` ones on a broker with these for all groups. A value that lies beyond the
    /// broker's bounds, which may have changed since it was set, is brought within them; one that is none, which a newer
    /// version may have left behind, changes nothing.
    pub fn of(groups: &Groups, own: &Values) -> Self {
        let value = |name: &str| {
            let key = GROUP_KEYS.iter().find(|key| key.name == name)?;
            let known = (key.read)(groups);
            let own = own.get(name).and_then(|value| parse(value));
            // The bounds may cross; then the upper one holds.
            Some(own.map_or(known.default, |own| own.max(known.min).min(known.max)))
        };
        Self {
            consumer_session_timeout: value(SESSION_TIMEOUT).unwrap_or(groups.consumer_session_timeout),
            consumer_heartbeat_interval: value(HEARTBEAT_INTERVAL)
                .unwrap_or(groups.consumer_heartbeat_interval),
        }
    }
}

/// Whether a group takes these settings on a broker with these for all groups.
///
/// # Errors
/// The first [`GroupConfigFault`], in the order of names.
pub fn check(groups: &Groups, own: &Values) -> Result<(), GroupConfigFault> {
    for (name, value) in own {
        let Some(key) = GROUP_KEYS.iter().find(|key| key.name == name.as_str()) else {
            return Err(GroupConfigFault::Unknown {
                key: name.clone(),
                nearest: nearest(name, GROUP_KEYS.iter().map(|key| key.name)),
            });
        };
        key.check(value, (key.read)(groups))?;
    }
    let settings = GroupSettings::of(groups, own);
    if !own.is_empty() && settings.consumer_session_timeout <= settings.consumer_heartbeat_interval {
        return Err(GroupConfigFault::SessionNotLonger);
    }
    Ok(())
}

impl GroupKey {
    fn check(&self, value: &str, known: Known) -> Result<(), GroupConfigFault> {
        let given = parse(value).ok_or_else(|| GroupConfigFault::Invalid {
            key: self.name,
            value: value.to_owned(),
        })?;
        let out_of_bounds = |bound, at: Duration, is_min| GroupConfigFault::OutOfBounds {
            key: self.name,
            bound,
            ms: at.as_millis(),
            is_min,
        };
        if given < known.min {
            return Err(out_of_bounds(self.bounds.0, known.min, true));
        }
        if given > known.max {
            return Err(out_of_bounds(self.bounds.1, known.max, false));
        }
        Ok(())
    }
}

/// A positive number of milliseconds that fits Kafka's type INT, which allows for white space around it.
fn parse(value: &str) -> Option<Duration> {
    let ms: i32 = value.trim().parse().ok()?;
    let ms = u64::try_from(ms).ok().filter(|ms| *ms > 0)?;
    Some(Duration::from_millis(ms))
}

/// Every setting with its value for a group that has `own` ones, sorted by name; DescribeConfigs of a group. `dynamic` is
/// what the broker was told while it ran.
pub fn describe(node: &NodeConfig, dynamic: Dynamic<'_>, own: &Values) -> Vec<ConfigEntry> {
    let mut of_broker: BTreeMap<String, ConfigEntry> = broker_keys::describe(node, dynamic)
        .into_iter()
        .map(|entry| (entry.name.clone(), entry))
        .collect();
    let entries = GROUP_KEYS.iter().filter_map(|key| {
        let inherited = of_broker.remove(key.broker_key)?;
        let entry = ConfigEntry {
            name: key.name.to_owned(),
            read_only: false,
            documentation: key.doc.to_owned(),
            ..inherited
        };
        let Some(value) = own.get(key.name) else {
            return Some(entry);
        };
        let link = ConfigSynonym {
            name: key.name.to_owned(),
            value: value.clone(),
            source: ConfigSource::Group,
        };
        Some(ConfigEntry {
            value: Some(value.clone()),
            source: ConfigSource::Group,
            synonyms: std::iter::once(link).chain(entry.synonyms).collect(),
            ..entry
        })
    });
    entries.collect()
}

/// Type and value of one setting for a group that has none of its own.
pub fn find(node: &NodeConfig, dynamic: Dynamic<'_>, name: &str) -> Option<(ConfigKind, String)> {
    let mut entries = describe(node, dynamic, &Values::new()).into_iter();
    let entry = entries.find(|entry| entry.name == name)?;
    Some((entry.kind, entry.value?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn seconds(session: u64, heartbeat: u64) -> GroupSettings {
        GroupSettings {
            consumer_session_timeout: Duration::from_secs(session),
            consumer_heartbeat_interval: Duration::from_secs(heartbeat),
        }
    }

    #[test]
    fn bounds_are_the_brokers_and_inclusive() {
        let groups = Groups::default();
        let told = |pairs: &[(&str, &str)]| check(&groups, &values(pairs)).map_err(|fault| fault.to_string());
        assert_eq!(told(&[]), Ok(()));
        for (session, heartbeat) in [("45000", "5000"), (" 60000 ", "15000")] {
            let both = [(SESSION_TIMEOUT, session), (HEARTBEAT_INTERVAL, heartbeat)];
            assert_eq!(told(&both), Ok(()));
        }
        let cases = [
            (
                (SESSION_TIMEOUT, "44999"),
                "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms (45000)",
            ),
            (
                (SESSION_TIMEOUT, "60001"),
                "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms (60000)",
            ),
            (
                (HEARTBEAT_INTERVAL, "4999"),
                "consumer.heartbeat.interval.ms must be greater than or equal to group.consumer.min.heartbeat.interval.ms (5000)",
            ),
            (
                (HEARTBEAT_INTERVAL, "15001"),
                "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms (15000)",
            ),
            (
                (HEARTBEAT_INTERVAL, "0"),
                "invalid value \"0\" for consumer.heartbeat.interval.ms: expected a whole number from 1 to 2147483647",
            ),
            (
                (SESSION_TIMEOUT, "2147483648"),
                "invalid value \"2147483648\" for consumer.session.timeout.ms: expected a whole number from 1 to 2147483647",
            ),
            (
                ("consumer.session.timeout", "1"),
                "Unknown group config name: consumer.session.timeout: did you mean consumer.session.timeout.ms?",
            ),
            (
                ("share.isolation.level", "x"),
                "Unknown group config name: share.isolation.level",
            ),
        ];
        for (pair, message) in cases {
            assert_eq!(told(&[pair]), Err(message.to_owned()));
        }
    }

    #[test]
    fn a_session_outlasts_a_heartbeat_also_where_the_broker_says_one_of_them() {
        let groups = Groups {
            consumer_session_timeout: Duration::from_secs(10),
            consumer_min_session_timeout: Duration::from_secs(5),
            ..Groups::default()
        };
        let longer = values(&[(HEARTBEAT_INTERVAL, "10000")]);
        assert_eq!(check(&groups, &longer), Err(GroupConfigFault::SessionNotLonger));
        let both = values(&[(HEARTBEAT_INTERVAL, "10000"), (SESSION_TIMEOUT, "10001")]);
        assert_eq!(check(&groups, &both), Ok(()));
        let shorter = values(&[(SESSION_TIMEOUT, "5000")]);
        assert_eq!(check(&groups, &shorter), Err(GroupConfigFault::SessionNotLonger));
    }

    #[test]
    fn what_is_in_force_keeps_to_the_bounds_of_today() {
        let mut groups = Groups::default();
        assert_eq!(GroupSettings::of(&groups, &Values::new()), seconds(45, 5));
        let own = values(&[(SESSION_TIMEOUT, "50000"), (HEARTBEAT_INTERVAL, "many")]);
        assert_eq!(GroupSettings::of(&groups, &own), seconds(50, 5));
        groups.consumer_min_session_timeout = Duration::from_secs(55);
        assert_eq!(GroupSettings::of(&groups, &own), seconds(55, 5));
        groups.consumer_max_session_timeout = Duration::from_secs(20);
        assert_eq!(GroupSettings::of(&groups, &own), seconds(20, 5));
    }

    #[test]
    fn a_groups_own_value_comes_before_the_brokers() {
        let mut node = NodeConfig::default();
        node.kafka.groups.consumer_session_timeout = Duration::from_secs(50);
        let entries = describe(&node, Dynamic::NONE, &values(&[(SESSION_TIMEOUT, "55000")]));
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, [HEARTBEAT_INTERVAL, SESSION_TIMEOUT]);
        let chain: Vec<_> = entries[1]
            .synonyms
            .iter()
            .map(|link| (link.name.as_str(), link.value.as_str(), link.source.code()))
            .collect();
        let key = "group.consumer.session.timeout.ms";
        let expected = [
            (SESSION_TIMEOUT, "55000", 8),
            (key, "50000", 4),
            (key, "45000", 5),
        ];
        assert_eq!(chain, expected);
        assert_eq!(
            (
                entries[1].value.as_deref(),
                entries[1].source,
                entries[1].read_only
            ),
            (Some("55000"), ConfigSource::Group, false)
        );
        assert_eq!(
            find(&node, Dynamic::NONE, HEARTBEAT_INTERVAL),
            Some((ConfigKind::Int, "5000".to_owned()))
        );
    }
}
