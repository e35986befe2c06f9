//! What DescribeConfigs shows of a broker: node settings under Kafka's names, and topic defaults.

use std::collections::{BTreeMap, BTreeSet};

use crate::kind::{ConfigEntry, ConfigKind, ConfigSource, ConfigSynonym};
use crate::live::{Dynamic, Values};
use crate::node::NodeConfig;
use crate::section::{Row, SettingDoc};
use crate::topic::TOPIC_KEYS;

/// What is known of a broker-level name before anybody sets it while the broker runs.
struct Known {
    name: &'static str,
    kind: ConfigKind,
    doc: String,
    /// Value in the node file, or the default.
    value: String,
    default: Option<String>,
    /// Whether it can be set while the broker runs.
    dynamic: bool,
}

/// Every broker-level name with its value on a broker with this node file that was told `dynamic`, sorted by name.
///
/// A value of the node file counts as static when it differs from the default.
pub fn describe(node: &NodeConfig, dynamic: Dynamic<'_>) -> Vec<ConfigEntry> {
    known(node)
        .into_values()
        .map(|known| entry(known, dynamic))
        .collect()
}

/// What was set on all brokers while they run (`all`), sorted by name; DescribeConfigs of the broker without a name.
pub fn describe_defaults(all: &Values) -> Vec<ConfigEntry> {
    let mut known = known(&NodeConfig::default());
    let shown = all.iter().filter_map(|(name, value)| {
        let known = known.remove(name.as_str())?;
        let link = link(known.name, value, ConfigSource::DynamicDefaultBroker);
        Some(config_entry(known, vec![link]))
    });
    shown.collect()
}

/// Type and effective value of one broker-level name.
pub fn find(node: &NodeConfig, dynamic: Dynamic<'_>, name: &str) -> Option<(ConfigKind, String)> {
    let known = known(node).remove(name)?;
    let entry = entry(known, dynamic);
    Some((entry.kind, entry.value?))
}

/// All broker-level names.
pub(crate) fn names() -> BTreeSet<&'static str> {
    known(&NodeConfig::default()).into_keys().collect()
}

fn known(node: &NodeConfig) -> BTreeMap<&'static str, Known> {
    let (mut values, mut defaults) = (values(node), values(&NodeConfig::default()));
    let mut all = BTreeMap::new();
    for (setting, name, kind) in kafka_settings() {
        // A broker without a rack has the key all the same.
        let value = values.remove(name).unwrap_or_default();
        let default = (!setting.required).then(|| defaults.remove(name).unwrap_or_default());
        let (doc, dynamic) = (setting.doc, setting.dynamic);
        let setting = Known {
            name,
            kind,
            doc,
            value,
            default,
            dynamic,
        };
        all.insert(name, setting);
    }
    for (name, advertised, doc) in [
        ("listeners", false, "Addresses listened on."),
        ("advertised.listeners", true, "Addresses given to clients."),
    ] {
        let listeners = Known {
            name,
            kind: ConfigKind::List,
            doc: doc.to_owned(),
            value: listeners(node, advertised),
            default: Some(listeners(&NodeConfig::default(), advertised)),
            dynamic: false,
        };
        all.insert(name, listeners);
    }
    for key in TOPIC_KEYS {
        if let Some(name) = key.broker_key {
            let topic_default = || Known {
                name,
                kind: key.kind,
                doc: key.documentation(),
                value: key.default.to_owned(),
                default: Some(key.default.to_owned()),
                dynamic: true,
            };
            all.entry(name).or_insert_with(topic_default);
        }
    }
    all
}

/// Value in Kafka's units of each node setting that has a Kafka name.
pub(crate) fn values(node: &NodeConfig) -> BTreeMap<&'static str, String> {
    let of_path: BTreeMap<String, String> = node
        .effective()
        .into_iter()
        .map(|value| (value.path, value.kafka_value))
        .collect();
    let value =
        |(setting, name, _): (SettingDoc, _, _)| Some((name, in_unit_of(name, of_path.get(&setting.path)?)));
    kafka_settings().filter_map(value).collect()
}

/// Kafka has milliseconds for durations, but where the name says otherwise.
fn in_unit_of(name: &str, value: &str) -> String {
    match value.parse::<u64>() {
        Ok(ms) if name.ends_with(".minutes") => (ms / 60_000).to_string(),
        _ => value.to_owned(),
    }
}

fn kafka_settings() -> impl Iterator<Item = (SettingDoc, &'static str, ConfigKind)> {
    NodeConfig::rows().into_iter().filter_map(|row| match row {
        Row::Setting(setting) => {
            let (name, kind) = setting.kafka?;
            Some((setting, name, kind))
        }
        Row::Section { .. } => None,
    })
}

