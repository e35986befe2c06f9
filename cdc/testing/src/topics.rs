//! What is read back from topics, and what it must be like.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

/// A record.
#[derive(Debug, Clone)]
pub struct Read {
    /// Its partition.
    pub partition: i32,
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub json: Value,
    /// Its headers, where they were read.
    pub headers: BTreeMap<String, String>,
}

impl Read {
    /// A field, empty if it is no text.
    pub fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    /// Checks that its headers say what its value does.
    #[track_caller]
    pub fn check_headers(&self) {
        let expected = [
            ("takhin.event_id", self.text("event_id")),
            ("takhin.source", self.text("source_id")),
            ("takhin.op", self.text("op")),
            ("takhin.db", self.text("db")),
            ("takhin.type", self.text("data_type")),
            ("content-type", "application/json"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(self.headers, BTreeMap::from(expected), "{self:?}");
    }

    /// What follows the name of the command.
    pub fn args(&self) -> Vec<Vec<u8>> {
        let args = self.json["args_b64"].as_array().unwrap();
        args.iter()
            .map(|arg| STANDARD.decode(arg.as_str().unwrap()).unwrap())
            .collect()
    }

    /// The key of the command.
    pub fn key_bytes(&self) -> Option<Vec<u8>> {
        Some(STANDARD.decode(self.json["key_b64"].as_str()?).unwrap())
    }
}

/// Checks what one writer wrote as `set KEY NUMBER` with numbers that count up from 1 for each key: every number is there,
/// first occurrences are in order, and whatever comes again is a whole tail of what was there before. Returns how many
/// records came again.
#[track_caller]
pub fn check_order(records: &[Read], expected: &BTreeMap<String, u64>) -> usize {
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.text("op") == "set") {
        let args = record.args();
        let number = String::from_utf8(args[1].clone()).unwrap();
        let number: u64 = number.split('.').next().unwrap().parse().unwrap();
        seen.entry(record.text("key").to_owned())
            .or_default()
            .push(number);
    }
    let mut again = 0;
    for (key, last) in expected {
        let numbers = seen.remove(key).unwrap_or_default();
        let mut newest = 0;
        let mut before: Option<u64> = None;
        for number in &numbers {
            let goes_on = before.is_none_or(|before| *number == before + 1);
            let goes_back = before.is_some_and(|before| *number <= before);
            assert!(
                goes_on || goes_back,
                "{key}: {number} follows {before:?} in {numbers:?}"
            );
            again += usize::from(*number <= newest);
            newest = newest.max(*number);
            before = Some(*number);
        }
        assert_eq!(newest, *last, "{key}: {numbers:?}");
        assert_eq!(
            before,
            Some(*last),
            "{key} ends in the middle of a repetition: {numbers:?}"
        );
        assert_eq!(numbers.first(), Some(&1), "{key}");
    }
    assert!(seen.is_empty(), "keys that nobody wrote: {seen:?}");
    again
}

/// How many events there are, those that come again not counted.
pub fn distinct(records: &[Read]) -> usize {
    let ids: BTreeSet<_> = records.iter().map(|event| event.text("event_id")).collect();
    ids.len()
}
