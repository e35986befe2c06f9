//! One topic: what has to be done so that it is as its resource says, and what is to be said of it.

use std::collections::BTreeMap;

use kube::Resource as _;
use takhin_client::{Configs, TopicDescription, TopicToCreate};

use super::placement::{Racks, with_factor};
use crate::api::{Topic, TopicSpec};

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The topic; `None` if there is none.
    pub topic: Option<&'a TopicDescription>,
    /// Its settings, at least those that the resource manages or managed; `None` if they were not asked for.
    pub configs: Option<&'a Configs>,
    /// Partitions of it whose replicas are being moved.
    pub moving: usize,
    /// Brokers that may have replicas.
    pub brokers: &'a Racks,
}

/// What is to be done. At most one of creating and the rest is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Todo {
    /// The topic is to be made.
    pub create: Option<TopicToCreate>,
    /// It is to have this many partitions.
    pub grow: Option<i32>,
    /// These settings are to be set, or taken back if they have no value.
    pub configs: Vec<(String, Option<String>)>,
    /// These partitions are to have their replicas there.
    pub moves: Vec<(i32, Vec<i32>)>,
    /// What is wrong and cannot be done: reason and message.
    pub problem: Option<(&'static str, String)>,
}

impl Todo {
    /// Whether nothing is to be done.
    pub fn is_nothing(&self) -> bool {
        self.create.is_none() && self.grow.is_none() && self.configs.is_empty() && self.moves.is_empty()
    }
}

/// The settings that are to be asked for: what the resource has and had.
pub fn managed_keys(spec: &TopicSpec, before: &BTreeMap<String, String>) -> Vec<String> {
    let mut keys: Vec<String> = spec.config.keys().chain(before.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Decides. `name` is the topic's, `before` the settings that were managed until now.
pub fn decide(name: &str, spec: &TopicSpec, before: &BTreeMap<String, String>, found: Found<'_>) -> Todo {
    let mut todo = Todo::default();
    let wished_factor = spec
        .replication_factor
        .and_then(|factor| usize::try_from(factor).ok());
    if let Some(factor) = wished_factor.filter(|factor| *factor > found.brokers.len()) {
        let message = format!(
            "spec.replicationFactor is {factor}, and the cluster has {} brokers in service: lower it or add brokers",
            found.brokers.len()
        );
        todo.problem = Some(("InvalidReplicationFactor", message));
    }
    let Some(topic) = found.topic else {
        if todo.problem.is_none() {
            todo.create = Some(creation(name, spec));
        }
        return todo;
    };
    let has = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    match spec.partitions {
        Some(wished) if wished > has => todo.grow = Some(wished),
        Some(wished) if wished < has => {
            let message = format!(
                "spec.partitions is {wished}, and the topic has {has}: partitions cannot be removed; set it to {has} or more, or make another topic"
            );
            todo.problem = Some(("PartitionDecreaseNotSupported", message));
        }
        _ => {}
    }
    if let Some(configs) = found.configs {
        todo.configs = config_changes(spec, before, configs);
    }
    if let Some(factor) = wished_factor
        && found.moving == 0
        && factor <= found.brokers.len()
    {
        todo.moves = with_factor(&topic.partitions, factor, found.brokers).unwrap_or_default();
    }
    todo
}

fn creation(name: &str, spec: &TopicSpec) -> TopicToCreate {
    TopicToCreate {
        name: name.to_owned(),
        partitions: spec.partitions,
        replication_factor: spec
            .replication_factor
            .and_then(|factor| i16::try_from(factor).ok()),
        configs: spec.config.clone().into_iter().collect(),
    }
}

/// Settings that differ, and those that are managed no longer.
fn config_changes(
    spec: &TopicSpec,
    before: &BTreeMap<String, String>,
    configs: &Configs,
) -> Vec<(String, Option<String>)> {
    let differs = |(name, value): &(&String, &String)| {
        let found = configs.get(*name);
        // A value that only looks the same is a default, which may change under the topic.
        !found.is_some_and(|found| found.is_own && found.value.as_deref() == Some(value.as_str()))
    };
    let mut changes: Vec<_> = spec
        .config
        .iter()
        .filter(differs)
        .map(|(name, value)| (name.clone(), Some(value.clone())))
        .collect();
    let dropped = before.keys().filter(|name| !spec.config.contains_key(*name));
    let dropped = dropped.filter(|name| configs.get(*name).is_some_and(|found| found.is_own));
    changes.extend(dropped.map(|name| (name.clone(), None)));
    changes
}

/// The replicas that the partitions of a topic have; the smallest number where they differ.
pub fn replication_factor(topic: &TopicDescription) -> Option<i32> {
    let least = topic
        .partitions
        .iter()
        .map(|partition| partition.replicas.len())
        .min()?;
    i32::try_from(least).ok()
}

/// Kafka's notation of a topic id: the 22 characters of base64 without padding, `-` and `_` for `+` and `/`.
pub fn topic_id(id: &[u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(22);
    for chunk in id.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) & 63]));
        }
    }
    text
}

/// Who of several resources has a topic: the oldest; of those made in the same second the one that has it already, as its
/// status says; then the one with the smaller UID.
pub fn owner<'a>(claims: impl Iterator<Item = &'a Topic>) -> Option<&'a Topic> {
    claims.min_by_key(|claim| {
        let meta = claim.meta();
        let has_it = claim
            .status
            .as_ref()
            .is_some_and(|status| status.topic_id.is_some());
        (
            meta.creation_timestamp.as_ref().map(|time| time.0),
            !has_it,
            meta.uid.clone().unwrap_or_default(),
        )
    })
}

#[cfg(test)]
mod tests;
