//! What is written together: batches by partition, and what is to be done when all of them are.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use takhin_client::Record;
use takhin_config::CdcConfig;
use takhin_config::cdc::{Oversize, PartitionBy};
use tokio::sync::oneshot;
use tracing::Span;

use super::error::SinkError;
use super::topics::Topics;
use crate::event::{Encoder, Event, Filter, Kind, Source, partition_of, record_key};
use crate::metrics;
use crate::queue::{Permit, Progress, Work};
use crate::source::Ack;

/// Bytes of a round after which no more is added to it, over all partitions.
const MAX_BYTES: u64 = 16 << 20;

/// Makes records of events.
pub(super) struct Recorder {
    pub(super) topics: Topics,
    snapshot: Arc<str>,
    binlog: Arc<str>,
    pub(super) encoder: Arc<dyn Encoder>,
    pub(super) filter: Filter,
    partition_by: PartitionBy,
    oversize: Oversize,
    max_record: usize,
    max_batch: usize,
}

/// Records of one partition that are sent together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) bytes: usize,
}

/// Batches by topic and partition.
type Batches = BTreeMap<(Arc<str>, i32), VecDeque<Batch>>;

/// A round.
#[derive(Default)]
pub(super) struct Round {
    batches: Batches,
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
        Self {
            snapshot: topics.snapshot.as_str().into(),
            binlog: topics.binlog.as_str().into(),
            topics,
            encoder,
            filter: Filter::new(&config.filters),
            partition_by: config.sink.partition_by,
            oversize: config.sink.oversize,
            max_record: config.sink.max_record_size.as_usize(),
            max_batch: config.sink.batch_size.as_usize(),
        }
    }

    fn topic_of(&self, event: &Event) -> Arc<str> {
        let is_of_snapshot = match event.kind {
            Kind::Snapshot => true,
            Kind::Binlog => false,
            Kind::Control => event.snapshot.is_some(),
        };
        match is_of_snapshot {
            true => Arc::clone(&self.snapshot),
            false => Arc::clone(&self.binlog),
        }
    }

    /// The record of an event with its topic and size; none if it is too large, and that is no error.
    pub(super) fn sized(
        &self,
        source: &Source,
        event: &Event,
    ) -> Result<Option<(Arc<str>, Record, usize)>, SinkError> {
        let record = self.record(source, event);
        let len = len(&record);
        if len <= self.max_record {
            return Ok(Some((self.topic_of(event), record, len)));
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

    fn record(&self, source: &Source, event: &Event) -> Record {
        let text = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
        let known = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let data_type = event.data_type.map_or("", |data_type| data_type.name());
        let op = match event.op {
            Cow::Borrowed(op) => known(op),
            Cow::Owned(ref op) => text(op),
        };
        let mut value = Vec::new();
        self.encoder.encode(source, event, &mut value);
        Record {
            timestamp: Some(event.ts_ms),
            key: Some(record_key(event, self.partition_by)),
            value: Some(value.into()),
            headers: vec![
                ("takhin.event_id".into(), text(&event.event_id)),
                ("takhin.source".into(), text(&source.id)),
                ("takhin.op".into(), op),
                ("takhin.db".into(), text(&event.db)),
                ("takhin.type".into(), known(data_type)),
                ("content-type".into(), known(self.encoder.content_type())),
            ],
        }
    }
}

impl Round {
    /// Adds work: all of it, or nothing where one of its events cannot be written.
    pub(super) fn add(
        &mut self,
        recorder: &Recorder,
        source: &Source,
        mut work: Work,
    ) -> Result<(), SinkError> {
        let mut made = Vec::with_capacity(work.events.len());
        for event in &work.events {
            if !event.is_known {
                metrics::UNKNOWN.with([&event.db]).inc();
            }
            if event.has_more_keys {
                metrics::MORE_KEYS.with([&event.db]).inc();
            }
            match recorder.filter.refuses(event) {
                Some(rule) => metrics::FILTERED.with([rule.name()]).inc(),
                None => made.extend(recorder.sized(source, event)?.map(|record| (event, record))),
            }
        }
        for (event, record) in made {
            self.push(recorder, event, record);
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

    fn push(&mut self, recorder: &Recorder, event: &Event, (topic, record, len): (Arc<str>, Record, usize)) {
        let partitions = recorder.topics.partitions(&topic);
        *self
            .counts
            .entry((Arc::clone(&event.db), event.kind.name()))
            .or_default() += 1;
        if event.key.is_some() {
            let partition = partition_of(record.key.as_deref().unwrap_or_default(), partitions);
            self.put(topic, partition, record, len, recorder.max_batch);
        } else {
            // It concerns all keys: whoever reads one partition meets it behind what was before it.
            for partition in 0..partitions {
                self.put(
                    Arc::clone(&topic),
                    partition,
                    record.clone(),
                    len,
                    recorder.max_batch,
                );
            }
        }
    }

    fn put(&mut self, topic: Arc<str>, partition: i32, record: Record, len: usize, max: usize) {
        let batches = self.batches.entry((topic, partition)).or_default();
        if batches.back().is_none_or(|batch| batch.bytes + len > max) {
            self.is_full |= !batches.is_empty();
            batches.push_back(Batch::default());
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
    pub(super) fn next_batches(&mut self) -> Vec<((Arc<str>, i32), Batch)> {
        let mut next = Vec::new();
        self.batches.retain(|place, batches| {
            next.extend(batches.pop_front().map(|batch| (place.clone(), batch)));
            !batches.is_empty()
        });
        next
    }
}

/// Bytes of a record, but for what a batch adds.
fn len(record: &Record) -> usize {
    let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| name.len() + of(value))
        .sum();
    of(&record.key) + of(&record.value) + headers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is behind a batch that fails must not be written.
    #[test]
    fn of_a_partition_one_batch_is_sent_at_a_time() {
        let mut round = Round::default();
        for partition in [0, 0, 1, 0] {
            round.put("t".into(), partition, Record::of("v"), 10, 15);
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
