//! A key-value state rebuilt from topics, as a consumer does it: partition by partition.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::fixture::{Bytestring, bytestring};
use crate::topics::Read;
use crate::words::is_same;

type Word = Vec<u8>;

/// A value of one type.
#[derive(Debug, Clone)]
enum Value {
    String(Word),
    Hash(BTreeMap<Word, Word>),
    List(Vec<Word>),
    Set(BTreeSet<Word>),
    Zset(BTreeMap<Word, f64>),
    Stream(Vec<(Word, Vec<Word>)>),
}

impl Value {
    fn of(data_type: &str) -> Self {
        match data_type {
            "string" => Self::String(Word::new()),
            "hash" => Self::Hash(BTreeMap::new()),
            "list" => Self::List(Vec::new()),
            "set" => Self::Set(BTreeSet::new()),
            "zset" => Self::Zset(BTreeMap::new()),
            "stream" => Self::Stream(Vec::new()),
            other => panic!("{other}"),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::String(_) => false,
            Self::Hash(fields) => fields.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Set(members) => members.is_empty(),
            Self::Zset(members) => members.is_empty(),
            Self::Stream(entries) => entries.is_empty(),
        }
    }
}

/// Database, key, type.
type Name = (String, Word, String);

/// What there is, when it is gone, and of which keys that is not known, since commands were executed that are not modelled.
#[derive(Debug, Default)]
pub struct State {
    values: BTreeMap<Name, (Value, Option<i64>)>,
    unknown: BTreeSet<(String, Word)>,
    /// Events that were applied.
    pub applied: usize,
}

fn number(word: &[u8]) -> i64 {
    std::str::from_utf8(word).unwrap().parse().unwrap()
}

fn float(word: &[u8]) -> f64 {
    std::str::from_utf8(word).unwrap().parse().unwrap()
}

impl State {
    /// Applies what one partition of the data set has, then what the same partition of the changes has.
    pub fn rebuild(snapshot: &[Read], binlog: &[Read]) -> Self {
        let mut whole = Self::default();
        let partitions: BTreeSet<i32> = snapshot.iter().chain(binlog).map(|read| read.partition).collect();
        for partition in partitions {
            let of = |reads: &[Read]| {
                let own = reads.iter().filter(|read| read.partition == partition);
                own.cloned().collect::<Vec<_>>()
            };
            let mut state = Self::default();
            let (mut ids, mut seen) = (BTreeMap::new(), BTreeSet::new());
            for event in of(snapshot) {
                let id = event.json["snapshot"]["id"].as_str().unwrap().to_owned();
                match event.text("op") {
                    // What was begun before counts no more.
                    "snapshot_begin" => {
                        state.values.retain(|(db, ..), _| db != event.text("db"));
                        ids.insert(event.text("db").to_owned(), id);
                    }
                    "snapshot_end" => assert_eq!(ids.get(event.text("db")), Some(&id)),
                    _ => {
                        assert_eq!(ids.get(event.text("db")), Some(&id), "{event:?}");
                        if seen.insert(event.text("event_id").to_owned()) {
                            state.apply(&event);
                        }
                    }
                }
            }
            for event in of(binlog) {
                if seen.insert(event.text("event_id").to_owned()) {
                    state.apply(&event);
                }
            }
            whole.values.extend(state.values);
            whole.unknown.extend(state.unknown);
            whole.applied += state.applied;
        }
        whole
    }

