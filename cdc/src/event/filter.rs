//! Which events are written.

use std::collections::BTreeSet;

use takhin_config::cdc::CdcFilters;

use super::{Event, Kind, glob};

/// Why an event is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Its type.
    Types,
    /// Its key is none of those wanted.
    Keys,
    /// Its key is one of those not wanted.
    ExcludeKeys,
    /// Its command is none of those wanted.
    Commands,
    /// Its command is one of those not wanted.
    ExcludeCommands,
}

impl Rule {
    /// The setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::Types => "types",
            Self::Keys => "keys",
            Self::ExcludeKeys => "exclude_keys",
            Self::Commands => "commands",
            Self::ExcludeCommands => "exclude_commands",
        }
    }
}

/// The settings, ready for use.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    databases: Vec<String>,
    types: Vec<&'static str>,
    keys: Vec<String>,
    exclude_keys: Vec<String>,
    commands: BTreeSet<String>,
    exclude_commands: BTreeSet<String>,
}

impl Filter {
    /// The filter of these settings.
    pub fn new(settings: &CdcFilters) -> Self {
        let lower = |words: &[String]| words.iter().map(|word| word.to_ascii_lowercase()).collect();
        Self {
            databases: settings.databases.clone(),
            types: settings
                .types
                .iter()
                .map(|data_type| data_type.as_str())
                .collect(),
            keys: settings.keys.clone(),
            exclude_keys: settings.exclude_keys.clone(),
            commands: lower(&settings.commands),
            exclude_commands: lower(&settings.exclude_commands),
        }
    }

    /// Databases that are to be followed; all if there are none.
    pub fn databases(&self) -> &[String] {
        &self.databases
    }

    /// Why an event is left out; `None` if it is not. What concerns a whole database passes the filters of keys, and what
    /// is of the data set those of commands.
    pub fn refuses(&self, event: &Event) -> Option<Rule> {
        if event.kind == Kind::Control {
            return None;
        }
        if let Some(data_type) = event.data_type
            && !self.types.is_empty()
            && !self.types.contains(&data_type.name())
        {
            return Some(Rule::Types);
        }
        if let Some(key) = &event.key {
            let is_one_of = |patterns: &[String]| {
                patterns
                    .iter()
                    .any(|pattern| glob::matches(pattern.as_bytes(), key))
            };
            if !self.keys.is_empty() && !is_one_of(&self.keys) {
                return Some(Rule::Keys);
            }
            if is_one_of(&self.exclude_keys) {
                return Some(Rule::ExcludeKeys);
            }
        }
        if event.kind == Kind::Binlog {
            if !self.commands.is_empty() && !self.commands.contains(&*event.op) {
                return Some(Rule::Commands);
            }
            if self.exclude_commands.contains(&*event.op) {
                return Some(Rule::ExcludeCommands);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use takhin_config::cdc::DataTypeName;
    use takhin_pika::binlog::Item;
    use takhin_pika::{Position, resp};

    use super::super::{Source, put_events};
    use super::*;

    fn refused(settings: &CdcFilters, command: &str) -> Option<Rule> {
        let mut content = Vec::new();
        resp::put_command(&mut content, &command.split(' ').collect::<Vec<_>>());
        let item = Item {
            exec_time: 1,
            origin: 0,
            logic_id: 1,
            start: Position::default(),
            content: Bytes::from(content),
        };
        let source = Source {
            id: "s".into(),
            host: "h".into(),
            port: 1,
            version: "4".into(),
            replication_id: String::new(),
        };
        let mut events = Vec::new();
        let of = (0, Position::new(0, 9), 0);
        put_events(&source, &"db0".into(), &item, of, &mut events).unwrap();
        Filter::new(settings).refuses(&events[0])
    }

    #[test]
    fn what_no_rule_names_passes() {
        let settings = CdcFilters {
            types: vec![DataTypeName::String],
            keys: vec!["user:*".into()],
            exclude_keys: vec!["user:tmp:*".into()],
            exclude_commands: vec!["APPEND".into()],
            ..CdcFilters::default()
        };
        assert_eq!(refused(&settings, "set user:1 v"), None);
        assert_eq!(refused(&settings, "sadd user:1 v"), Some(Rule::Types));
        assert_eq!(refused(&settings, "set order:1 v"), Some(Rule::Keys));
        assert_eq!(refused(&settings, "set user:tmp:1 v"), Some(Rule::ExcludeKeys));
        assert_eq!(refused(&settings, "append user:1 v"), Some(Rule::ExcludeCommands));
        // Whatever the types, or the keys.
        assert_eq!(refused(&settings, "del user:1"), None);
        assert_eq!(refused(&settings, "flushdb"), None);
        let only = CdcFilters {
            commands: vec!["del".into()],
            ..CdcFilters::default()
        };
        assert_eq!(refused(&only, "set a b"), Some(Rule::Commands));
        assert_eq!(refused(&only, "DEL a"), None);
    }
}
