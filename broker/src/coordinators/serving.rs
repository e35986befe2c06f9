//! A loaded shard at work.
//!
//! Requests that wait together are decided one after the other and their records go into as few batches as they fit.
//! Replies leave in the order of decisions, each after the batch that its decision is in; a reply without records waits
//! for the batch before it, because it may tell of it.
//!
//! A commit proves that this broker led when the replies before it were decided. Committed offsets that no commit vouches
//! for leave once a majority has confirmed that it leads: a consumer that begins at old ones would do again what its group
//! has done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use takhin_cluster::{Acks, Image, Partition, ProduceError, Produced, Waiter};
use takhin_coordinator::{Context, Now, Outcome, Record, RecordError, Reply, Shard, Ticket};
use takhin_protocol::ErrorCode;
use takhin_protocol::record::{Batch, BatchBuilder, BuildError, Compression, NewRecord};
use takhin_runtime::clock::Instant;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};
use uuid::Uuid;

use super::view::ImageTopics;
use super::{Message, settings};
use crate::context::Broker;

/// Requests decided before their records are proposed together.
const TOGETHER: usize = 64;

/// Batches that may wait for their commit; while there are as many, no further request is taken from the inbox.
const MAX_COMMITTING: usize = 64;

/// Bytes of records in one batch; the state machine keeps each outcome below it.
const MAX_BATCH: usize = (1 << 20) - 128;

/// Why a shard is served no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Another broker leads, or this one in another epoch.
    LostLeadership,
    /// What was decided did not get into the log: what the shard knows is no longer what the log says.
    NotCommitted,
    /// The broker stops.
    Stopped,
}

/// Replies that wait.
struct Committing {
    awaited: Awaited,
    replies: Vec<(Ticket, Reply)>,
}

/// What replies wait for once everything before them has left.
enum Awaited {
    Nothing,
    Commit(takhin_cluster::Ticket),
    /// Whether a majority confirms that this broker leads; asked when it is first polled.
    Confirmation(BoxFuture<'static, bool>),
}

/// What became of it.
enum Settled {
    Committed(Result<Produced, ProduceError>),
    Confirmed(bool),
}

pub(super) struct Serving {
    broker: Arc<Broker>,
    partition: Arc<Partition>,
    epoch: i32,
    shard: Shard,
    image: Arc<Image>,
    /// Origin of the shard's monotonic time.
    origin: Instant,
    next_ticket: u64,
    waiting: BTreeMap<Ticket, oneshot::Sender<Result<Reply, ErrorCode>>>,
    committing: VecDeque<Committing>,
}

impl Serving {
    pub(super) fn new(broker: Arc<Broker>, partition: Arc<Partition>, epoch: i32, mut shard: Shard) -> Self {
        let image = broker.cluster.image();
        // They may have changed while the shard was loaded.
        shard.configure(settings::group_config(&image));
        Self {
            image,
            origin: broker.env.clock.instant(),
            broker,
            partition,
            epoch,
            shard,
            next_ticket: 0,
            waiting: BTreeMap::new(),
            committing: VecDeque::new(),
        }
    }

    /// Serves until it cannot; `None` when nobody can reach the shard any more. Everybody who waits is answered.
    pub(super) async fn run(mut self, inbox: &mut mpsc::Receiver<Message>) -> Option<Ended> {
        let now = self.now();
        self.shard.loaded(now);
        let ended = match self.forget_deleted_topics(None) {
            Ok(()) => self.serve(inbox).await,
            Err(ended) => Some(ended),
        };
        for (ticket, reply) in self.shard.drop_waiting() {
            self.send(ticket, Ok(reply));
        }
        for (_, reply) in std::mem::take(&mut self.waiting) {
            // Whoever asked may have gone.
            let _ = reply.send(Err(ErrorCode::NotCoordinator));
        }
        ended
    }