    fn apply(&mut self, event: &Read) {
        self.applied += 1;
        let (db, op, args) = (event.text("db").to_owned(), event.text("op"), event.args());
        let Some(key) = event.key_bytes() else {
            assert_eq!(op, "flushdb");
            self.values.retain(|(of, ..), _| *of != db);
            return;
        };
        if event.json["more_keys"] == true {
            // Of other partitions, some of them.
            let names = args.iter().map(|arg| (db.clone(), arg.clone()));
            return self.unknown.extend(names);
        }
        let expire_at = event.json["expire_at_ms"].as_i64();
        let data_type = event.json["data_type"].as_str();
        // Of any type.
        let same = |(of, own, _): &Name| *of == db && *own == key;
        match op {
            "del" | "unlink" => {
                self.unknown.remove(&(db.clone(), key.clone()));
                return self.values.retain(|name, _| !same(name));
            }
            "expireat" | "pexpireat" | "persist" => {
                let own = self.values.iter_mut().filter(|(name, _)| same(name));
                return own.for_each(|(_, value)| value.1 = expire_at);
            }
            _ => {}
        }
        let data_type = data_type.unwrap();
        let name = (db.clone(), key.clone(), data_type.to_owned());
        let is_there = self.values.contains_key(&name);
        let is_xx = op == "set"
            && args
                .get(2)
                .is_some_and(|option| option.eq_ignore_ascii_case(b"xx"));
        if is_xx && !is_there {
            return;
        }
        // `hmset`, `rpush` and so on of a data set write a key that was not there.
        let (value, expiry) = self
            .values
            .entry(name.clone())
            .or_insert_with(|| (Value::of(data_type), None));
        let sets = matches!(op, "set" | "pksetexat" | "getset" | "setex" | "psetex");
        if sets || event.text("event_type") == "snapshot" {
            *expiry = expire_at;
        }
        if !change(value, op, &args[1..], is_there) {
            self.unknown.insert((db, key));
        }
        if self.values.get(&name).is_some_and(|(value, _)| value.is_empty()) {
            self.values.remove(&name);
        }
    }

    /// Checks it against the expected contents of a fixture; returns how many keys that was. Keys of which `is_left_out`
    /// need not be there.
    #[track_caller]
    pub fn check(&self, lines: &[Json], is_left_out: impl Fn(&Json) -> bool) -> usize {
        let (mut checked, mut expected) = (0, BTreeSet::new());
        for line in lines {
            let Bytestring::Bytes(key) = bytestring(&line["key"]).unwrap() else {
                panic!("{line}")
            };
            let db = format!("db{}", line["db"]);
            let name = (
                db.clone(),
                key.clone(),
                line["type"].as_str().unwrap_or_default().to_owned(),
            );
            expected.insert(name.clone());
            if line["value"].is_null() || is_left_out(line) || self.unknown.contains(&(db, key)) {
                continue;
            }
            let (value, expiry) = self
                .values
                .get(&name)
                .unwrap_or_else(|| panic!("missing: {line}"));
            assert!(is_value(value, &line["value"]), "{line} {value:?}");
            let about = line["expire_at_about"].as_i64();
            let is_about = match (about, expiry) {
                (None, None) => true,
                (Some(about), Some(at)) => (about - 2..=about + 2).contains(&(at / 1000)),
                _ => false,
            };
            assert!(is_about, "{line} {expiry:?}");
            checked += 1;
        }
        for (name, (value, expiry)) in &self.values {
            // Such keys 4.0 itself does not read back; its binlog has them.
            if name.1[..name.1.len().saturating_sub(1)].contains(&0) {
                continue;
            }
            let is_unknown = self.unknown.contains(&(name.0.clone(), name.1.clone()));
            assert!(
                expected.contains(name) || is_unknown || expiry.is_some(),
                "nobody has {name:?} {value:?}"
            );
        }
        checked
    }
}

/// Executes a command on a value; `false` if it is one that is not modelled.
fn change(value: &mut Value, op: &str, args: &[Word], is_there: bool) -> bool {
    match (value, op) {
        (Value::String(text), _) => string(text, op, args, is_there),
        (Value::Hash(fields), "hset" | "hmset") => {
            fields.extend(args.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())));
            true
        }
        (Value::Hash(fields), "hsetnx") => {
            fields.entry(args[0].clone()).or_insert_with(|| args[1].clone());
            true
        }
        (Value::Hash(fields), "hdel") => {
            args.iter().for_each(|field| drop(fields.remove(field)));
            true
        }
        (Value::Hash(fields), "hincrby") => {
            let old = fields.get(&args[0]).map_or(0, |old| number(old));
            fields.insert(args[0].clone(), (old + number(&args[1])).to_string().into_bytes());
            true
        }
        (Value::List(list), _) => self::list(list, op, args, is_there),
        (Value::Set(members), "sadd") => {
            members.extend(args.iter().cloned());
            true
        }
        (Value::Set(members), "srem") => {
            members.retain(|member| !args.contains(member));
            true
        }
        (Value::Zset(members), _) => zset(members, op, args),
        (Value::Stream(entries), "xadd") => {
            let words: Vec<Word> = args.to_vec();
            let at = words
                .iter()
                .position(|word| word.first().is_some_and(u8::is_ascii_digit))
                .unwrap();
            entries.push((words[at].clone(), words[at + 1..].to_vec()));
            at == 0
        }
        (Value::Stream(entries), "xdel") => {
            entries.retain(|(id, _)| !args.contains(id));
            true
        }
        _ => false,
    }
}

