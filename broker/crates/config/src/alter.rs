//! Changes of a resource's own settings, as AlterConfigs (KIP-133) and IncrementalAlterConfigs (KIP-339) mean them.

use std::collections::BTreeSet;

use crate::kind::ConfigKind;
use crate::live::Values;

/// What happens to one setting.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Operation {
    /// It gets this value.
    Set(String),
    /// It falls back to the default.
    Delete,
    /// These items, with commas between them, are added to the list unless they are in it.
    Append(String),
    /// These items, with commas between them, are taken out of the list where they are in it.
    Subtract(String),
}

/// What happens to the settings of one resource.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// These take the place of all that were set.
    Replace(Values),
    /// Each named setting is changed, all others stay.
    Edit(Vec<(String, Operation)>),
}

/// Why a change has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// A list operation on something else.
    #[error("Can't {operation} to key {key} because its type is not LIST.")]
    NotAList {
        /// The setting.
        key: String,
        /// `APPEND` or `SUBTRACT`.
        operation: &'static str,
    },
}

impl Change {
    /// Names of the settings that the change names.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Replace(values) => values.keys().map(String::as_str).collect(),
            Self::Edit(edits) => edits.iter().map(|(name, _)| name.as_str()).collect(),
        }
    }

    /// The settings after the change of a resource that has `own` ones. `inherited` knows type and value of a setting
    /// that the resource has not set: what a list operation begins with.
    ///
    /// # Errors
    /// [`ChangeError`]; values are not looked at.
    pub fn apply(
        &self,
        own: &Values,
        inherited: impl Fn(&str) -> Option<(ConfigKind, String)>,
    ) -> Result<Values, ChangeError> {
        let edits = match self {
            Self::Replace(values) => return Ok(values.clone()),
            Self::Edit(edits) => edits,
        };
        let mut values = own.clone();
        for (name, operation) in edits {
            let list = |named| match inherited(name) {
                Some((ConfigKind::List, default)) => Ok(values.get(name).cloned().unwrap_or(default)),
                _ => Err(ChangeError::NotAList {
                    key: name.clone(),
                    operation: named,
                }),
            };
            let value = match operation {
                Operation::Set(value) => value.clone(),
                Operation::Delete => {
                    values.remove(name);
                    continue;
                }
                Operation::Append(items) => append(&list("APPEND")?, items),
                Operation::Subtract(items) => subtract(&list("SUBTRACT")?, items),
            };
            values.insert(name.clone(), value);
        }
        Ok(values)
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn append(list: &str, more: &str) -> String {
    let mut seen = BTreeSet::new();
    let all = items(list).chain(items(more));
    all.filter(|item| seen.insert(*item))
        .collect::<Vec<_>>()
        .join(",")
}

fn subtract(list: &str, gone: &str) -> String {
    let gone: BTreeSet<&str> = items(gone).collect();
    items(list)
        .filter(|item| !gone.contains(item))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn edit(own: &[(&str, &str)], edits: &[(&str, Operation)]) -> Result<Values, ChangeError> {
        let edits = edits
            .iter()
            .map(|(name, operation)| ((*name).to_owned(), operation.clone()));
        let inherited = |name: &str| match name {
            "policy" => Some((ConfigKind::List, "delete".to_owned())),
            "size" => Some((ConfigKind::Int, "7".to_owned())),
            _ => None,
        };
        Change::Edit(edits.collect()).apply(&values(own), inherited)
    }

    #[test]
    fn edits_touch_what_they_name_and_replacement_leaves_nothing_else() {
        let own = [("size", "1"), ("other", "x")];
        let set = edit(&own, &[("size", Operation::Set("2".into()))]).unwrap();
        assert_eq!(set, values(&[("size", "2"), ("other", "x")]));
        let deleted = edit(
            &own,
            &[("size", Operation::Delete), ("absent", Operation::Delete)],
        )
        .unwrap();
        assert_eq!(deleted, values(&[("other", "x")]));
        let replaced = Change::Replace(values(&[("size", "3")])).apply(&values(&own), |_| None);
        assert_eq!(replaced.unwrap(), values(&[("size", "3")]));
    }

    #[test]
    fn lists_begin_with_what_is_in_force() {
        let of =
            |own: &[(&str, &str)], operation| edit(own, &[("policy", operation)]).unwrap()["policy"].clone();
        let append = |items: &str| Operation::Append(items.into());
        let subtract = |items: &str| Operation::Subtract(items.into());
        assert_eq!(of(&[], append("compact")), "delete,compact");
        assert_eq!(
            of(&[], append("delete,compact, compact")),
            "delete,compact",
            "no item twice"
        );
        assert_eq!(of(&[("policy", "compact")], append("delete")), "compact,delete");
        assert_eq!(
            of(&[("policy", "delete,compact")], subtract("delete,absent")),
            "compact"
        );
        assert_eq!(of(&[], subtract("delete")), "");
    }

    #[test]
    fn list_operations_are_for_lists() {
        for (name, operation, word) in [
            ("size", Operation::Append("1".into()), "APPEND"),
            ("size", Operation::Subtract("1".into()), "SUBTRACT"),
            ("nonsense", Operation::Append("1".into()), "APPEND"),
        ] {
            let error = edit(&[], &[(name, operation)]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("Can't {word} to key {name} because its type is not LIST.")
            );
        }
    }
}
