//! The batches of one producer in one partition.
//!
//! ```text
//! jobs ──> unsent ── send, numbered ──> in_flight ── answered ──> done
//!             ^                            │
//!             └── replay, in order <── failed retriably
//! ```
//!
//! Order is kept by settling everything in flight before anything is sent again: the batches that failed go back to
//! the front of `unsent` in their order, with the sequence numbers they had, so that the broker recognizes those that
//! it did append.
//!
//! When a batch fails for good, its sequence numbers are a gap that the broker will not cross. The epoch is then
//! raised and numbers begin at 0 again (KIP-360). That is safe only for batches that were certainly not appended: if
//! the failed one's outcome is unknown, those sent after it fail too, because they may be there.
//!
//! The first batch of an epoch is alone in flight: a broker that knows nothing of a producer takes any number for its
//! first (KIP-360). One that refuses the first batch, because it does not lead yet, and takes the second one, could
//! never take the first.

use std::collections::VecDeque;
use std::sync::Arc;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use takhin_protocol::messages::{ProduceRequest, ProduceResponse, StrBytes, TopicName};
use takhin_protocol::record::Batch;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Job, Shared};
use crate::backoff::Backoff;
use crate::connection::Reply;
use crate::error::ClientError;

/// From 13 on Produce names topics by id.
const MAX_VERSION: i16 = 12;

pub(super) struct Lane {
    shared: Arc<Shared>,
    topic: String,
    partition: i32,
    jobs: mpsc::Receiver<Job>,
    /// Whether more jobs may come.
    open: bool,
    identity: Option<Identity>,
    unsent: VecDeque<Entry>,
    in_flight: VecDeque<(Entry, Reply<ProduceRequest>)>,
    backoff: Backoff,
}

/// A job on its way.
struct Entry {
    job: Job,
    /// Whether it was ever sent; then its batch carries the sequence number it was sent with.
    sent: bool,
    /// Whether an attempt ended without telling whether the batch was appended.
    maybe: bool,
}

impl Entry {
    fn new(job: Job) -> Self {
        Self {
            job,
            sent: false,
            maybe: false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Identity {
    producer_id: i64,
    epoch: i16,
    next_sequence: i32,
    /// Whether the broker has a batch of this epoch.
    is_known: bool,
}

/// What to do with a batch after an answer.
enum Settled {
    /// It is there, at this offset.
    Done(i64),
    /// Send it again.
    Again(ClientError),
    /// It failed for good.
    Failed(ClientError),
}

/// Sequence numbers that the broker waits for and that no batch has any more.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// Whether the batches that had them may be there.
    unknown: bool,
}

impl Gap {
    /// The gap that `entry` leaves by failing, together with one before it.
    fn after(before: Option<Self>, entry: &Entry, error: &ClientError) -> Self {
        let unknown = before.is_some_and(|gap| gap.unknown) || entry.maybe || error.is_unknown_outcome();
        Self { unknown }
    }
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, topic: &str, partition: i32, jobs: mpsc::Receiver<Job>) -> Self {
        let backoff = shared.client.backoff(None);
        Self {
            shared,
            topic: topic.to_owned(),
            partition,
            jobs,
            open: true,
            identity: None,
            unsent: VecDeque::new(),
            in_flight: VecDeque::new(),
            backoff,
        }
    }

    /// Runs until no job can come any more and all are settled.
    pub(super) async fn run(mut self) {
        loop {
            if let Err(error) = self.send_unsent().await {
                self.recover(error).await;
                continue;
            }
            let room = self.open && self.in_flight.len() < self.max_in_flight();
            let Some((_, oldest)) = self.in_flight.front_mut() else {
                match self.jobs.recv().await {
                    Some(job) => self.unsent.push_back(Entry::new(job)),
                    None => return,
                }
                continue;
            };
            tokio::select! {
                biased;
                answer = oldest.wait() => self.answered(answer).await,
                job = self.jobs.recv(), if room => match job {
                    Some(job) => self.unsent.push_back(Entry::new(job)),
                    None => self.open = false,
                },
            }
        }
    }

    /// Sends what waits, as far as places in flight go. On an error the rest stays where it is.
    async fn send_unsent(&mut self) -> Result<(), ClientError> {
        while self.in_flight.len() < self.max_in_flight() {
            let now = self.shared.client.env().clock.instant();
            // What was never sent has no number and leaves no gap.
            while let Some(entry) =
                pop_front_if(&mut self.unsent, |entry| !entry.sent && entry.job.deadline <= now)
            {
                finish(entry, Err(self.late()));
            }
            if self.unsent.is_empty() {
                break;
            }
            let (connection, _) = self.shared.client.leader(&self.topic, self.partition).await?;
            let version = connection.version::<ProduceRequest>(MAX_VERSION)?;
            self.number().await?;
            let Some(entry) = self.unsent.front() else { break };
            let reply = connection.send(version, &self.request(&entry.job.batch)).await?;
            if let Some(mut entry) = self.unsent.pop_front() {
                entry.sent = true;
                self.in_flight.push_back((entry, reply));
            }
        }
        Ok(())
    }

    /// Batches that may be in flight now.
    fn max_in_flight(&self) -> usize {
        let config = &self.shared.config;
        let is_first = config.idempotent && !self.identity.is_some_and(|identity| identity.is_known);
        if is_first { 1 } else { config.max_in_flight }
    }

    /// Gives the first unsent batch its sequence number, unless it was sent and has one.
    async fn number(&mut self) -> Result<(), ClientError> {
        if !self.shared.config.idempotent {
            return Ok(());
        }
        let mut identity = match self.identity {
            Some(identity) => identity,
            None => {
                let (producer_id, epoch) = self.shared.identity().await?;
                Identity {
                    producer_id,
                    epoch,
                    next_sequence: 0,
                    is_known: false,
                }
            }
        };
        if let Some(entry) = self.unsent.front_mut().filter(|entry| !entry.sent) {
            let header = &mut entry.job.batch.header;
            header.producer_id = identity.producer_id;
            header.producer_epoch = identity.epoch;
            header.base_sequence = identity.next_sequence;
            identity.next_sequence = sequence_after(identity.next_sequence, header.records_count);
            entry.job.batch.header.crc = entry.job.batch.compute_crc();
            // From here on the number is taken, also if sending fails: the broker may have seen a part of it.
            entry.sent = true;
        }
        self.identity = Some(identity);
        Ok(())
    }

    fn request(&self, batch: &Batch) -> ProduceRequest {
        let data = PartitionProduceData::default()
            .with_index(self.partition)
            .with_records(Some(batch.to_bytes()));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(self.topic.clone())))
            .with_partition_data(vec![data]);
        ProduceRequest::default()
            .with_acks(self.shared.config.acks.code())
            .with_timeout_ms(i32::try_from(self.shared.config.commit_timeout.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![topic])
    }

