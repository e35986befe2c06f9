//! Changes of configurations: checked as a whole and committed as a whole, or not at all.

use takhin_config::alter::{Change, ChangeError};
use takhin_config::live::{self, BrokerConfigFault, Values};
use takhin_config::node::Durability;
use takhin_config::{TopicConfigError, broker_keys, topic};

use super::{Controller, TopicError};
use crate::metadata::{Image, MetadataRecord, is_internal};

/// Whose configuration is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigTarget {
    /// The topic of this name.
    Topic(String),
    /// The broker with this id, or without one all brokers.
    Broker(Option<i32>),
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
        }
    }
}
