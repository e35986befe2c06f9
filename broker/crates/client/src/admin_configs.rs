//! Settings of topics and brokers: asked for and changed, many resources with one request (KIP-133, KIP-339).

use std::collections::BTreeMap;

use takhin_protocol::messages::describe_configs_request::DescribeConfigsResource;
use takhin_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use takhin_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::admin_batch::{Outcomes, Refusal, text};
use crate::client::Client;
use crate::error::ClientError;

/// Kafka's code for a topic's settings.
const TOPIC: i8 = 2;

/// Kafka's code for brokers' settings; without a name those of all brokers.
const BROKER: i8 = 4;

/// Kafka's codes for what happens to a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Where the settings of a resource are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic's.
    Topic(String),
    /// Those that all brokers were told while they ran.
    AllBrokers,
}

impl ConfigResource {
    fn code(&self) -> i8 {
        match self {
            Self::Topic(_) => TOPIC,
            Self::AllBrokers => BROKER,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Topic(name) => name,
            Self::AllBrokers => "",
        }
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigValue {
    /// The value in force; `None` if it is secret.
    pub value: Option<String>,
    /// Whether the resource itself has it; otherwise it comes from elsewhere.
    pub is_own: bool,
}

/// Settings by name.
pub type Configs = BTreeMap<String, ConfigValue>;

/// A setting and the value that it is to have; without one it falls back to the default.
pub type ConfigChange = (String, Option<String>);

/// Kafka's codes for settings that a topic, and all brokers together, have themselves.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_ALL_BROKERS: i8 = 3;

impl Client {
    /// Settings of each resource, or why they are not told, in any order: those of these names, or all with `None`.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn describe_configs(
        &self,
        resources: &[(ConfigResource, Option<Vec<String>>)],
    ) -> Result<Vec<(String, Result<Configs, Refusal>)>, ClientError> {
        let wanted = resources.iter().map(|(resource, names)| {
            let names = names.as_ref();
            DescribeConfigsResource::default()
                .with_resource_type(resource.code())
                .with_resource_name(text(resource.name()))
                .with_configuration_keys(names.map(|names| names.iter().map(|name| text(name)).collect()))
        });
        let request = DescribeConfigsRequest::default().with_resources(wanted.collect());
        let response = self.on_any(&request).await?;
        let results = response.results.into_iter().map(|result| {
            let name = result.resource_name.to_string();
            let checked = Refusal::check(result.error_code, result.error_message.as_ref());
            let configs = || {
                let one = result.configs.iter().map(|config| {
                    let value = config.value.as_ref().map(|value| value.to_string());
                    let is_own = matches!(config.config_source, SOURCE_TOPIC | SOURCE_ALL_BROKERS);
                    (config.name.to_string(), ConfigValue { value, is_own })
                });
                one.collect()
            };
            (name, checked.map(|()| configs()))
        });
        Ok(results.collect())
    }

    /// Sets settings, or takes back those without a value. Settings that are not named stay.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn alter_configs(
        &self,
        changes: &[(ConfigResource, Vec<ConfigChange>)],
    ) -> Result<Outcomes, ClientError> {
        let resources = changes.iter().map(|(resource, settings)| {
            let change = |(name, value): &ConfigChange| {
                AlterableConfig::default()
                    .with_name(text(name))
                    .with_config_operation(if value.is_some() { SET } else { DELETE })
                    .with_value(value.as_deref().map(text))
            };
            AlterConfigsResource::default()
                .with_resource_type(resource.code())
                .with_resource_name(text(resource.name()))
                .with_configs(settings.iter().map(change).collect())
        });
        let request = IncrementalAlterConfigsRequest::default().with_resources(resources.collect());
        let response = self.on_any(&request).await?;
        let outcome = response.responses.iter().map(|result| {
            let checked = Refusal::check(result.error_code, result.error_message.as_ref());
            (result.resource_name.to_string(), checked)
        });
        Ok(outcome.collect())
    }
}