    /// Settles the oldest request; if it failed, all others too.
    async fn answered(&mut self, answer: Result<ProduceResponse, ClientError>) {
        let Some((entry, _)) = self.in_flight.pop_front() else {
            return;
        };
        match self.judge(answer) {
            Settled::Done(offset) => {
                self.backoff.reset();
                finish(entry, Ok(offset));
            }
            Settled::Again(error) => {
                let maybe = entry.maybe || error.is_unknown_outcome();
                self.settle_rest(vec![Entry { maybe, ..entry }], None).await;
                self.recover(error).await;
            }
            Settled::Failed(error) => {
                let gap = Gap::after(None, &entry, &error);
                finish(entry, Err(error));
                let gap = self.settle_rest(Vec::new(), Some(gap)).await;
                self.restart_numbers(gap).await;
            }
        }
    }

    /// Waits for everything in flight and puts what is to be sent again, `again` first, before what is unsent.
    ///
    /// `gap` says that a batch before all of it failed for good. Returns whether there is a gap in the sequence numbers
    /// now, before everything that is unsent, and then whether the failed batches may be there nevertheless.
    async fn settle_rest(&mut self, mut again: Vec<Entry>, mut gap: Option<Gap>) -> Option<Gap> {
        while let Some((entry, mut reply)) = self.in_flight.pop_front() {
            match self.judge(reply.wait().await) {
                Settled::Done(offset) => finish(entry, Ok(offset)),
                Settled::Again(error) => {
                    let maybe = entry.maybe || error.is_unknown_outcome();
                    again.push(Entry { maybe, ..entry });
                }
                // Its turn comes after the batches before it, and then it fails again: a gap behind them could not be
                // told from one before them.
                Settled::Failed(_) if !again.is_empty() => again.push(entry),
                // The fault of the batch before it.
                Settled::Failed(ClientError::Code {
                    code: ErrorCode::OutOfOrderSequenceNumber,
                    ..
                }) if gap.is_some() => {
                    again.push(entry);
                }
                Settled::Failed(error) => {
                    gap = Some(Gap::after(gap, &entry, &error));
                    finish(entry, Err(error));
                }
            }
        }
        again
            .into_iter()
            .rev()
            .for_each(|entry| self.unsent.push_front(entry));
        gap
    }

