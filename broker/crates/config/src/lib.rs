//! Every setting of Takhin, each declared once.
//!
//! - [`node`]: the node file, [`NodeConfig`]; [`load`](load()) reads it from file, environment and command line.
//! - [`topic`]: the settings of a topic, [`TopicConfig`], under Kafka's names.
//! - [`group`]: the settings of a single consumer group.
//! - [`broker_keys`]: what DescribeConfigs shows of a broker.
//! - [`live`]: settings as they are in force, with what brokers were told since the start.
//! - [`alter`]: what a change makes of the settings of a topic or broker.
//! - [`cdc`]: the file of `takhin-cdc`, [`CdcConfig`].
//! - [`docs`]: the reference pages, written from the same tables.
//! - [`yaml`]: reading and writing YAML.
//!
//! The crate does no I/O: whoever calls brings the text of the file and the environment. It knows what a value
//! may be, not what it is used for.
//!
//! ```
//! use takhin_config::{Sources, load};
//!
//! let mut sources = Sources::dev("data");
//! sources.set.push("kafka.listners=[]".to_owned());
//! let error = load(&sources).unwrap_err();
//! assert_eq!(error.to_string(), "--set: unknown setting kafka.listners: did you mean kafka.listeners?");
//! ```

#![forbid(unsafe_code)]

pub mod alter;
pub mod broker_keys;
pub mod cdc;
pub mod docs;
pub mod group;
pub mod kind;
pub mod live;
pub mod load;
mod nearest;
pub mod node;
mod scalar;
mod section;
mod throttled;
pub mod topic;
mod topic_keys;
mod tree;
pub mod units;
mod validate;
pub mod yaml;

pub use cdc::{CdcConfig, load_cdc};
pub use kind::{ConfigEntry, ConfigKind, ConfigSource, ConfigSynonym};
pub use load::{ConfigError, Loaded, Sources, load};
pub use node::NodeConfig;
pub use section::{Effective, Fault, Row, SettingDoc};
pub use topic::{TopicConfig, TopicConfigError};
pub use tree::Origin;
pub use units::{ByteSize, HostPort, HttpUrl, Limit};
