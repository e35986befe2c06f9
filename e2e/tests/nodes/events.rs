//! Changes of a Pika master, and what a stock client reads of them: each is there once, and those of a key are in order.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::{kcat, wait};
use takhin_pika_testing::topics::{Read, check_order, distinct};

use crate::house::{House, LIMIT};

/// The topic that sources of these tests write to.
pub(crate) const TOPIC: &str = "profiles.changes";

/// Keys that are written, again and again.
const KEYS: u64 = 10;

/// How often each key was written: the value is the number of the time, so that order can be seen.
#[derive(Default)]
pub(crate) struct Changes(u64);

impl Changes {
    /// Writes all keys so many times more, one key after the other each time.
    pub(crate) fn more<T>(&mut self, times: u64, mut execute: impl FnMut(&[&[u8]]) -> T) {
        for _ in 0..times {
            self.0 += 1;
            for key in 1..=KEYS {
                let (key, value) = (format!("user:{key}"), self.0.to_string());
                execute(&[b"SET", key.as_bytes(), value.as_bytes()]);
            }
        }
    }

    /// Waits until all of them are in the topic, in order, and none that nobody has made. Returns how many records came again,
    /// which they may only after a process was killed.
    pub(crate) fn arrive(&self, house: &House<'_>) -> Result<usize> {
        let wanted = usize::try_from(self.0 * KEYS)?;
        eprintln!("        waiting for {wanted} changes");
        let changes = wait::value(format_args!("{wanted} changes"), LIMIT, || {
            let (changes, _) = read(house)?;
            Ok((distinct(&changes) >= wanted).then_some(changes))
        })?;
        let found = distinct(&changes);
        ensure!(found == wanted, "{found} changes of {wanted} that were made");
        let each: BTreeMap<String, u64> = (1..=KEYS).map(|key| (format!("user:{key}"), self.0)).collect();
        let again = check_order(&changes, &each);
        ensure!(changes.len() == wanted + again, "{} records", changes.len());
        Ok(again)
    }

    /// The same where nothing may come again.
    pub(crate) fn arrive_once(&self, house: &House<'_>) -> Result<()> {
        let again = self.arrive(house)?;
        ensure!(again == 0, "{again} changes came twice");
        Ok(())
    }
}

/// What is in the topic by now, each partition in order: the changes, and the data set with its beginnings and ends.
pub(crate) fn read(house: &House<'_>) -> Result<(Vec<Read>, Vec<Read>)> {
    // The topic is made with the first of them.
    let records = kcat::consume(&house.inside(), TOPIC, None, "beginning").unwrap_or_default();
    let mut events = Vec::new();
    for record in records {
        events.push(Read {
            partition: record.partition,
            key: record.key.context("a record without a key")?.into(),
            json: serde_json::from_slice(&record.value.context("a record without a value")?)?,
            headers: BTreeMap::new(),
        });
    }
    Ok(events
        .into_iter()
        .partition(|event| event.text("event_type") == "binlog"))
}
