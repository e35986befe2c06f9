//! What is in topics, read back.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use takhin_client::{Client, ClientConfig, Consumer, ConsumerConfig};
use takhin_runtime::Env;

use crate::broker::LIMIT;

/// A record.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) partition: i32,
    pub(crate) key: Bytes,
    pub(crate) json: Value,
}

impl Read {
    pub(crate) fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    pub(crate) fn args(&self) -> Vec<Vec<u8>> {
        let args = self.json["args_b64"].as_array().unwrap();
        args.iter()
            .map(|arg| STANDARD.decode(arg.as_str().unwrap()).unwrap())
            .collect()
    }

    pub(crate) fn key_bytes(&self) -> Option<Vec<u8>> {
        Some(STANDARD.decode(self.json["key_b64"].as_str()?).unwrap())
    }
}

/// The records of a topic from its beginning, as soon as there are enough; by partition in the order of offsets.
#[track_caller]
pub(crate) fn read_until(
    broker: SocketAddr,
    topic: &str,
    what: &str,
    mut is_enough: impl FnMut(&[Read]) -> bool,
) -> Vec<Read> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut read = Vec::new();
    let done = runtime.block_on(async {
        let client = Client::new(Env::real(), ClientConfig::new([broker.to_string()]));
        let reading = async {
            let partitions = loop {
                let found = client.describe_topics(Some(&[topic])).await.unwrap_or_default();
                match found.first() {
                    Some(topic) => break topic.partitions.len(),
                    None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            };
            let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default());
            for partition in 0..i32::try_from(partitions).unwrap() {
                consumer.assign(topic, partition, 0);
            }
            while !is_enough(&read) {
                let Ok(records) = consumer.poll().await else {
                    continue;
                };
                for consumed in records {
                    let value = consumed.record.value.unwrap();
                    read.push(Read {
                        partition: consumed.partition,
                        key: consumed.record.key.unwrap(),
                        json: serde_json::from_slice(&value).unwrap(),
                    });
                }
            }
        };
        tokio::time::timeout(LIMIT, reading).await.is_ok()
    });
    assert!(
        done,
        "waited in vain: {what}; {} records were read of {topic}",
        read.len()
    );
    read
}

/// Writes one record, so that a topic is not what the program made it.
pub(crate) fn with_client<T>(broker: SocketAddr, work: impl AsyncFnOnce(Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { work(Client::new(Env::real(), ClientConfig::new([broker.to_string()]))).await })
}

/// Checks what one writer wrote as `set KEY NUMBER` with numbers that count up from 1 for each key: every number is there,
/// first occurrences are in order, and whatever comes again is a whole tail of what was there before. Returns how many
/// records came again.
#[track_caller]
pub(crate) fn check_order(records: &[Read], expected: &BTreeMap<String, u64>) -> usize {
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