    async fn serve(&mut self, inbox: &mut mpsc::Receiver<Message>) -> Option<Ended> {
        let broker = Arc::clone(&self.broker);
        let (clock, mut lost) = (
            &broker.env.clock,
            Box::pin(lost(Arc::clone(&self.partition), self.epoch)),
        );
        loop {
            let deadline = self.shard.next_deadline().map(|after| self.origin + after);
            let due = async {
                match deadline {
                    Some(deadline) => clock.sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let step = tokio::select! {
                biased;
                () = broker.stopping.wait() => return Some(Ended::Stopped),
                () = &mut lost => return Some(Ended::LostLeadership),
                settled = settled(&mut self.committing) => self.deliver(settled),
                () = due => {
                    let image = Arc::clone(&self.image);
                    let outcome = self.shard.expire(self.now(), &ImageTopics(&image));
                    self.carry_out(vec![outcome])
                }
                image = broker.cluster.image_after(self.image.end_offset) => {
                    let before = std::mem::replace(&mut self.image, image);
                    self.follow_settings(&before);
                    self.forget_deleted_topics(Some(&before))
                }
                message = inbox.recv(), if self.committing.len() < MAX_COMMITTING => {
                    self.decide(message?, inbox)
                }
            };
            if let Err(ended) = step {
                return Some(ended);
            }
        }
    }

    fn now(&self) -> Now {
        let clock = &self.broker.env.clock;
        Now {
            monotonic: clock.instant().saturating_duration_since(self.origin),
            wall_ms: clock.now_ms(),
        }
    }

    /// Decides on a request and on those that wait behind it.
    fn decide(&mut self, first: Message, inbox: &mut mpsc::Receiver<Message>) -> Result<(), Ended> {
        let mut outcomes = self.handle(first);
        for _ in 1..TOGETHER {
            let Ok(message) = inbox.try_recv() else { break };
            outcomes.extend(self.handle(message));
        }
        self.carry_out(outcomes)
    }

    fn handle(&mut self, message: Message) -> Vec<Outcome> {
        let request = match message {
            Message::Request(request) => request,
            Message::Look(look) => {
                look(&self.shard);
                return Vec::new();
            }
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, request.reply);
        let cx = Context {
            now: self.now(),
            ticket,
            version: request.version,
            client_id: &request.client_id,
            client_host: &request.client_host,
            uuid: Uuid::from_bytes(self.broker.env.rng.uuid()),
            topics: &ImageTopics(&self.image),
        };
        (request.job)(&mut self.shard, &cx)
    }

    fn follow_settings(&mut self, before: &Image) {
        if settings::differ(before, &self.image) {
            self.shard.configure(settings::group_config(&self.image));
        }
    }

    /// Deletes offsets of topics that are gone: those of `before`, or before loading.
    fn forget_deleted_topics(&mut self, before: Option<&Image>) -> Result<(), Ended> {
        let image = Arc::clone(&self.image);
        let outcomes = match before {
            None => self.shard.topics_missing(&ImageTopics(&image)),
            Some(before) => {
                // By id: a topic may have been created again under its name.
                let gone = before
                    .topics
                    .values()
                    .filter(|topic| image.topic_by_id(topic.id).is_none());
                let names: Vec<&str> = gone.map(|topic| topic.name.as_str()).collect();
                self.shard.topics_deleted(&names)
            }
        };
        self.carry_out(outcomes)
    }

    /// Proposes the records of `outcomes`, each whole in one batch, and has their replies wait for it.
    fn carry_out(&mut self, outcomes: Vec<Outcome>) -> Result<(), Ended> {
        let mut group = Outcome::default();
        let mut bytes = 0;
        for outcome in outcomes {
            let size = outcome.records.iter().map(Record::size).sum::<usize>();
            if bytes + size > MAX_BATCH && !group.records.is_empty() {
                self.propose(std::mem::take(&mut group))?;
                bytes = 0;
            }
            bytes += size;
            group.records.extend(outcome.records);
            group.replies.extend(outcome.replies);
        }
        self.propose(group)
    }

    fn propose(&mut self, outcome: Outcome) -> Result<(), Ended> {
        let Outcome { records, replies } = outcome;
        let awaited = if records.is_empty() {
            let tells_offsets = |(_, reply): &(Ticket, Reply)| matches!(reply, Reply::OffsetFetch(_));
            if replies.iter().any(tells_offsets) {
                self.confirm(replies);
                return Ok(());
            }
            Awaited::Nothing
        } else {
            let proposed = self.batch(&records).map_err(|error| {
                // The state machine bounds everything that could make this fail.
                warn!(partition = %self.partition.id(), %error, "records of groups cannot be written");
                Ended::NotCommitted
            })?;
            let proposed = self.partition.produce(proposed, Acks::All);
            Awaited::Commit(proposed.map_err(|error| self.not_committed(&error))?)
        };
        self.committing.push_back(Committing { awaited, replies });
        self.deliver_ready();
        Ok(())
    }

    /// Has replies wait until it is confirmed that this broker leads.
    fn confirm(&mut self, replies: Vec<(Ticket, Reply)>) {
        let is_waiting = self.committing.len() > 1;
        if let Some(last) = self.committing.back_mut().filter(|_| is_waiting)
            && matches!(last.awaited, Awaited::Confirmation(_))
        {
            // Only the first is polled, so this one has not been asked for: it does for what is decided now as well.
            last.replies.extend(replies);
            return;
        }
        let (cluster, partition) = (Arc::clone(&self.broker.cluster), Arc::clone(&self.partition));
        let epoch = self.epoch;
        let confirmed = async move { cluster.confirms_leadership(&partition, epoch).await };
        self.committing.push_back(Committing {
            awaited: Awaited::Confirmation(confirmed.boxed()),
            replies,
        });
    }

    fn batch(&self, records: &[Record]) -> Result<Batch, Unwritable> {
        let timestamp = self.broker.env.clock.now_ms();
        let mut builder = BatchBuilder::new(Compression::None);
        for record in records {
            let (key, value) = record.encode()?;
            builder.push(NewRecord {
                timestamp,
                key: Some(&key),
                value: value.as_deref(),
                headers: &[],
            });
        }
        Ok(builder.build()?)
    }

    fn not_committed(&self, error: &ProduceError) -> Ended {
        debug!(partition = %self.partition.id(), %error, "groups are loaded again");
        match error {
            ProduceError::NotLeader | ProduceError::Unknown | ProduceError::Deleted => Ended::LostLeadership,
            ProduceError::StorageOffline { .. }
            | ProduceError::OutOfOrderSequence { .. }
            | ProduceError::InvalidProducerEpoch { .. }
            | ProduceError::NotEnoughReplicas { .. }
            | ProduceError::NotEnoughReplicasAfterAppend { .. }
            | ProduceError::TooManyInFlight { .. }
            | ProduceError::LargerThanSegment { .. } => Ended::NotCommitted,
        }
    }

    /// What the first replies waited for has happened, or will not.
    fn deliver(&mut self, settled: Settled) -> Result<(), Ended> {
        let may_leave = match settled {
            Settled::Committed(committed) => {
                committed.map_err(|error| self.not_committed(&error))?;
                true
            }
            Settled::Confirmed(confirmed) => confirmed,
        };
        if let Some(first) = self.committing.pop_front() {
            if may_leave {
                self.send_all(first.replies);
            } else {
                debug!(partition = %self.partition.id(), "no majority confirms that this broker coordinates");
                for (ticket, _) in first.replies {
                    self.send(ticket, Err(ErrorCode::NotCoordinator));
                }
            }
        }
        self.deliver_ready();
        Ok(())
    }

    /// Sends the replies that nothing is before.
    fn deliver_ready(&mut self) {
        while self
            .committing
            .front()
            .is_some_and(|first| matches!(first.awaited, Awaited::Nothing))
        {
            if let Some(first) = self.committing.pop_front() {
                self.send_all(first.replies);
            }
        }
    }

    fn send_all(&mut self, replies: Vec<(Ticket, Reply)>) {
        for (ticket, reply) in replies {
            self.send(ticket, Ok(reply));
        }
    }

    fn send(&mut self, ticket: Ticket, reply: Result<Reply, ErrorCode>) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            // Whoever asked may have gone.
            let _ = waiting.send(reply);
        }
    }
}

/// Why records are not a batch.
#[derive(Debug, thiserror::Error)]
enum Unwritable {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Batch(#[from] BuildError),
}

/// What becomes of what the first replies wait for; never, while none do.
///
/// # Cancel safety
/// Safe: what is awaited stays where it is.
async fn settled(committing: &mut VecDeque<Committing>) -> Settled {
    match committing.front_mut().map(|first| &mut first.awaited) {
        Some(Awaited::Commit(ticket)) => Settled::Committed(ticket.await),
        Some(Awaited::Confirmation(confirmed)) => Settled::Confirmed(confirmed.await),
        // Replies that nothing is before have left.
        Some(Awaited::Nothing) | None => std::future::pending().await,
    }
}

/// Returns once this broker does not lead the partition in this epoch any more.
async fn lost(partition: Arc<Partition>, epoch: i32) {
    loop {
        let waiter = Waiter::new();
        partition.wait(&waiter);
        if partition.leadership() != Some(epoch) {
            return;
        }
        waiter.woken().await;
    }
}
