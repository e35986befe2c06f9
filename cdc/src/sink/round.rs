//! What is written together: batches by partition, and what is to be done when all of them are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use takhin_client::{NewRecord, Packed, Spare};
use takhin_config::CdcConfig;
use takhin_config::cdc::{Oversize, PartitionBy};
use tokio::sync::oneshot;
use tracing::Span;

use super::error::SinkError;
use super::topics::Topics;
use crate::event::{Encoder, Event, Filter, Kind, Source, partition_of, put_record_key};
use crate::metrics;
use crate::queue::{Permit, Progress, Work};
use crate::source::Ack;

/// Bytes of a round after which no more is added to it, over all partitions.
const MAX_BYTES: u64 = 16 << 20;

/// Bytes of memory that is kept for the next records.
const KEPT: usize = 1 << 20;

/// Headers of a record.
const HEADERS: usize = 6;

/// Makes records of events.
pub(super) struct Recorder {
    pub(super) topics: Topics,
    /// The topic of changes, and that of data sets if it is another one, with their partitions.
    written: Vec<(Arc<str>, i32)>,
    pub(super) encoder: Arc<dyn Encoder>,
    pub(super) filter: Filter,
    partition_by: PartitionBy,
    oversize: Oversize,
    max_record: usize,
    max_batch: usize,
}

/// Memory that records are made in, one after the other.
#[derive(Debug, Default)]
pub(super) struct Room {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// A record that was made.
#[derive(Debug)]
pub(super) struct Made<'a> {
    timestamp: i64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    headers: [(&'a str, Option<&'a [u8]>); HEADERS],
}

/// Records of one partition that are sent together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Packed,
    pub(super) bytes: usize,
}

/// Number of a topic, and partition.
pub(super) type Place = (usize, i32);

type Batches = BTreeMap<Place, VecDeque<Batch>>;

/// A round.
#[derive(Default)]
pub(super) struct Round {
    batches: Batches,
    /// Where batches take their memory from.
    spare: Spare,
    is_full: bool,
    pub(super) works: usize,
    pub(super) bytes: u64,
    pub(super) progress: BTreeMap<Arc<str>, Progress>,
    pub(super) acks: Vec<Ack>,
    pub(super) done: Vec<oneshot::Sender<()>>,
    pub(super) counts: BTreeMap<(Arc<str>, &'static str), u64>,
    permits: Vec<Permit>,
    /// From the first batch that is sent to the note of how far it came.
    pub(super) span: Option<Span>,
}

impl Recorder {
    pub(super) fn new(config: &CdcConfig, topics: Topics, encoder: Arc<dyn Encoder>) -> Self {
        let mut names = vec![&topics.binlog, &topics.snapshot];
        names.dedup();
        let partitions = |topic: &String| (topic.as_str().into(), topics.partitions(topic));
        Self {
            written: names.into_iter().map(partitions).collect(),
            topics,
            encoder,
            filter: Filter::new(&config.filters),
            partition_by: config.sink.partition_by,
            oversize: config.sink.oversize,
            max_record: config.sink.max_record_size.as_usize(),
            max_batch: config.sink.batch_size.as_usize(),
        }
    }

    /// Number of the topic of an event.
    fn number_of(&self, event: &Event) -> usize {
        let is_of_snapshot = match event.kind {
            Kind::Snapshot => true,
            Kind::Binlog => false,
            Kind::Control => event.snapshot.is_some(),
        };
        usize::from(is_of_snapshot).min(self.written.len() - 1)
    }

    /// The topic of this number.
    pub(super) fn topic(&self, number: usize) -> &Arc<str> {
        &self.written[number].0
    }

    /// The topic of an event.
    pub(super) fn topic_of(&self, event: &Event) -> &Arc<str> {
        self.topic(self.number_of(event))
    }

    /// Whether records can be made of all events; those that are small by far are not made to see it.
    fn check(&self, source: &Source, events: &[Event], room: &mut Room) -> Result<(), SinkError> {
        if self.oversize == Oversize::Skip {
            return Ok(());
        }
        let large = |event: &&Event| most(source, event) > self.max_record;
        for event in events.iter().filter(large) {
            if self.filter.refuses(event).is_none() {
                self.sized(source, event, room)?;
            }
        }
        Ok(())
    }

