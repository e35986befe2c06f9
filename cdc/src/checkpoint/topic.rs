//! Positions in the compacted topic: one key for each source and database.

use bytes::Bytes;
use takhin_client::{Client, ClientError, Consumer, ConsumerConfig, Isolation, OffsetSpec, Record};
use tracing::warn;

use super::{Checkpoint, Checkpoints};

/// The record of a checkpoint.
pub fn record(checkpoint: &Checkpoint) -> Record {
    Record {
        timestamp: Some(checkpoint.ts_ms),
        key: Some(key(&checkpoint.source_id, &checkpoint.db)),
        // Strings and numbers always serialize.
        value: Some(serde_json::to_vec(checkpoint).unwrap_or_default().into()),
        headers: vec![(
            "content-type".into(),
            Some(Bytes::from_static(b"application/json")),
        )],
    }
}

fn key(source_id: &str, db: &str) -> Bytes {
    Bytes::from(format!("{source_id}:{db}"))
}

/// The newest checkpoints of a source in all partitions of the topic, of those that are committed.
///
/// Those of a transaction that is open now may still be: its end is waited for, also where it is another source's.
///
/// # Errors
///
/// [`ClientError`].
pub async fn read_topic(
    client: &Client,
    topic: &str,
    partitions: i32,
    source_id: &str,
) -> Result<Checkpoints, ClientError> {
    let mut found = Checkpoints::new();
    let mut consumer = Consumer::new(
        client.clone(),
        ConsumerConfig {
            isolation: Isolation::ReadCommitted,
            ..ConsumerConfig::default()
        },
    );
    let mut ends = Vec::new();
    for partition in 0..partitions {
        let first = client
            .offset(topic, partition, OffsetSpec::Earliest)
            .await?
            .unwrap_or(0);
        let end = client
            .offset(topic, partition, OffsetSpec::Latest)
            .await?
            .unwrap_or(0);
        if first < end {
            consumer.assign(topic, partition, first);
            ends.push((partition, end));
        }
    }
    let is_read = |consumer: &Consumer, (partition, end): &(i32, i64)| {
        consumer.position(topic, *partition).is_none_or(|at| at >= *end)
    };
    while !ends.iter().all(|end| is_read(&consumer, end)) {
        for consumed in consumer.poll().await? {
            let (Some(key), Some(value)) = (consumed.record.key, consumed.record.value) else {
                continue;
            };
            if !key.starts_with(source_id.as_bytes()) {
                continue;
            }
            match serde_json::from_slice::<Checkpoint>(&value) {
                // Later records are newer: a position may have been moved back by hand.
                Ok(checkpoint) if checkpoint.is_of(source_id) => {
                    found.insert(checkpoint.db.clone(), checkpoint);
                }
                Ok(_) => {}
                Err(error) => {
                    let offset = consumed.offset;
                    warn!(topic, offset, %error, "a position in the topic makes no sense; it is passed over");
                }
            }
        }
    }
    Ok(found)
}
