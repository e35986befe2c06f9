//! A key-value state rebuilt from topics, as a consumer does it: the data set, then the changes in the order of the binlog. Every
//! command that the recorded binlogs hold is executed; one that is not known here fails the test.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::fixture::{Bytestring, bytestring};
use crate::topics::Read;

mod geo;
mod hash;
mod hyperloglog;
mod list;
mod set;
mod several;
mod stream;
mod string;
mod value;
mod zset;

use value::Value;

type Word = Vec<u8>;

/// Database, key, type: before 4.0 a key may have values of several types.
type Name = (String, Word, String);

/// Milliseconds from the last change until the real master was asked for what it had, at least: what expires until then is gone.
const ASKED_AFTER: i64 = 5000;

/// What there is, and when it is gone.
#[derive(Debug, Default)]
pub struct State {
    values: BTreeMap<Name, (Value, Option<i64>)>,
    /// When the last change was executed.
    last: i64,
    /// Events that were applied.
    pub applied: usize,
}

/// What [`State::check`] has looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Keys that are as they are to be.
    pub equal: usize,
    /// Keys that expired between recording and now, and that are not in the data set any more.
    pub expired: usize,
}

fn number(word: &[u8]) -> i64 {
    std::str::from_utf8(word).unwrap().parse().unwrap()
}

fn float(word: &[u8]) -> f64 {
    std::str::from_utf8(word).unwrap().parse().unwrap()
}

/// A place in a list of `len`, which may be counted from the end.
fn index(word: &[u8], len: usize) -> i64 {
    let at = number(word);
    if at < 0 {
        at + i64::try_from(len).unwrap()
    } else {
        at
    }
}

/// Places from `first` to `last`, both included, of a list of `len`.
fn range(first: &[u8], last: &[u8], len: usize) -> std::ops::Range<usize> {
    let first = usize::try_from(index(first, len).max(0)).unwrap().min(len);
    let end = usize::try_from((index(last, len) + 1).max(0)).unwrap().min(len);
    first..end.max(first)
}

/// Where a change is in the binlog: how many data sets were before it, file, offset, and its number in the item.
fn place(event: &Read) -> (u64, u64, u64, u64) {
    let number = |field: &str| event.json["binlog"][field].as_u64().unwrap();
    let binlog = event.text("event_id").split(':').next().unwrap();
    let epoch = binlog
        .split_once('.')
        .map_or(0, |(_, epoch)| epoch.parse().unwrap());
    (epoch, number("filenum"), number("offset"), number("sub"))
}

impl State {
    /// Applies what each partition of the data set has, then the changes. These must be in order in each partition; commands of
    /// several keys need them in the order of all.
    pub fn rebuild(snapshot: &[Read], binlog: &[Read]) -> Self {
        let mut whole = Self::default();
        whole.take(snapshot);
        let mut seen = BTreeSet::new();
        let mut last = BTreeMap::new();
        let mut changes: Vec<&Read> = Vec::new();
        for event in binlog {
            // What concerns a whole database is in every partition.
            if seen.insert((event.partition, event.text("event_id"))) {
                let before = last.insert((event.text("db"), event.partition), place(event));
                assert!(before.is_none_or(|before| before < place(event)), "{event:?}");
                changes.push(event);
            }
        }
        changes.sort_by_key(|event| place(event));
        changes.dedup_by_key(|event| event.text("event_id"));
        changes.into_iter().for_each(|event| whole.apply(event));
        whole.check_partitions(snapshot, binlog);
        whole
    }

    /// Whoever has the events of a partition has all of its keys.
    fn check_partitions(&self, snapshot: &[Read], binlog: &[Read]) {
        let mut found = BTreeMap::new();
        for event in snapshot.iter().chain(binlog) {
            if let Some(key) = event.key_bytes() {
                let at = found.entry((event.text("db"), key)).or_insert(event.partition);
                assert_eq!(*at, event.partition, "a key in two partitions: {event:?}");
            }
        }
    }

    /// Takes a data set: in each partition what comes after the last beginning counts.
    fn take(&mut self, snapshot: &[Read]) {
        let partitions: BTreeSet<i32> = snapshot.iter().map(|read| read.partition).collect();
        for partition in partitions {
            let mut of_partition = Self::default();
            let (mut ids, mut seen) = (BTreeMap::new(), BTreeSet::new());
            for event in snapshot.iter().filter(|read| read.partition == partition) {
                let id = event.json["snapshot"]["id"].as_str().unwrap();
                match event.text("op") {
                    "snapshot_begin" => {
                        of_partition.values.retain(|(db, ..), _| db != event.text("db"));
                        ids.insert(event.text("db"), id);
                    }
                    "snapshot_end" => assert_eq!(ids.get(event.text("db")), Some(&id)),
                    _ => {
                        assert_eq!(ids.get(event.text("db")), Some(&id), "{event:?}");
                        if seen.insert(event.text("event_id")) {
                            of_partition.apply(event);
                        }
                    }
                }
            }
            self.values.extend(of_partition.values);
            self.applied += of_partition.applied;
        }
    }