fn entry(known: Known, dynamic: Dynamic<'_>) -> ConfigEntry {
    let mut synonyms = dynamic_links(dynamic, known.name);
    if known.default.as_ref() != Some(&known.value) {
        synonyms.push(link(known.name, &known.value, ConfigSource::StaticBroker));
    }
    let default = known.default.iter();
    synonyms.extend(default.map(|default| link(known.name, default, ConfigSource::Default)));
    config_entry(known, synonyms)
}

fn config_entry(known: Known, synonyms: Vec<ConfigSynonym>) -> ConfigEntry {
    let nearest = synonyms.first();
    ConfigEntry {
        name: known.name.to_owned(),
        source: nearest.map_or(ConfigSource::Default, |link| link.source),
        value: Some(nearest.map_or(known.value, |link| link.value.clone())),
        read_only: !known.dynamic,
        sensitive: false,
        kind: known.kind,
        documentation: known.doc,
        synonyms,
    }
}

/// The links of a broker-level name that were set while brokers run, nearest first.
pub(crate) fn dynamic_links(dynamic: Dynamic<'_>, name: &str) -> Vec<ConfigSynonym> {
    let own = dynamic
        .own
        .get(name)
        .map(|value| (value, ConfigSource::DynamicBroker));
    let all = dynamic
        .all
        .get(name)
        .map(|value| (value, ConfigSource::DynamicDefaultBroker));
    let links = own.into_iter().chain(all);
    links.map(|(value, source)| link(name, value, source)).collect()
}

fn link(name: &str, value: &str, source: ConfigSource) -> ConfigSynonym {
    ConfigSynonym {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    }
}

/// Kafka's notation: `name://host:port`, with commas between them.
fn listeners(node: &NodeConfig, advertised: bool) -> String {
    let show = |listener: &crate::node::Listener| {
        let address = if advertised {
            listener.advertised(listener.bind).to_string()
        } else {
            listener.bind.to_string()
        };
        format!("{}://{address}", listener.name)
    };
    node.kafka
        .listeners
        .iter()
        .map(show)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_settings_appear_in_kafkas_units_with_their_source() {
        let mut node = NodeConfig::default();
        node.node.id = 7;
        node.storage.segment_size = crate::ByteSize::mib(4);
        let entries = describe(&node, Dynamic::NONE);
        let find = |name: &str| {
            let entry = entries.iter().find(|entry| entry.name == name).unwrap();
            (entry.value.as_deref().unwrap_or_default(), entry.source)
        };
        assert_eq!(find("node.id"), ("7", ConfigSource::StaticBroker));
        assert_eq!(find("log.segment.bytes"), ("4194304", ConfigSource::StaticBroker));
        assert_eq!(find("log.retention.ms"), ("604800000", ConfigSource::Default));
        assert_eq!(find("log.retention.bytes"), ("-1", ConfigSource::Default));
        assert_eq!(find("message.max.bytes"), ("1048588", ConfigSource::Default));
        assert_eq!(find("fetch.max.bytes"), ("57671680", ConfigSource::Default));
        assert_eq!(find("log.cleanup.policy"), ("delete", ConfigSource::Default));
        assert_eq!(
            find("listeners"),
            ("internal://127.0.0.1:9092", ConfigSource::Default)
        );
        assert_eq!(find("broker.rack"), ("", ConfigSource::Default));
        let rack_aware = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
        assert_eq!(
            find("replica.selector.class"),
            (rack_aware, ConfigSource::Default)
        );
    }

    #[test]
    fn what_brokers_were_told_comes_before_the_node_file() {
        let mut node = NodeConfig::default();
        node.kafka.num_partitions = 2;
        let value = |value: &str| Values::from([("num.partitions".to_owned(), value.to_owned())]);
        let (own, all) = (value("4"), value("3"));
        let entries = describe(&node, Dynamic { own: &own, all: &all });
        let entry = entries
            .iter()
            .find(|entry| entry.name == "num.partitions")
            .unwrap();
        let chain: Vec<_> = entry
            .synonyms
            .iter()
            .map(|s| (s.value.as_str(), s.source))
            .collect();
        let expected = [
            ("4", ConfigSource::DynamicBroker),
            ("3", ConfigSource::DynamicDefaultBroker),
            ("2", ConfigSource::StaticBroker),
            ("1", ConfigSource::Default),
        ];
        assert_eq!(chain, expected);
        assert_eq!(
            (entry.value.as_deref(), entry.source, entry.read_only),
            (Some("4"), ConfigSource::DynamicBroker, false)
        );
        let read_only: Vec<_> = entries.iter().filter(|entry| entry.read_only).collect();
        assert!(read_only.iter().any(|entry| entry.name == "node.id"));
        let defaults = describe_defaults(&all);
        assert_eq!(defaults.len(), 1);
        assert_eq!(
            (defaults[0].value.as_deref(), defaults[0].source),
            (Some("3"), ConfigSource::DynamicDefaultBroker)
        );
        assert_eq!(
            find(&node, Dynamic::NONE, "num.partitions"),
            Some((ConfigKind::Int, "2".to_owned()))
        );
    }
}
