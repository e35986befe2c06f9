//! What DescribeConfigs says about a configuration value besides the value.

/// Type of a configuration value, as DescribeConfigs v3 numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// Floating point number.
    Double,
    /// Texts with commas between them.
    List,
}

impl ConfigKind {
    /// Number on the wire.
    pub fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }

    /// Name in Kafka's documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Int => "int",
            Self::Long => "long",
            Self::Double => "double",
            Self::List => "list",
        }
    }
}

/// Which level a value comes from, as DescribeConfigs v1 numbers them; the group's is of KIP-848.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on the broker while it runs.
    DynamicBroker,
    /// Set on all brokers while they run.
    DynamicDefaultBroker,
    /// Set in the broker's configuration.
    StaticBroker,
    /// Set nowhere.
    Default,
    /// Set on the group.
    Group,
}

impl ConfigSource {
    /// Number on the wire.
    pub fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
            Self::Group => 8,
        }
    }
}

/// One link of the chain that a value is looked up in, nearest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// Name at that level.
    pub name: String,
    /// Value at that level.
    pub value: String,
    /// The level.
    pub source: ConfigSource,
}

/// One line of a DescribeConfigs answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name.
    pub name: String,
    /// Effective value; `None` for a sensitive one.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether no Kafka API can change it.
    pub read_only: bool,
    /// Whether the value must not be shown.
    pub sensitive: bool,
    /// Type.
    pub kind: ConfigKind,
    /// What it does.
    pub documentation: String,
    /// The chain of levels that have a value, nearest first.
    pub synonyms: Vec<ConfigSynonym>,
}
