//! Texts at paths: what file, environment and command line have in common, and how one overrides another.

use std::collections::BTreeMap;
use std::fmt;

use serde_norway::Value;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file of this name.
    File(String),
    /// This environment variable.
    Env(String),
    /// A `--set` on the command line.
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) => f.write_str(name),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Set => f.write_str("--set"),
        }
    }
}

/// What was written at one path. A mapping remembers nothing but its children.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// A single value.
    Text { text: String, origin: Origin },
    /// A sequence.
    List { items: Vec<Node>, origin: Origin },
    /// A mapping.
    Map {
        children: BTreeMap<String, Node>,
        origin: Origin,
    },
}

/// Levels of nesting that a document may have; the deepest setting has four.
const MAX_DEPTH: usize = 16;

impl Node {
    pub(crate) fn empty(origin: Origin) -> Self {
        Self::Map {
            children: BTreeMap::new(),
            origin,
        }
    }

    pub(crate) fn origin(&self) -> &Origin {
        match self {
            Self::Text { origin, .. } | Self::List { origin, .. } | Self::Map { origin, .. } => origin,
        }
    }

    /// A YAML value as a node; `Ok(None)` for null, which says nothing about a setting.
    pub(crate) fn from_yaml(value: Value, origin: &Origin, depth: usize) -> Result<Option<Self>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} levels deep"));
        }
        let text = |text: String| {
            Ok(Some(Self::Text {
                text,
                origin: origin.clone(),
            }))
        };
        match value {
            Value::Null => Ok(None),
            Value::Bool(b) => text(b.to_string()),
            Value::Number(n) => text(n.to_string()),
            Value::String(s) => text(s),
            Value::Sequence(values) => {
                let mut items = Vec::with_capacity(values.len());
                for value in values {
                    items.extend(Self::from_yaml(value, origin, depth + 1)?);
                }
                Ok(Some(Self::List {
                    items,
                    origin: origin.clone(),
                }))
            }
            Value::Mapping(mapping) => {
                let mut children = BTreeMap::new();
                for (key, value) in mapping {
                    let Value::String(key) = key else {
                        return Err("a key that is not a word; keys are setting names".to_owned());
                    };
                    if let Some(node) = Self::from_yaml(value, origin, depth + 1)? {
                        children.insert(key, node);
                    }
                }
                Ok(Some(Self::Map {
                    children,
                    origin: origin.clone(),
                }))
            }
            Value::Tagged(tagged) => Err(format!("the tag {}; tags mean nothing here", tagged.tag)),
        }
    }

    /// The value of an environment variable or of `--set`: YAML when it stands in brackets or
    /// braces, else plain text.
    pub(crate) fn from_text(text: &str, origin: &Origin) -> Result<Self, String> {
        // `[::1]:9092` is an address, not a list.
        if text.starts_with(['[', '{']) && text.ends_with([']', '}']) {
            let value =
                serde_norway::from_str(text).map_err(|error| format!("not a list or mapping: {error}"))?;
            return Ok(Self::from_yaml(value, origin, 0)?.unwrap_or_else(|| Self::empty(origin.clone())));
        }
        Ok(Self::Text {
            text: text.to_owned(),
            origin: origin.clone(),
        })
    }

    /// Lays `over` on top: mappings merge key by key, everything else is replaced.
    pub(crate) fn merge(&mut self, over: Self) {
        match (self, over) {
            (Self::Map { children, .. }, Self::Map { children: over, .. }) => {
                for (key, node) in over {
                    match children.get_mut(&key) {
                        Some(below) => below.merge(node),
                        None => {
                            children.insert(key, node);
                        }
                    }
                }
            }
            (below, over) => *below = over,
        }
    }

    /// Puts `value` at `path`; a number addresses an element of a list, the first free one included.
    pub(crate) fn set(&mut self, path: &[&str], value: Self) -> Result<(), String> {
        let Some((first, rest)) = path.split_first() else {
            self.merge(value);
            return Ok(());
        };
        let origin = value.origin().clone();
        let index = first.parse::<usize>().ok();
        match self {
            Self::List { items, .. } => match index {
                Some(index) if index < items.len() => items[index].set(rest, value),
                Some(index) if index == items.len() => {
                    let mut item = Self::empty(origin);
                    item.set(rest, value)?;
                    items.push(item);
                    Ok(())
                }
                _ => Err(format!("{first} is not an element of a list of {}", items.len())),
            },
            // Setting names are words: a number means that a list begins here.
            Self::Map { children, .. } if index.is_some() && children.is_empty() => {
                *self = Self::List {
                    items: Vec::new(),
                    origin,
                };
                self.set(path, value)
            }
            Self::Map { children, .. } => children
                .entry((*first).to_owned())
                .or_insert_with(|| Self::empty(origin))
                .set(rest, value),
            Self::Text { .. } => {
                *self = Self::empty(origin);
                self.set(path, value)
            }
        }
    }
}
