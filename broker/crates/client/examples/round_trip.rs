//! Creates a topic, produces to it, reads it back, compares, and deletes it. Against any Kafka:
//!
//! ```text
//! cargo run -p takhin-client --example round_trip -- 127.0.0.1:9092
//! ```

#![allow(clippy::print_stdout, reason = "a program to try the client with")]

use takhin_client::{
    Client, ClientConfig, ClientError, Compression, Consumer, ConsumerConfig, NewTopic, OffsetSpec, Producer,
    ProducerConfig, Record,
};
use takhin_runtime::Env;

const TOPIC: &str = "round-trip";
const BATCHES: u32 = 200;
const RECORDS: u32 = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9092".into());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(round_trip(address))?)
}

async fn round_trip(address: String) -> Result<(), ClientError> {
    let client = Client::new(Env::real(), ClientConfig::new([address]));
    client
        .create_topic(&NewTopic {
            name: TOPIC,
            partitions: 1,
            ..NewTopic::default()
        })
        .await?;
    let config = ProducerConfig {
        compression: Compression::Lz4,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client.clone(), config);
    let mut deliveries = Vec::new();
    for batch in 0..BATCHES {
        let records = (0..RECORDS)
            .map(|record| Record::of(format!("{batch}.{record}")))
            .collect();
        deliveries.push(producer.enqueue(TOPIC, 0, records).await?);
    }
    for delivery in deliveries {
        delivery.wait().await?;
    }
    let end = client.offset(TOPIC, 0, OffsetSpec::Latest).await?.unwrap_or(0);
    let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default());
    consumer.assign(TOPIC, 0, 0);
    let mut values = Vec::new();
    while consumer.position(TOPIC, 0) < Some(end) {
        values.extend(
            consumer
                .poll()
                .await?
                .into_iter()
                .map(|consumed| consumed.record.value),
        );
    }
    client.delete_topic(TOPIC).await?;
    let expected = (0..BATCHES).flat_map(|batch| (0..RECORDS).map(move |record| format!("{batch}.{record}")));
    let same = values.iter().map(|value| value.as_deref()).eq(expected
        .map(String::into_bytes)
        .collect::<Vec<_>>()
        .iter()
        .map(|v| Some(&v[..])));
    println!(
        "{} records, {}",
        values.len(),
        if same { "in order" } else { "NOT what was sent" }
    );
    Ok(())
}
