//! The records that the clients exchange, and their comparison.

use std::fmt::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use takhin_e2e::kcat;
use takhin_e2e::rng::Rng;

/// A record without its place. Bytes are in hex; `None` is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Case {
    /// Milliseconds since the epoch; `None` where the client sets the time itself.
    t: Option<i64>,
    k: Option<String>,
    v: Option<String>,
    h: Vec<(String, Option<String>)>,
}

/// A record as a client program prints it.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) topic: String,
    pub(super) offset: usize,
    #[serde(flatten)]
    pub(super) case: Case,
}

impl Line {
    pub(super) fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line).with_context(|| line.chars().take(200).collect::<String>())
    }
}

impl Case {
    fn new(t: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Self {
            t,
            k: key.map(hex),
            v: value.map(hex),
            h: Vec::new(),
        }
    }

    /// A record with a small value and this timestamp.
    pub(super) fn at(timestamp: i64) -> Self {
        Self::new(Some(timestamp), None, Some(timestamp.to_string().as_bytes()))
    }
}

impl From<kcat::Record> for Case {
    fn from(r: kcat::Record) -> Self {
        Self::new(Some(r.timestamp), r.key.as_deref(), r.value.as_deref())
    }
}

/// What a reader can see of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    Everything,
    WithoutHeaders,
}

/// An hour ago: young enough for retention, old enough for every limit on timestamps in the future.
pub(super) fn recently() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX) - 3_600_000
}

/// Null, empty, binary, large, compressible and incompressible records; about 500 KiB, so that all fit one batch.
pub(super) fn any_bytes() -> Result<Vec<Case>> {
    let base = recently();
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let mut rng = Rng::new(1);
    let (noise, zeros) = (rng.bytes(200_000), vec![0; 100_000]);
    let text = "Grüße, 世界 \u{1f30d} ".repeat(2_000);
    type Nullable<'a> = Option<&'a [u8]>;
    let pairs: [(Nullable<'_>, Nullable<'_>); 9] = [
        (Some(b"key"), Some(b"value")),
        (None, Some(b"no key")),
        (Some(b"tombstone"), None),
        (Some(b""), Some(b"")),
        // Not both null: kafka-python refuses to send that.
        (None, Some(b"")),
        (Some(&every_byte), Some(&every_byte)),
        (Some(b"noise"), Some(&noise)),
        (Some(b"zeros"), Some(&zeros)),
        (Some("schlüssel".as_bytes()), Some(text.as_bytes())),
    ];
    let mut cases: Vec<_> = (base..)
        .zip(pairs)
        .map(|(t, (k, v))| Case::new(Some(t), k, v))
        .collect();
    cases[0].h = vec![
        ("trace".into(), Some(hex(b"\x00\xff"))),
        ("empty".into(), Some(String::new())),
        ("größe".into(), Some(hex(b"1"))),
    ];
    cases[1].h = vec![
        ("twice".into(), Some(hex(b"1"))),
        ("twice".into(), Some(hex(b"2"))),
    ];
    for i in 0..200 {
        let len = usize::try_from(rng.within(0..300))?;
        let key = format!("key-{}", i % 7);
        cases.push(Case::new(
            Some(base + 100 + i),
            Some(key.as_bytes()),
            Some(&rng.bytes(len)),
        ));
    }
    Ok(cases)
}

/// What kcat can write: text without line ends; an empty value means null (`-Z`).
pub(super) fn text_lines() -> Vec<Case> {
    let long = "lorem ipsum ".repeat(5_000);
    let values = ["one", "", "ein Doppelpunkt: hier", "日本語", &long];
    let many = (0..50).map(|i| Case::new(None, Some(b"n"), Some(format!("number {i}").as_bytes())));
    let null_if_empty = |v: &str| (!v.is_empty()).then(|| hex(v.as_bytes()));
    let some = values.iter().map(|v| Case {
        t: None,
        k: Some(hex(b"k")),
        v: null_if_empty(v),
        h: vec![],
    });
    some.chain(many).collect()
}

/// `key:value` lines.
pub(super) fn to_kcat_input(cases: &[Case]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for case in cases {
        text.extend(unhex(case.k.as_deref().unwrap_or_default())?);
        text.push(b':');
        text.extend(unhex(case.v.as_deref().unwrap_or_default())?);
        text.push(b'\n');
    }
    Ok(text)
}

/// Writes one line of JSON per case.
pub(super) fn write(path: &Path, cases: &[Case]) -> Result<()> {
    let mut text = String::new();
    for case in cases {
        writeln!(text, "{}", serde_json::to_string(case)?)?;
    }
    Ok(std::fs::write(path, text)?)
}

/// Compares every record; `first` is the offset of the first one.
pub(super) fn compare(
    reader: &str,
    topic: &str,
    first: usize,
    written: &[Case],
    read: &[Case],
    depth: Depth,
) -> Result<()> {
    ensure!(
        read.len() == written.len(),
        "{reader}: {} of {} records of {topic}",
        read.len(),
        written.len()
    );
    for (offset, (written, read)) in (first..).zip(written.iter().zip(read)) {
        let mut expected = written.clone();
        expected.t = written.t.or(read.t);
        if depth == Depth::WithoutHeaders {
            expected.h.clear();
        }
        ensure!(
            &expected == read,
            "{reader}: {topic} {offset}\n  written {}\n  read    {}",
            short(&expected),
            short(read)
        );
    }
    Ok(())
}

fn short(case: &Case) -> String {
    format!("{case:?}").chars().take(400).collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    text
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}