fn string(text: &mut Word, op: &str, args: &[Word], is_there: bool) -> bool {
    match op {
        "set"
            if args
                .get(1)
                .is_some_and(|option| option.eq_ignore_ascii_case(b"nx"))
                && is_there => {}
        "setnx" if is_there => {}
        "set" | "getset" | "setnx" => text.clone_from(&args[0]),
        "pksetexat" | "setex" | "psetex" => text.clone_from(&args[1]),
        "append" => text.extend_from_slice(&args[0]),
        "incr" | "incrby" | "decr" | "decrby" => {
            let old = if is_there { number(text) } else { 0 };
            let by = args.first().map_or(1, |by| number(by));
            let by = if op.starts_with("incr") { by } else { -by };
            *text = (old + by).to_string().into_bytes();
        }
        _ => return false,
    }
    true
}

fn list(list: &mut Vec<Word>, op: &str, args: &[Word], is_there: bool) -> bool {
    match op {
        "rpush" => list.extend(args.iter().cloned()),
        "lpush" => args.iter().for_each(|word| list.insert(0, word.clone())),
        "rpushx" if is_there => list.extend(args.iter().cloned()),
        "lpushx" if is_there => args.iter().for_each(|word| list.insert(0, word.clone())),
        "rpushx" | "lpushx" => {}
        "lpop" if !list.is_empty() => drop(list.remove(0)),
        "rpop" => drop(list.pop()),
        "lset" => {
            let at = usize::try_from(number(&args[0])).unwrap();
            list[at].clone_from(&args[1]);
        }
        _ => return false,
    }
    true
}

fn zset(members: &mut BTreeMap<Word, f64>, op: &str, args: &[Word]) -> bool {
    let mut by_rank: Vec<(f64, Word)> = members
        .iter()
        .map(|(member, score)| (*score, member.clone()))
        .collect();
    by_rank.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    match op {
        "zadd" => members.extend(args.chunks(2).map(|pair| (pair[1].clone(), float(&pair[0])))),
        "zincrby" => *members.entry(args[1].clone()).or_default() += float(&args[0]),
        "zrem" => members.retain(|member, _| !args.contains(member)),
        "zpopmin" | "zpopmax" if args.is_empty() => {
            let popped = if op == "zpopmin" {
                by_rank.first()
            } else {
                by_rank.last()
            };
            if let Some((_, member)) = popped {
                members.remove(member);
            }
        }
        _ => return false,
    }
    true
}

fn is_value(value: &Value, told: &Json) -> bool {
    let told_list = || told.as_array().unwrap();
    match value {
        Value::String(text) => is_same(text, told),
        Value::List(list) => {
            list.len() == told_list().len()
                && list
                    .iter()
                    .zip(told_list())
                    .all(|(word, told)| is_same(word, told))
        }
        Value::Set(members) => {
            let has = |told: &Json| members.iter().any(|member| is_same(member, told));
            members.len() == told_list().len() && told_list().iter().all(has)
        }
        Value::Hash(fields) => {
            let is = |told: &Json| {
                fields
                    .iter()
                    .any(|(field, value)| is_same(field, &told[0]) && is_same(value, &told[1]))
            };
            fields.len() == told_list().len() && told_list().iter().all(is)
        }
        Value::Zset(members) => {
            let is = |told: &Json| {
                let score = float(told[1].as_str().unwrap().as_bytes());
                members
                    .iter()
                    .any(|(member, own)| is_same(member, &told[0]) && *own == score)
            };
            members.len() == told_list().len() && told_list().iter().all(is)
        }
        Value::Stream(entries) => {
            let is = |((id, words), told): (&(Word, Vec<Word>), &Json)| {
                let told_words = told[1].as_array().unwrap();
                is_same(id, &told[0])
                    && words.len() == told_words.len()
                    && words
                        .iter()
                        .zip(told_words)
                        .all(|(word, told)| is_same(word, told))
            };
            entries.len() == told_list().len() && entries.iter().zip(told_list()).all(is)
        }
    }
}
