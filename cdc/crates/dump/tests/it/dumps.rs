//! Recorded dumps hold what their servers said that they had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use takhin_pika_dump::{Bounds, Database, Layout, Piece, databases};
use takhin_pika_testing::fixture::{Bytestring, Fixture, bytestring};
use takhin_pika_testing::words::is_same;

/// The dump of each database, and when it was taken, about.
fn unpack(version: &str, into: &Path) -> (BTreeMap<u64, PathBuf>, i64) {
    let fixture = Fixture::of(version);
    let root = fixture.dump(into).unwrap();
    let mut found = BTreeMap::new();
    for number in 0..8 {
        let dir = root.join(format!("db{number}"));
        if dir.exists() {
            found.insert(number, dir);
        }
    }
    if found.is_empty() {
        found.insert(0, root);
    }
    // Some keys were to be gone by then.
    let lines = fixture.lines("binlog-01.jsonl").unwrap();
    let seconds = lines
        .iter()
        .filter_map(|line| line["exec_time"].as_i64())
        .max()
        .unwrap();
    (found, seconds * 1000)
}

/// Files below a directory, as they are listed in a transfer.
fn files(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            files.extend(
                self::files(&entry.path())
                    .into_iter()
                    .map(|file| format!("{name}/{file}")),
            );
        } else {
            files.push(name);
        }
    }
    files
}

fn read(dir: &Path, layout: Layout, now_ms: i64, bounds: Bounds) -> Vec<Piece> {
    let files = files(dir);
    let mut pieces = Vec::new();
    for directory in databases(layout, files.iter().map(String::as_str)) {
        let database = Database::open(dir, &directory, layout).unwrap();
        let tally = database
            .read(now_ms, bounds, |piece| {
                pieces.push(piece);
                true
            })
            .unwrap();
        assert_eq!(tally.damaged, 0, "{directory}");
    }
    pieces
}

fn are_same(words: &[Vec<u8>], told: &[&Value]) -> bool {
    words.len() == told.len() && words.iter().zip(told).all(|(word, told)| is_same(word, told))
}

/// A value put together again: its type's words, and when it is gone.
#[derive(Debug, Default)]
struct Value_ {
    words: Vec<Vec<u8>>,
    expire_at_ms: Option<i64>,
}

/// By key and type.
type Values = BTreeMap<(Vec<u8>, String), Value_>;

fn put_together(pieces: &[Piece]) -> Values {
    let mut values = Values::new();
    let mut next: BTreeMap<(Vec<u8>, String), u32> = BTreeMap::new();
    for piece in pieces {
        let key = (piece.key.to_vec(), piece.data_type.name().to_owned());
        let index = next.entry(key.clone()).or_default();
        assert_eq!(piece.index, *index, "{piece:?}");
        *index += 1;
        assert_eq!(piece.args[0], piece.key);
        let value = values.entry(key).or_default();
        value.expire_at_ms = piece.expire_at_ms;
        if piece.op == "pexpireat" {
            assert!(piece.is_last);
            assert_eq!(piece.args[1], piece.expire_at_ms.unwrap().to_string());
            continue;
        }
        match piece.op {
            // Entries of a stream: id, and fields as one word each.
            "xadd" => value.words.push(piece.args[1..].join(&b'\n')),
            _ => value.words.extend(piece.args[1..].iter().map(|arg| arg.to_vec())),
        }
    }
    values
}

