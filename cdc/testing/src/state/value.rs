//! A value of one type.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Word, float, geo, hash, hyperloglog, list, set, stream, string, zset};
use crate::words::is_same;

#[derive(Debug, Clone)]
pub(super) enum Value {
    String(Word),
    Hash(BTreeMap<Word, Word>),
    List(Vec<Word>),
    Set(BTreeSet<Word>),
    Zset(BTreeMap<Word, f64>),
    Stream(Vec<(Word, Vec<Word>)>),
}

impl Value {
    pub(super) fn of(data_type: &str) -> Self {
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

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::String(_) => false,
            Self::Hash(fields) => fields.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Set(members) => members.is_empty(),
            Self::Zset(members) => members.is_empty(),
            Self::Stream(entries) => entries.is_empty(),
        }
    }

    /// Executes a command of one key; `false` if it is none that is known here. `is_there`: whether the key was before.
    pub(super) fn change(&mut self, op: &str, args: &[Word], is_there: bool, version: &str) -> bool {
        match self {
            Self::String(text) if op == "pfadd" => hyperloglog::add(text, args, version),
            Self::String(text) => string::change(text, op, args, is_there),
            Self::Hash(fields) => hash::change(fields, op, args),
            Self::List(list) => list::change(list, op, args, is_there),
            Self::Set(members) => set::change(members, op, args),
            Self::Zset(members) if op == "geoadd" => geo::add(members, args, version),
            Self::Zset(members) => zset::change(members, op, args),
            Self::Stream(entries) => stream::change(entries, op, args),
        }
    }

    /// Whether it is what a fixture tells.
    pub(super) fn is(&self, told: &Json) -> bool {
        let told_list = || told.as_array().unwrap();
        match self {
            Self::String(text) => is_same(text, told),
            Self::List(list) => are_same(list, told_list()),
            Self::Set(members) => {
                let has = |told: &Json| members.iter().any(|member| is_same(member, told));
                members.len() == told_list().len() && told_list().iter().all(has)
            }
            Self::Hash(fields) => {
                let is = |told: &Json| {
                    fields
                        .iter()
                        .any(|(field, value)| is_same(field, &told[0]) && is_same(value, &told[1]))
                };
                fields.len() == told_list().len() && told_list().iter().all(is)
            }
            Self::Zset(members) => {
                let is = |told: &Json| {
                    let score = float(told[1].as_str().unwrap().as_bytes());
                    members
                        .iter()
                        .any(|(member, own)| is_same(member, &told[0]) && *own == score)
                };
                members.len() == told_list().len() && told_list().iter().all(is)
            }
            Self::Stream(entries) => {
                let is = |((id, words), told): (&(Word, Vec<Word>), &Json)| {
                    is_same(id, &told[0]) && are_same(words, told[1].as_array().unwrap())
                };
                entries.len() == told_list().len() && entries.iter().zip(told_list()).all(is)
            }
        }
    }
}

fn are_same(words: &[Word], told: &[Json]) -> bool {
    let is = |(word, told): (&Word, &Json)| is_same(word, told);
    words.len() == told.len() && words.iter().zip(told).all(is)
}
