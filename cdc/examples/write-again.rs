//! What the producer of `takhin-cdc` can do alone: `write-again BROKER FROM TO COUNT` reads records of a topic and writes them to
//! another one, again and again, COUNT in all, in batches as `takhin-cdc` makes them. For `make bench-cdc`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the bench: there is nothing to simulate"
)]

use std::process::ExitCode;
use std::time::Instant;

use futures_util::future::try_join_all;
use takhin_client::{
    Client, ClientConfig, ClientError, Compression, Consumer, ConsumerConfig, NewTopic, OffsetSpec, Producer,
    ProducerConfig, Record,
};
use takhin_config::CdcConfig;
use takhin_runtime::Env;

/// Records that are read, and then written again and again.
const RECORDS: usize = 100_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count = words.get(3).and_then(|count| count.parse().ok());
    let ([broker, from, to, _], Some(count)) = (&words[..], count) else {
        eprintln!("usage: write-again BROKER FROM TO COUNT");
        return ExitCode::from(2);
    };
    match run(broker, (from, to), count) {
        Ok(rate) => {
            println!("{rate:.0}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(broker: &str, (from, to): (&str, &str), count: usize) -> Outcome<f64> {
    // As many threads as takhin-cdc has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::new(Env::real(), ClientConfig::new([broker.to_owned()]));
        let batches = read(&client, from).await?;
        let topic = NewTopic {
            name: to,
            partitions: i32::try_from(batches.len())?,
            replication_factor: 0,
            configs: &[],
        };
        client.create_topic(&topic).await?;
        Ok(write(&client, to, batches, count).await?)
    })
}

/// Batches of each partition, as `takhin-cdc` makes them by default.
async fn read(client: &Client, from: &str) -> Outcome<Vec<Vec<Vec<Record>>>> {
    let max = CdcConfig::default().sink.batch_size.as_usize();
    let found = client.describe_topics(Some(&[from])).await?;
    let partitions = found.first().ok_or("no such topic")?.partitions.len();
    let (mut consumer, mut ends) = (Consumer::new(client.clone(), ConsumerConfig::default()), 0);
    for partition in 0..i32::try_from(partitions)? {
        consumer.assign(from, partition, 0);
        let end = client.offset(from, partition, OffsetSpec::Latest).await?;
        ends += usize::try_from(end.unwrap_or(0))?;
    }
    let mut batches = vec![vec![(0, Vec::new())]; partitions];
    let mut read = 0;
    while read < RECORDS.min(ends) {
        for consumed in consumer.poll().await? {
            let of = &mut batches[usize::try_from(consumed.partition)?];
            let len = len(&consumed.record);
            if of.last().is_none_or(|(bytes, _)| bytes + len > max) {
                of.push((0, Vec::new()));
            }
            if let Some((bytes, records)) = of.last_mut() {
                *bytes += len;
                records.push(consumed.record);
            }
            read += 1;
        }
    }
    let records = |of: Vec<(usize, Vec<Record>)>| of.into_iter().map(|(_, records)| records).collect();
    Ok(batches.into_iter().map(records).collect())
}

fn len(record: &Record) -> usize {
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + value.as_ref().map_or(0, bytes::Bytes::len));
    let of = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    of(&record.key) + of(&record.value) + headers.sum::<usize>()
}

/// Records a second, to the last acknowledgement.
async fn write(
    client: &Client,
    to: &str,
    batches: Vec<Vec<Vec<Record>>>,
    count: usize,
) -> Result<f64, ClientError> {
    let config = ProducerConfig {
        compression: Compression::Lz4,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client.clone(), config);
    let (begin, mut written, mut round) = (Instant::now(), 0, 0);
    let mut deliveries = Vec::new();
    while written < count {
        for (partition, of) in (0..).zip(&batches) {
            let batch = of[round % of.len()].clone();
            written += batch.len();
            deliveries.push(producer.enqueue(to, partition, batch).await?.wait());
        }
        round += 1;
    }
    try_join_all(deliveries).await?;
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52")]
    let written = written as f64;
    Ok(written / begin.elapsed().as_secs_f64())
}
