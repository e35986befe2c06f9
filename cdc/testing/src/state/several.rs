//! Commands that read or write several keys, as masters before 3.5 have them in their binlog.

use std::collections::{BTreeMap, BTreeSet};

use super::value::Value;
use super::{State, Word, hyperloglog, number, set, string, zset};

impl State {
    fn value(&self, db: &str, key: &Word, data_type: &str) -> Value {
        let name = (db.to_owned(), key.clone(), data_type.to_owned());
        let found = self.values.get(&name);
        found.map_or_else(|| Value::of(data_type), |(value, _)| value.clone())
    }

    fn string(&self, db: &str, key: &Word) -> Word {
        match self.value(db, key, "string") {
            Value::String(text) => text,
            other => panic!("{other:?}"),
        }
    }

    fn list(&self, db: &str, key: &Word) -> Vec<Word> {
        match self.value(db, key, "list") {
            Value::List(list) => list,
            other => panic!("{other:?}"),
        }
    }

    fn set(&self, db: &str, key: &Word) -> BTreeSet<Word> {
        match self.value(db, key, "set") {
            Value::Set(members) => members,
            other => panic!("{other:?}"),
        }
    }

    fn zset(&self, db: &str, key: &Word) -> BTreeMap<Word, f64> {
        match self.value(db, key, "zset") {
            Value::Zset(members) => members,
            other => panic!("{other:?}"),
        }
    }

    /// Puts a value in place of the old one of its type. What was changed keeps its expiry, what was made has none.
    fn put(&mut self, db: &str, key: &Word, value: Value, is_made: bool) {
        let data_type = match value {
            Value::String(_) => "string",
            Value::Hash(_) => "hash",
            Value::List(_) => "list",
            Value::Set(_) => "set",
            Value::Zset(_) => "zset",
            Value::Stream(_) => "stream",
        };
        let name = (db.to_owned(), key.clone(), data_type.to_owned());
        let before = self.values.remove(&name);
        if !value.is_empty() {
            let expiry = before.and_then(|(_, expiry)| expiry).filter(|_| !is_made);
            self.values.insert(name, (value, expiry));
        }
    }

    /// Executes a command of several keys; `false` if it is none.
    pub(super) fn apply_to_several(&mut self, db: &str, op: &str, args: &[Word]) -> bool {
        match op {
            "msetnx" => {
                let name = |pair: &[Word]| (db.to_owned(), pair[0].clone(), "string".to_owned());
                if !args.chunks(2).any(|pair| self.values.contains_key(&name(pair))) {
                    for pair in args.chunks(2) {
                        self.put(db, &pair[0], Value::String(pair[1].clone()), true);
                    }
                }
            }
            "bitop" => {
                let sources: Vec<Word> = args[2..].iter().map(|key| self.string(db, key)).collect();
                let value = string::bit_operation(&args[0], &sources);
                self.put(db, &args[1], Value::String(value), true);
            }
            "pfmerge" => {
                let all: Vec<Word> = args.iter().map(|key| self.string(db, key)).collect();
                let merged = hyperloglog::merge(&all);
                self.put(db, &args[0], Value::String(merged), true);
            }
            "rpoplpush" => {
                let mut from = self.list(db, &args[0]);
                if let Some(word) = from.pop() {
                    self.put(db, &args[0], Value::List(from), false);
                    let mut to = self.list(db, &args[1]);
                    to.insert(0, word);
                    self.put(db, &args[1], Value::List(to), false);
                }
            }
            "smove" => {
                let mut from = self.set(db, &args[0]);
                if from.remove(&args[2]) {
                    self.put(db, &args[0], Value::Set(from), false);
                    let mut to = self.set(db, &args[1]);
                    to.insert(args[2].clone());
                    self.put(db, &args[1], Value::Set(to), false);
                }
            }
            "sunionstore" | "sinterstore" | "sdiffstore" => {
                let sources = args[1..].iter().map(|key| self.set(db, key)).collect();
                self.put(db, &args[0], Value::Set(set::combine(op, sources)), true);
            }
            "zunionstore" | "zinterstore" => {
                let behind = 2 + usize::try_from(number(&args[1])).unwrap();
                let sources: Vec<_> = args[2..behind].iter().map(|key| self.zset(db, key)).collect();
                let combined = zset::combine(op, &sources, &args[behind..]);
                self.put(db, &args[0], Value::Zset(combined), true);
            }
            _ => return false,
        }
        true
    }
}
