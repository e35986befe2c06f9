//! Positions in the compacted topic: one key for each source and database.

use bytes::Bytes;
use takhin_client::{Client, ClientError, Consumer, ConsumerConfig, Isolation, OffsetSpec, Record};
use takhin_pika::Position;
use tracing::warn;

use super::{Checkpoint, Checkpoints, VERSION};

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
/// Of those that are not written in transactions the furthest counts, as between the topic and the file. One of a version that this build
/// does not know is there with that, and no more.
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
    (source_id, is_transactional): (&str, bool),
) -> Result<Checkpoints, ClientError> {
    let mut found = Found {
        source_id,
        is_transactional,
        checkpoints: Checkpoints::new(),
    };
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
            let Some(key) = consumed.record.key else {
                continue;
            };
            let offset = consumed.offset;
            let value = consumed.record.value;
            if let Err(error) = found.add(&key, value.as_deref()) {
                warn!(topic, offset, %error, "a position in the topic makes no sense; it is passed over");
            }
        }
    }
    Ok(found.checkpoints)
}

/// The positions of a source, of what was read so far.
struct Found<'a> {
    source_id: &'a str,
    is_transactional: bool,
    checkpoints: Checkpoints,
}

impl Found<'_> {
    /// Adds a record. Of an older process that ends slowly it may be behind one that has come before it; where they are written in
    /// transactions there is no such process. One without a value takes the position back.
    fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> serde_json::Result<()> {
        let of = key.strip_prefix(self.source_id.as_bytes());
        let Some(db) = of.and_then(|rest| rest.strip_prefix(b":")) else {
            return Ok(());
        };
        let Some(value) = value else {
            self.checkpoints.remove(&*String::from_utf8_lossy(db));
            return Ok(());
        };
        // The version first: a newer form may have other fields.
        let value: serde_json::Value = serde_json::from_slice(value)?;
        let version = value["version"].as_u64().unwrap_or(0);
        let checkpoint = if version > u64::from(VERSION) {
            let db = String::from_utf8_lossy(db);
            let mut newer = Checkpoint::new(self.source_id, &db, "", Position::default(), 0);
            newer.version = u32::try_from(version).unwrap_or(u32::MAX);
            newer
        } else {
            serde_json::from_value::<Checkpoint>(value)?
        };
        if checkpoint.source_id != self.source_id {
            return Ok(());
        }
        let is_late = |known: &Checkpoint| {
            let are_known = known.is_known() && checkpoint.is_known();
            !self.is_transactional && are_known && known.is_newer_than(&checkpoint)
        };
        if !self.checkpoints.get(&checkpoint.db).is_some_and(is_late) {
            self.checkpoints.insert(checkpoint.db.clone(), checkpoint);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64, epoch: u32) -> Checkpoint {
        let mut checkpoint = Checkpoint::new("a:1", "db0", "r", Position::new(0, offset), 5);
        checkpoint.epoch = epoch;
        checkpoint
    }

    fn read(records: &[Record], is_transactional: bool) -> Checkpoints {
        let mut found = Found {
            source_id: "a:1",
            is_transactional,
            checkpoints: Checkpoints::new(),
        };
        for Record { key, value, .. } in records {
            found.add(key.as_ref().unwrap(), value.as_deref()).unwrap();
        }
        found.checkpoints
    }

    /// A process that was to be killed writes its last position behind those of the one that has taken its place.
    #[test]
    fn a_position_of_before_that_comes_late_does_not_count() {
        let offset = |checkpoints: &[Checkpoint], is_transactional| {
            let records: Vec<_> = checkpoints.iter().map(record).collect();
            read(&records, is_transactional)["db0"].offset
        };
        assert_eq!(offset(&[at(1, 0), at(3, 0), at(2, 0)], false), 3);
        // A master that was restored, whose data set was taken again.
        assert_eq!(offset(&[at(3, 0), at(2, 1), at(4, 0)], false), 2);
        assert_eq!(offset(&[at(1, 0), at(3, 0), at(2, 0)], true), 2);
    }

    #[test]
    fn positions_of_others_that_were_taken_back_or_are_newer() {
        let of = |source: &str, db: &str| {
            let mut checkpoint = at(7, 0);
            (checkpoint.source_id, checkpoint.db) = (source.into(), db.into());
            record(&checkpoint)
        };
        let others = [of("a:12", "db0"), of("a", "1:db0"), of("b:1", "db0")];
        assert_eq!(read(&others, false), Checkpoints::new());
        let mut gone = of("a:1", "db1");
        gone.value = None;
        let records = [of("a:1", "db0"), of("a:1", "db1"), gone.clone()];
        assert_eq!(Vec::from_iter(read(&records, false).into_keys()), ["db0"]);
        let mut newer = of("a:1", "db0");
        newer.value = Some(r#"{"version": 9, "source": {"id": "a:1"}}"#.into());
        for records in [
            &[newer.clone()][..],
            &[of("a:1", "db0"), newer.clone(), of("a:1", "db0")],
        ] {
            let found = read(records, false);
            assert_eq!(found["db0"].is_known(), records.len() == 3);
        }
        let found = read(&[of("a:1", "db0"), newer], false);
        assert_eq!(found["db0"].version, 9);
    }
}
