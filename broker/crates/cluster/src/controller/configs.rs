//! Changes of configurations: checked as a whole and committed as a whole, or not at all.

use takhin_config::alter::{Change, ChangeError};
use takhin_config::group::{self, GroupConfigFault};
use takhin_config::live::{self, BrokerConfigFault, Values};
use takhin_config::node::Durability;
use takhin_config::{TopicConfigError, broker_keys, topic};

use super::{Controller, TopicError};
use crate::metadata::{Image, MetadataRecord, is_internal};

/// Bytes that the configurations of single groups may take, names and values of all of them together. Nobody removes
/// them but who has set them, and each broker keeps them in memory.
const MAX_GROUP_CONFIG_BYTES: usize = 16 << 20;

/// Whose configuration is changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ConfigTarget {
    /// The topic of this name.
    Topic(String),
    /// The broker with this id, or without one all brokers.
    Broker(Option<i32>),
    /// The consumer group with this id; it need not exist.
    Group(String),
}

impl From<ChangeError> for TopicError {
    fn from(error: ChangeError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<TopicConfigError> for TopicError {
    fn from(error: TopicConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<GroupConfigFault> for TopicError {
    fn from(fault: GroupConfigFault) -> Self {
        Self::Config(fault.to_string())
    }
}

impl From<BrokerConfigFault> for TopicError {
    fn from(fault: BrokerConfigFault) -> Self {
        let message = fault.to_string();
        match fault {
            BrokerConfigFault::ReadOnly { .. } => Self::ReadOnlyConfig(message),
            BrokerConfigFault::Unknown { .. } | BrokerConfigFault::Value(_) => Self::Config(message),
        }
    }
}

impl Controller {
    /// Makes the change, or only finds out whether it can be made.
    pub(crate) async fn alter_config(
        &self,
        target: &ConfigTarget,
        change: &Change,
        validate_only: bool,
    ) -> Result<(), TopicError> {
        let _turn = self.turn.lock().await;
        match self.plan(&self.image(), target, change)? {
            Some(record) if !validate_only => self.commit_in_turn(&[record]).await.map(drop),
            _ => Ok(()),
        }
    }

    /// The record that makes the change; none if everything stays as it is.
    fn plan(
        &self,
        image: &Image,
        target: &ConfigTarget,
        change: &Change,
    ) -> Result<Option<MetadataRecord>, TopicError> {
        let node = &self.origin.settings.node;
        let dynamic = image.dynamic(self.origin.broker);
        match target {
            ConfigTarget::Topic(name) => {
                let topic = image.topic(name).ok_or(TopicError::Unknown)?;
                let overrides = change.apply(&topic.overrides, |key| topic::find(node, dynamic, key))?;
                let config = image.settings.topic_defaults.with_overrides(&overrides)?;
                if is_internal(name) && config.durability != Durability::Flushed {
                    let message = format!("{name} is an internal topic and always takhin.durability=flushed");
                    return Err(TopicError::Config(message));
                }
                let (id, changes) = (topic.id, overrides != topic.overrides);
                Ok(changes.then_some(MetadataRecord::TopicConfigs { id, overrides }))
            }
            ConfigTarget::Broker(broker) => {
                let none = Values::new();
                let before = image.broker_configs.get(broker).unwrap_or(&none);
                let values = change.apply(before, |key| broker_keys::find(node, dynamic, key))?;
                // What was set earlier was checked then.
                for name in change.names() {
                    if let Some(value) = values.get(name) {
                        live::check(name, value)?;
                    }
                }
                let (broker, changes) = (*broker, values != *before);
                Ok(changes.then_some(MetadataRecord::BrokerConfigs { broker, values }))
            }
            ConfigTarget::Group(group) => {
                let none = Values::new();
                let before = image.group_configs.get(group).unwrap_or(&none);
                let values = change.apply(before, |key| group::find(node, dynamic, key))?;
                group::check(&image.settings.node.kafka.groups, &values)?;
                if values == *before {
                    return Ok(None);
                }
                check_room(image, group, &values)?;
                let group = group.clone();
                Ok(Some(MetadataRecord::GroupConfigs { group, values }))
            }
        }
    }
}

/// Whether there is room for the configuration of a group. One that only gets less has it.
fn check_room(image: &Image, group: &str, values: &Values) -> Result<(), TopicError> {
    let size = |(group, values): (&String, &Values)| group.len() + bytes(values);
    let others = image.group_configs.iter().filter(|(other, _)| *other != group);
    let all = others.map(size).sum::<usize>() + group.len() + bytes(values);
    let before = image.group_configs.get(group).map_or(0, bytes);
    if all > MAX_GROUP_CONFIG_BYTES && bytes(values) > before {
        let message =
            format!("the configurations of groups would take more than {MAX_GROUP_CONFIG_BYTES} bytes");
        return Err(TopicError::Config(message));
    }
    Ok(())
}

fn bytes(values: &Values) -> usize {
    values.iter().map(|(name, value)| name.len() + value.len()).sum()
}
