//! From file, environment and command line to a checked configuration, or to every fault in them at once.

use std::collections::BTreeMap;
use std::fmt;

use crate::node::NodeConfig;
use crate::section::{Effective, Fault, Reader, Row, Rules, Setting};
use crate::tree::{Node, Origin};
use crate::validate::validate;

/// Environment variables with this prefix are settings: `TAKHIN__KAFKA__NUM_PARTITIONS`.
pub const ENV_PREFIX: &str = "TAKHIN__";

/// What a configuration is read from; later fields override earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Values instead of the built-in defaults, as `section.key` and text.
    pub defaults: Vec<(String, String)>,
    /// Whether this broker is its cluster's only seed unless somebody names another.
    pub alone: bool,
    /// Name and text of the configuration file, in YAML.
    pub file: Option<(String, String)>,
    /// The environment; only names with [`ENV_PREFIX`] are looked at.
    pub env: BTreeMap<String, String>,
    /// Texts of the form `section.key=value`, in order.
    pub set: Vec<String>,
}

impl Sources {
    /// Sources for one broker that needs no file: number 1, its own and only seed, data in `data_dir`.
    pub fn dev(data_dir: &str) -> Self {
        let defaults = [
            ("node.id", "1"),
            ("node.data_dir", data_dir),
            ("cluster.name", "dev"),
        ];
        let defaults = defaults
            .map(|(path, text)| (path.to_owned(), text.to_owned()))
            .to_vec();
        Self {
            defaults,
            alone: true,
            ..Self::default()
        }
    }
}

/// A checked configuration and where each of its values comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: NodeConfig,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Whether somebody has set this value.
    pub fn is_set(&self, path: &str) -> bool {
        self.origins
            .get(path)
            .is_some_and(|origin| *origin != Origin::Default)
    }

    /// Every value with its origin, in the order of the reference.
    pub fn values(&self) -> Vec<(Effective, Origin)> {
        let origin = |path: &str| self.origins.get(path).cloned().unwrap_or(Origin::Default);
        self.config
            .effective()
            .into_iter()
            .map(|value| (value.clone(), origin(&value.path)))
            .collect()
    }

    /// Where the value at a dotted path comes from; `None` for a path without a value of its own.
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.origins.get(path)
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The faults, in order of the sources.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

const SEEDS: &str = "cluster.seeds";

/// Reads and checks a configuration.
///
/// # Errors
/// All faults of all sources: unknown settings, values of the wrong type or out of range, missing required
/// values, values that do not go together.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut reader = Reader::default();
    let tree = merge(sources, &mut reader);
    let mut config = NodeConfig::default().read("", Some(&tree), &Rules::new(""), &mut reader);
    if sources.alone && !reader.is_set(SEEDS) {
        config.cluster.seeds = vec![config.rpc.configured()];
        reader.faults.retain(|fault| fault.path != SEEDS);
    }
    validate(&config, &mut reader);
    if reader.faults.is_empty() {
        Ok(Loaded {
            config,
            origins: reader.origins,
        })
    } else {
        Err(ConfigError {
            faults: reader.faults,
        })
    }
}

/// Lays the sources over one another.
pub(crate) fn merge(sources: &Sources, reader: &mut Reader) -> Node {
    let mut tree = Node::empty(Origin::Default);
    for (path, text) in &sources.defaults {
        put(&mut tree, path.split('.'), text, &Origin::Default, reader);
    }
    if let Some((name, text)) = &sources.file {
        let origin = Origin::File(name.clone());
        match serde_norway::from_str(text) {
            Ok(value) => match Node::from_yaml(value, &origin, 0) {
                Ok(Some(node @ Node::Map { .. })) => tree.merge(node),
                Ok(None) => {}
                Ok(Some(_)) => reader.fault(
                    "",
                    &origin,
                    "holds no sections, as in `node: { id: 1 }`".to_owned(),
                ),
                Err(message) => reader.fault("", &origin, format!("holds {message}")),
            },
            Err(error) => reader.fault("", &origin, format!("is not YAML: {error}")),
        }
    }
    for (name, text) in sources
        .env
        .iter()
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
    {
        let path = name[ENV_PREFIX.len()..].to_ascii_lowercase();
        put(
            &mut tree,
            path.split("__"),
            text,
            &Origin::Env(name.clone()),
            reader,
        );
    }
    for set in &sources.set {
        match set.split_once('=') {
            Some((path, text)) => put(&mut tree, path.trim().split('.'), text, &Origin::Set, reader),
            None => reader.fault(
                "",
                &Origin::Set,
                format!("{set:?} is not of the form section.key=value"),
            ),
        }
    }
    tree
}

fn put<'a>(
    tree: &mut Node,
    path: impl Iterator<Item = &'a str>,
    text: &str,
    origin: &Origin,
    reader: &mut Reader,
) {
    let path: Vec<&str> = path.collect();
    let done = Node::from_text(text, origin).and_then(|node| tree.set(&path, node));
    if let Err(message) = done {
        reader.fault(&path.join("."), origin, message);
    }
}

impl NodeConfig {
    /// The rows of the reference: every section and setting, in order.
    pub fn rows() -> Vec<Row> {
        let mut rows = Vec::new();
        Self::default().describe("", &Rules::new(""), &mut rows);
        rows
    }

    /// Every value, in the order of the reference.
    pub fn effective(&self) -> Vec<Effective> {
        let mut values = Vec::new();
        Setting::effective(self, "", &mut values);
        values
    }
}