    /// The record of an event; none if it is too large, and that is no error.
    pub(super) fn sized<'a>(
        &self,
        source: &'a Source,
        event: &'a Event,
        room: &'a mut Room,
    ) -> Result<Option<Made<'a>>, SinkError> {
        let made = self.made(source, event, room);
        let len = made.len();
        if len <= self.max_record {
            return Ok(Some(made));
        }
        match self.oversize {
            Oversize::Stop => Err(SinkError::Oversize {
                event_id: event.event_id.clone(),
                len,
                max: self.max_record,
            }),
            Oversize::Skip => {
                metrics::OVERSIZE.inc();
                tracing::warn!(
                    event_id = event.event_id,
                    len,
                    "event left out: its record is too large"
                );
                Ok(None)
            }
        }
    }

    fn made<'a>(&self, source: &'a Source, event: &'a Event, room: &'a mut Room) -> Made<'a> {
        let Room { key, value } = room;
        for part in [&mut *key, &mut *value] {
            part.clear();
            part.shrink_to(KEPT);
        }
        put_record_key(event, self.partition_by, key);
        self.encoder.encode(source, event, value);
        let data_type = event.data_type.map_or("", |data_type| data_type.name());
        let headers = [
            ("takhin.event_id", &*event.event_id),
            ("takhin.source", &*source.id),
            ("takhin.op", &*event.op),
            ("takhin.db", &*event.db),
            ("takhin.type", data_type),
            ("content-type", self.encoder.content_type()),
        ];
        Made {
            timestamp: event.ts_ms,
            key,
            value,
            headers: headers.map(|(name, text)| (name, Some(text.as_bytes()))),
        }
    }
}

impl Made<'_> {
    /// Bytes of it, but for what a batch adds.
    fn len(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len));
        self.key.len() + self.value.len() + headers.sum::<usize>()
    }

    fn record(&self) -> NewRecord<'_> {
        NewRecord {
            timestamp: self.timestamp,
            key: Some(self.key),
            value: Some(self.value),
            headers: &self.headers,
        }
    }
}

/// Bytes that the record of an event has at most.
fn most(source: &Source, event: &Event) -> usize {
    // Names of fields, numbers and headers.
    const FIXED: usize = 2048;
    // Around a word: quotes and the comma, the end of its base64, its length in the raw command.
    const WORD: usize = 64;
    // A character that is written as `\u0000`, and once more as it is in a header.
    const ESCAPED: usize = 7;
    // Escaped, in base64, and as it is.
    const KEY: usize = 9;
    // Base64, twice.
    const BYTES: usize = 3;
    let texts = [
        &*event.op,
        &event.db,
        &event.event_id,
        &source.id,
        &source.host,
        &source.version,
    ];
    let texts: usize = texts.into_iter().map(str::len).sum();
    let snapshot = event.snapshot.as_ref().map_or(0, |snapshot| snapshot.id.len());
    let escaped = texts + source.replication_id.len() + snapshot;
    // The database is in the key as well, the command in the raw one.
    let fixed = FIXED + escaped * (ESCAPED + 2);
    let words = event.args.iter().map(|arg| arg.len() * BYTES + WORD);
    fixed + event.key.as_ref().map_or(0, |key| key.len() * KEY) + words.sum::<usize>()
}

impl Round {
    /// A round behind this one.
    pub(super) fn following(&self) -> Self {
        Self {
            spare: self.spare.clone(),
            ..Self::default()
        }
    }

    /// Adds work: all of it, or nothing where one of its events cannot be written.
    pub(super) fn add(
        &mut self,
        (recorder, room): (&Recorder, &mut Room),
        source: &Source,
        mut work: Work,
    ) -> Result<(), SinkError> {
        recorder.check(source, &work.events, room)?;
        let is_alike = |a: &Event, b: &Event| a.kind == b.kind && a.db == b.db;
        for events in work.events.chunk_by(is_alike) {
            let mut count = 0;
            for event in events {
                count += u64::from(self.add_event((recorder, &mut *room), source, event)?);
            }
            if let Some(first) = events.first().filter(|_| count > 0) {
                let counted = (Arc::clone(&first.db), first.kind.name());
                *self.counts.entry(counted).or_default() += count;
            }
        }
        work.events = Vec::new();
        if let Some(progress) = work.progress.take() {
            self.progress.insert(Arc::clone(&progress.db), progress);
        }
        self.acks.extend(work.ack.take());
        self.done.extend(work.done.take());
        self.permits.push(work.into_permit());
        self.works += 1;
        Ok(())
    }