/// The words of an expected value in the form of [`put_together`].
fn is_value(kind: &str, found: &Value_, told: &Value) -> bool {
    let list = || told.as_array().unwrap().iter();
    let pair = |pair: &Value| (pair[0].clone(), pair[1].clone());
    match kind {
        "string" => are_same(&found.words, &[told]),
        "list" => are_same(&found.words, &list().collect::<Vec<_>>()),
        "set" => {
            let told: Vec<_> = list().collect();
            let mut words = found.words.clone();
            words.sort();
            let is_told = |word: &Vec<u8>| told.iter().any(|told| is_same(word, told));
            words.len() == told.len() && words.iter().all(is_told)
        }
        "hash" => {
            let pairs: Vec<_> = found.words.chunks(2).collect();
            let told: Vec<_> = list().map(pair).collect();
            let is_told = |pair: &&[Vec<u8>]| {
                told.iter()
                    .any(|(field, value)| is_same(&pair[0], field) && is_same(&pair[1], value))
            };
            pairs.len() == told.len() && pairs.iter().all(is_told)
        }
        "zset" => {
            let pairs: Vec<_> = found.words.chunks(2).collect();
            let number = |word: &[u8]| std::str::from_utf8(word).unwrap().parse::<f64>().unwrap();
            let told: Vec<_> = list().map(pair).collect();
            let is_told = |pair: &&[Vec<u8>]| {
                told.iter().any(|(member, score)| {
                    is_same(&pair[1], member)
                        && number(&pair[0]) == number(score.as_str().unwrap().as_bytes())
                })
            };
            pairs.len() == told.len() && pairs.iter().all(is_told)
        }
        "stream" => {
            let told: Vec<Vec<u8>> = list()
                .map(|entry| {
                    let mut words = vec![entry[0].as_str().unwrap().as_bytes().to_vec()];
                    for word in entry[1].as_array().unwrap() {
                        let Bytestring::Bytes(bytes) = bytestring(word).unwrap() else {
                            panic!("{word}")
                        };
                        words.push(bytes);
                    }
                    words.join(&b'\n')
                })
                .collect();
            found.words == told
        }
        other => panic!("{other}"),
    }
}

fn check(version: &str, layout: Layout, bounds: Bounds) -> usize {
    let work = tempfile::tempdir().unwrap();
    let (dumps, now_ms) = unpack(version, work.path());
    let mut values: BTreeMap<u64, Values> = dumps
        .iter()
        .map(|(db, dir)| (*db, put_together(&read(dir, layout, now_ms, bounds))))
        .collect();
    let mut checked = 0;
    for line in Fixture::of(version).lines("expected-1-load.jsonl").unwrap() {
        if line["value"].is_null() {
            continue;
        }
        let db = line["db"].as_u64().unwrap();
        let Bytestring::Bytes(key) = bytestring(&line["key"]).unwrap() else {
            panic!("{line}")
        };
        let kind = line["type"].as_str().unwrap().to_owned();
        let found = values
            .get_mut(&db)
            .and_then(|values| values.remove(&(key, kind.clone())));
        let found = found.unwrap_or_else(|| panic!("{version}: missing: {line}"));
        assert!(
            is_value(&kind, &found, &line["value"]),
            "{version}: {line} {found:?}"
        );
        match line["expire_at_about"].as_i64() {
            None => assert_eq!(found.expire_at_ms, None, "{version}: {line}"),
            Some(about) => {
                let at = found.expire_at_ms.unwrap() / 1000;
                assert!((about - 2..=about + 2).contains(&at), "{version}: {line} {at}");
            }
        }
        checked += 1;
    }
    let more: BTreeSet<_> = values
        .into_iter()
        .flat_map(|(db, values)| values.into_keys().map(move |(key, kind)| (db, key, kind)))
        .collect();
    assert!(more.is_empty(), "{version}: more than expected: {more:?}");
    checked
}

const LAYOUTS: [(&str, Layout); 4] = [
    ("2.3.6", Layout::PerTypeFlat),
    ("3.0.16", Layout::PerType),
    ("3.5.5", Layout::PerType),
    ("4.0.1", Layout::Merged),
];

#[test]
fn every_key_of_every_type() {
    for (version, layout) in LAYOUTS {
        let checked = check(version, layout, Bounds::default());
        assert!(checked > 20, "{version}: {checked}");
    }
}

#[test]
fn in_the_smallest_pieces() {
    for (version, layout) in LAYOUTS {
        check(
            version,
            layout,
            Bounds {
                elements: 1,
                bytes: 1,
            },
        );
    }
}

#[test]
fn it_stops_when_no_more_is_wanted() {
    let work = tempfile::tempdir().unwrap();
    let (dumps, now_ms) = unpack("4.0.1", work.path());
    let database = Database::open(&dumps[&0], "0", Layout::Merged).unwrap();
    assert!(database.estimated_keys() > 0);
    let mut left = 3;
    database
        .read(now_ms, Bounds::default(), |_| {
            left -= 1;
            left > 0
        })
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn what_is_no_database_is_an_error() {
    let work = tempfile::tempdir().unwrap();
    let error = Database::open(work.path(), "strings", Layout::PerType).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot open the database"),
        "{error}"
    );
    assert_eq!(
        databases(
            Layout::PerType,
            ["info", "strings/1.sst", "strings/CURRENT", "other/x"]
        ),
        ["strings"]
    );
}