    fn judge(&mut self, answer: Result<ProduceResponse, ClientError>) -> Settled {
        let outcome = answer.and_then(|response| {
            let partition = response
                .responses
                .first()
                .and_then(|topic| topic.partition_responses.first());
            let partition = partition.ok_or_else(|| ClientError::Mismatch { address: self.name() })?;
            ClientError::check(partition.error_code, || format!("produce to {}", self.name()))?;
            Ok(partition.base_offset)
        });
        match outcome {
            Ok(offset) => self.is_there(offset),
            Err(ClientError::Code {
                code: ErrorCode::DuplicateSequenceNumber,
                ..
            }) => self.is_there(-1),
            // A batch that arrived damaged is whole on this side.
            Err(error) if error.is_retriable() => Settled::Again(error),
            Err(error) => Settled::Failed(error),
        }
    }

    fn is_there(&mut self, offset: i64) -> Settled {
        if let Some(identity) = &mut self.identity {
            identity.is_known = true;
        }
        Settled::Done(offset)
    }

    /// After a retriable failure: gives up what is too late, waits, learns who leads now.
    async fn recover(&mut self, error: ClientError) {
        debug!(topic = %self.topic, partition = self.partition, error = %error, "produce will be repeated");
        self.shared.config.on_retry.tell(&self.topic);
        let gap = self.settle_rest(Vec::new(), None).await;
        self.restart_numbers(gap).await;
        if !error.is_retriable() {
            // Not a matter of one batch: this cluster cannot be produced to.
            if let Some(entry) = self.unsent.pop_front() {
                let gap = Gap { unknown: entry.maybe };
                finish(entry, Err(error));
                self.restart_numbers(Some(gap)).await;
            }
            return;
        }
        let now = self.shared.client.env().clock.instant();
        while let Some(entry) =
            pop_front_if(&mut self.unsent, |entry| entry.sent && entry.job.deadline <= now)
        {
            let gap = Gap { unknown: entry.maybe };
            finish(entry, Err(self.late()));
            self.restart_numbers(Some(gap)).await;
        }
        if self.unsent.is_empty() {
            return;
        }
        self.backoff.pause().await;
        if let Err(error) = self.shared.client.refresh(&[&self.topic]).await {
            debug!(topic = %self.topic, error = %error, "no metadata");
        }
    }

    /// If there is a gap, begins a new epoch so that what waits can be numbered without it. If the failed batches may
    /// be there, so may those sent after them, and these fail too.
    async fn restart_numbers(&mut self, gap: Option<Gap>) {
        let Some(gap) = gap.filter(|_| self.shared.config.idempotent) else {
            return;
        };
        while gap.unknown
            && let Some(entry) = pop_front_if(&mut self.unsent, |entry| entry.sent)
        {
            finish(entry, Err(self.late()));
        }
        self.unsent.iter_mut().for_each(|entry| entry.sent = false);
        let Some(identity) = self.identity else { return };
        let next = match identity.epoch.checked_add(1) {
            // The last epoch is never used, as in Kafka.
            Some(epoch) if epoch < i16::MAX => Ok((identity.producer_id, epoch)),
            _ => self.shared.new_identity().await,
        };
        match next {
            Ok((producer_id, epoch)) => {
                self.identity = Some(Identity {
                    producer_id,
                    epoch,
                    next_sequence: 0,
                    is_known: false,
                })
            }
            Err(error) => {
                warn!(topic = %self.topic, partition = self.partition, error = %error, "no new producer id");
                // Asked for again with the next batch, because the last epoch cannot be raised.
            }
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    fn late(&self) -> ClientError {
        ClientError::TimedOut {
            address: self.name(),
            after: self.shared.config.delivery_timeout,
        }
    }
}

/// Takes the first entry if it is as wanted.
fn pop_front_if(entries: &mut VecDeque<Entry>, wanted: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
    entries.front().is_some_and(wanted).then(|| entries.pop_front())?
}

/// The sequence number after a batch: they go around from 2³¹-1 to 0 (KIP-98).
pub(crate) fn sequence_after(first: i32, records: i32) -> i32 {
    let next = (i64::from(first) + i64::from(records)) % (i64::from(i32::MAX) + 1);
    i32::try_from(next).unwrap_or(0)
}

fn finish(entry: Entry, outcome: Result<i64, ClientError>) {
    // Nobody has to wait for an outcome.
    let _ = entry.job.done.send(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_go_around_within_a_batch() {
        assert_eq!(sequence_after(0, 5), 5);
        assert_eq!(sequence_after(i32::MAX - 1, 2), 0);
        assert_eq!(sequence_after(i32::MAX, 3), 2);
    }
}
