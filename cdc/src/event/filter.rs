//! Which events are written.

use std::collections::BTreeSet;

use bytes::Bytes;
use takhin_config::cdc::CdcFilters;
use takhin_pika::command;

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

    /// Why an event is left out; `None` if it is not. What changes several keys passes if one of them does, what concerns a whole
    /// database passes the filters of keys, and what is of the data set those of commands.
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
        if let Some(key) = &event.key
            && let Some(rule) = self.refuses_keys(key, event)
        {
            return Some(rule);
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

    /// Why no key that an event changes is wanted. One that is wanted is enough: masters before 3.5 move elements from key to key in
    /// one command.
    fn refuses_keys(&self, first: &[u8], event: &Event) -> Option<Rule> {
        let refuses = |key: &[u8]| {
            let is_one_of = |patterns: &[String]| {
                let mut patterns = patterns.iter();
                patterns.any(|pattern| glob::matches(pattern.as_bytes(), key))
            };
            if !self.keys.is_empty() && !is_one_of(&self.keys) {
                return Some(Rule::Keys);
            }
            is_one_of(&self.exclude_keys).then_some(Rule::ExcludeKeys)
        };
        let rule = refuses(first)?;
        let is_wanted = |key: &Bytes| refuses(key).is_none();
        let mut others = command::other_keys(&event.op, &event.args);
        (!event.has_more_keys || !others.any(is_wanted)).then_some(rule)
    }
}

#[cfg(test)]
mod tests {
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

    /// Masters before 3.5 write these as they are.
    #[test]
    fn of_several_keys_one_that_is_wanted_is_enough() {
        let wanted = CdcFilters {
            keys: vec!["user:*".into()],
            ..CdcFilters::default()
        };
        let unwanted = CdcFilters {
            exclude_keys: vec!["tmp:*".into()],
            ..CdcFilters::default()
        };
        for (command, by_keys, by_exclude) in [
            ("rpoplpush queue:1 user:2", None, None),
            ("rpoplpush tmp:1 user:2", None, None),
            ("rpoplpush user:2 tmp:1", None, None),
            ("rpoplpush tmp:1 tmp:2", Some(Rule::Keys), Some(Rule::ExcludeKeys)),
            ("smove tmp:a user:b m", None, None),
            // A member and values are no keys.
            (
                "smove tmp:a tmp:b user:m",
                Some(Rule::Keys),
                Some(Rule::ExcludeKeys),
            ),
            ("msetnx tmp:x 1 user:y 2", None, None),
            (
                "msetnx tmp:x user:1 tmp:y user:2",
                Some(Rule::Keys),
                Some(Rule::ExcludeKeys),
            ),
            // What is only read is not changed.
            (
                "sunionstore tmp:a user:b user:c",
                Some(Rule::Keys),
                Some(Rule::ExcludeKeys),
            ),
            (
                "bitop and tmp:a user:b",
                Some(Rule::Keys),
                Some(Rule::ExcludeKeys),
            ),
        ] {
            assert_eq!(refused(&wanted, command), by_keys, "{command}");
            assert_eq!(refused(&unwanted, command), by_exclude, "{command}");
        }
    }
}