    /// Adds an event. Returns whether it is to be written.
    fn add_event(
        &mut self,
        (recorder, room): (&Recorder, &mut Room),
        source: &Source,
        event: &Event,
    ) -> Result<bool, SinkError> {
        if !event.is_known {
            metrics::UNKNOWN.with([&event.db]).inc();
        }
        if event.has_more_keys {
            metrics::MORE_KEYS.with([&event.db]).inc();
        }
        if let Some(rule) = recorder.filter.refuses(event) {
            metrics::FILTERED.with([rule.name()]).inc();
            return Ok(false);
        }
        let Some(made) = recorder.sized(source, event, room)? else {
            return Ok(false);
        };
        let topic = recorder.number_of(event);
        let partitions = recorder.written[topic].1;
        let (record, len) = (made.record(), made.len());
        if event.key.is_some() {
            let partition = partition_of(made.key, partitions);
            self.put((topic, partition), record, len, recorder.max_batch);
        } else {
            // It concerns all keys: whoever reads one partition meets it behind what was before it.
            for partition in 0..partitions {
                self.put((topic, partition), record, len, recorder.max_batch);
            }
        }
        Ok(true)
    }

    fn put(&mut self, place: Place, record: NewRecord<'_>, len: usize, max: usize) {
        let batches = self.batches.entry(place).or_default();
        if batches.back().is_none_or(|batch| batch.bytes + len > max) {
            self.is_full |= !batches.is_empty();
            batches.push_back(Batch {
                records: self.spare.packed(),
                bytes: 0,
            });
        }
        if let Some(batch) = batches.back_mut() {
            batch.records.push(record);
            batch.bytes += len;
        }
        self.bytes += len as u64;
        self.is_full |= self.bytes >= MAX_BYTES;
    }

    /// Whether a partition has more than one batch can hold, or all together have enough.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether batches are left to be taken.
    pub(super) fn has_batches(&self) -> bool {
        !self.batches.is_empty()
    }

    /// Whether it holds no work.
    pub(super) fn is_empty(&self) -> bool {
        self.works == 0
    }

    /// The next batch of each partition; none when all were taken. One of a partition is to be written before the next
    /// is sent, so that nothing is behind a batch that fails.
    pub(super) fn next_batches(&mut self) -> Vec<(Place, Batch)> {
        let mut next = Vec::new();
        self.batches.retain(|place, batches| {
            next.extend(batches.pop_front().map(|batch| (*place, batch)));
            !batches.is_empty()
        });
        next
    }
}

#[cfg(test)]
mod tests {
    use takhin_pika::Position;
    use takhin_pika::command::DataType;

    use super::*;
    use crate::event::{Json, Part, Place as Of, SnapshotRef};

    /// Events that may be too large are looked at before anything of their work is added; others are not.
    #[test]
    fn no_record_is_larger_than_it_may_be() {
        let odd: String = (0..32).map(char::from).collect();
        let source = Source {
            id: odd.clone(),
            host: odd.clone(),
            port: u16::MAX,
            version: odd.clone(),
            replication_id: odd.clone(),
        };
        let word = bytes::Bytes::from(odd.clone());
        for (count, len) in [(0, 0), (1, 32), (1000, 1), (3, 32)] {
            let place = Of {
                start: Position::new(u32::MAX, u64::MAX),
                end: Position::new(u32::MAX, u64::MAX),
                logic_id: u64::MAX,
                origin: u32::MAX,
                sub: u32::MAX,
            };
            let event = Event {
                kind: Kind::Binlog,
                op: odd.clone().into(),
                data_type: Some(DataType::String),
                db: odd.as_str().into(),
                key: Some(word.clone()),
                args: vec![word.slice(..len); count],
                ts_ms: i64::MIN,
                event_id: odd.clone(),
                expire_at_ms: Some(i64::MIN),
                place: Some(place),
                part: Some(Part {
                    index: u32::MAX,
                    is_last: false,
                }),
                snapshot: Some(SnapshotRef {
                    id: odd.as_str().into(),
                    position: place.start,
                    is_exact: false,
                    reason: "position_lost",
                }),
                is_random: true,
                has_more_keys: true,
                is_known: true,
            };
            let config = CdcConfig::default();
            let encoder = Arc::new(Json { has_raw: true });
            let recorder = Recorder::new(&config, Topics::named(&config), encoder);
            let mut room = Room::default();
            let len = recorder.made(&source, &event, &mut room).len();
            assert!(len <= most(&source, &event), "{len} {}", most(&source, &event));
        }
    }

    /// What is behind a batch that fails must not be written.
    #[test]
    fn of_a_partition_one_batch_is_sent_at_a_time() {
        let mut round = Round::default();
        for partition in [0, 0, 1, 0] {
            round.put((0, partition), NewRecord::default(), 10, 15);
        }
        let mut sent = Vec::new();
        while round.has_batches() {
            let next = round.next_batches().into_iter();
            sent.push(
                next.map(|((_, partition), batch)| (partition, batch.records.len()))
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!(sent, [vec![(0, 1), (1, 1)], vec![(0, 1)], vec![(0, 1)]]);
    }
}
