//! What is in topics, read back.

use std::net::SocketAddr;

use takhin_client::{Client, ClientConfig, ConsumedRecord, Consumer, ConsumerConfig, OffsetSpec};
use takhin_pika_testing::numbers::Numbers;
use takhin_pika_testing::topics::Read;
use takhin_runtime::Env;

use crate::broker::{Broker, LIMIT};
use crate::cdc::Cdc;

/// The records of a topic from its beginning to its end, as soon as there are enough; by partition in the order of offsets. To
/// the end, because what comes again may be behind what was enough.
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
            let mut ends = None;
            loop {
                if ends.is_none() && is_enough(&read) {
                    let mut found = Vec::new();
                    for partition in 0..i32::try_from(partitions).unwrap() {
                        let end = client.offset(topic, partition, OffsetSpec::Latest).await;
                        found.push((partition, end.ok().flatten().unwrap_or(0)));
                    }
                    ends = Some(found);
                }
                let is_read = |(partition, end): &(i32, i64)| {
                    consumer.position(topic, *partition).is_some_and(|at| at >= *end)
                };
                if ends.iter().flatten().all(is_read) && ends.is_some() {
                    break;
                }
                let Ok(records) = consumer.poll().await else {
                    continue;
                };
                for consumed in records {
                    read.push(one(consumed));
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

/// A record as a test looks at it. Its headers must say what its value does.
fn one(consumed: ConsumedRecord) -> Read {
    let ConsumedRecord {
        partition, record, ..
    } = consumed;
    let headers = record.headers.into_iter().map(|(name, value)| {
        let value = String::from_utf8(value.unwrap_or_default().to_vec());
        (name.to_string(), value.unwrap())
    });
    let one = Read {
        headers: headers.collect(),
        partition,
        key: record.key.unwrap(),
        json: serde_json::from_slice(&record.value.unwrap()).unwrap(),
    };
    // Positions have others.
    if one.json["event_id"].is_string() {
        one.check_headers();
    }
    one
}

/// Writes one record, so that a topic is not what the program made it.
pub(crate) fn with_client<T>(broker: SocketAddr, work: impl AsyncFnOnce(Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { work(Client::new(Env::real(), ClientConfig::new([broker.to_string()]))).await })
}

/// Reads all changes of a writer back, and checks them; returns how many records came again.
#[track_caller]
pub(crate) fn check(broker: &Broker, cdc: &Cdc, writer: &Numbers) -> usize {
    let is_whole = |read: &[Read]| writer.is_whole(read);
    let read = read_until(broker.kafka, &cdc.topic("binlog"), "all events", is_whole);
    writer.check(&read)
}
