//! What DescribeConfigs shows of a broker: node settings under Kafka's names, and topic defaults.
//!
//! Everything is read-only: the node file is read at start, and no API changes it.

use std::collections::BTreeMap;

use crate::kind::{ConfigEntry, ConfigKind, ConfigSource, ConfigSynonym};
use crate::node::NodeConfig;
use crate::section::{Row, SettingDoc};
use crate::topic::TOPIC_KEYS;

/// Every broker-level name with its value, sorted by name.
///
/// A value counts as static when it differs from the default.
pub fn describe(node: &NodeConfig) -> Vec<ConfigEntry> {
    let defaults = values(&NodeConfig::default());
    let mut entries = BTreeMap::new();
    for (setting, name, kind) in kafka_settings() {
        // A broker without a rack has the key all the same.
        let value = values(node).remove(name).unwrap_or_default();
        let default = (!setting.required).then(|| defaults.get(name).cloned().unwrap_or_default());
        entries.insert(name, entry(name, kind, &setting.doc, value, default));
    }
    for (name, advertised) in [("listeners", false), ("advertised.listeners", true)] {
        let doc = if advertised {
            "Addresses given to clients."
        } else {
            "Addresses listened on."
        };
        let value = listeners(node, advertised);
        let default = listeners(&NodeConfig::default(), advertised);
        entries.insert(name, entry(name, ConfigKind::List, doc, value, Some(default)));
    }
    for key in TOPIC_KEYS {
        if let Some(name) = key.broker_key {
            let default = || {
                entry(
                    name,
                    key.kind,
                    key.doc,
                    key.default.to_owned(),
                    Some(key.default.to_owned()),
                )
            };
            entries.entry(name).or_insert_with(default);
        }
    }
    entries.into_values().collect()
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

fn entry(name: &str, kind: ConfigKind, doc: &str, value: String, default: Option<String>) -> ConfigEntry {
    let link = |value: &str, source| ConfigSynonym {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    };
    let mut synonyms = Vec::new();
    if default.as_ref() != Some(&value) {
        synonyms.push(link(&value, ConfigSource::StaticBroker));
    }
    synonyms.extend(default.iter().map(|default| link(default, ConfigSource::Default)));
    ConfigEntry {
        name: name.to_owned(),
        source: synonyms.first().map_or(ConfigSource::Default, |link| link.source),
        value: Some(value),
        read_only: true,
        sensitive: false,
        kind,
        documentation: doc.to_owned(),
        synonyms,
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
        let entries = describe(&node);
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
    }
}