    fn apply(&mut self, event: &Read) {
        self.applied += 1;
        self.last = self.last.max(event.json["ts_ms"].as_i64().unwrap());
        let (db, op, args) = (event.text("db").to_owned(), event.text("op"), event.args());
        let Some(key) = event.key_bytes() else {
            assert_eq!(op, "flushdb");
            self.values.retain(|(of, ..), _| *of != db);
            return;
        };
        if self.apply_to_several(&db, op, &args) {
            return;
        }
        assert_ne!(event.json["more_keys"], true, "not modelled: {event:?}");
        let expire_at = event.json["expire_at_ms"].as_i64();
        let same = |(of, own, _): &Name| *of == db && *own == key;
        match op {
            "del" | "unlink" => return self.values.retain(|name, _| !same(name)),
            "expireat" | "pexpireat" | "persist" => {
                let own = self.values.iter_mut().filter(|(name, _)| same(name));
                return own.for_each(|(_, value)| value.1 = expire_at);
            }
            _ => {}
        }
        let data_type = event.json["data_type"].as_str().unwrap();
        let name = (db, key, data_type.to_owned());
        let is_there = self.values.contains_key(&name);
        if !is_there && string::is_only_if_there(op, &args[1..]) {
            return;
        }
        let (value, expiry) = self
            .values
            .entry(name.clone())
            .or_insert_with(|| (Value::of(data_type), None));
        let sets = matches!(op, "set" | "pksetexat" | "getset" | "setex" | "psetex");
        // Otherwise nothing is set.
        let is_refused = is_there && string::is_only_if_missing(op, &args[1..]);
        if (sets && !is_refused) || event.text("event_type") == "snapshot" {
            *expiry = expire_at;
        }
        let version = event.json["source"]["version"].as_str().unwrap();
        assert!(
            value.change(op, &args[1..], is_there, version),
            "not modelled: {event:?}"
        );
        if value.is_empty() {
            self.values.remove(&name);
        }
    }

    /// Checks it against the expected contents of a fixture: every key but those of which `is_left_out` must be there, and no
    /// other one.
    #[track_caller]
    pub fn check(&self, lines: &[Json], is_left_out: impl Fn(&Json) -> bool) -> Checked {
        let (mut checked, mut expected) = (Checked::default(), BTreeSet::new());
        for line in lines {
            let Bytestring::Bytes(key) = bytestring(&line["key"]).unwrap() else {
                panic!("{line}")
            };
            let data_type = line["type"].as_str().unwrap_or_default().to_owned();
            let name = (format!("db{}", line["db"]), key, data_type);
            expected.insert(name.clone());
            if is_left_out(line) {
                continue;
            }
            match self.values.get(&name) {
                Some((value, expiry)) => {
                    assert!(value.is(&line["value"]), "{line} {value:?}");
                    assert!(is_about(line, *expiry), "{line} {expiry:?}");
                    checked.equal += 1;
                }
                None if has_expired(line) => checked.expired += 1,
                None => panic!("missing: {line}"),
            }
        }
        for (name, (value, expiry)) in &self.values {
            let was_gone = expiry.is_some_and(|at| at <= self.last + ASKED_AFTER);
            let is_wanted = expected.contains(name) || was_gone;
            assert!(is_wanted, "nobody has {name:?} {value:?} {expiry:?}");
        }
        checked
    }

    /// Takes keys out that the real master does not read back; returns how many there were.
    pub fn without(&mut self, is_it: impl Fn(&[u8]) -> bool) -> usize {
        let before = self.values.len();
        self.values.retain(|(_, key, _), _| !is_it(key));
        before - self.values.len()
    }
}

/// The fixture has it from `TTL`, which counts seconds.
fn is_about(line: &Json, expiry: Option<i64>) -> bool {
    match (line["expire_at_about"].as_i64(), expiry) {
        (None, None) => true,
        (Some(about), Some(at)) => (about - 2..=about + 2).contains(&(at / 1000)),
        _ => false,
    }
}

/// Whether a key that was recorded is gone by now: a data set leaves it out.
pub fn has_expired(line: &Json) -> bool {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    line["expire_at_about"]
        .as_u64()
        .is_some_and(|about| about <= now + 2)
}
