//! Writes what is in the queue, one round after the other, and notes how far it came. A round is sent while the position of the
//! one before is being saved.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use takhin_client::{Batches, Packed};
use takhin_config::CdcConfig;
use takhin_pika::Position;
use takhin_runtime::clock::Instant;
use takhin_runtime::telemetry::health::Flag;
use takhin_runtime::{Env, JoinHandle, Shutdown};
use tokio::sync::mpsc;
use tracing::{Span, debug, warn};

use super::error::SinkError;
use super::notes::{Note, Notes, Saving};
use super::outlet::{Outcome, Outlet};
use super::round::{Place, Recorder, Room, Round};
use super::topics::{Topics, failed};
use crate::checkpoint::{Checkpoint, Checkpoints, PositionFile, record};
use crate::control::Pause;
use crate::event::{Encoder, Source, partition_of};
use crate::metrics;
use crate::queue::Work;
use crate::source::{Followed, Session};
use crate::trace::{self, traced, work_span};
use crate::trouble::Trouble;

/// How long brokers may take before it is said that they do not answer.
const SLOW: Duration = Duration::from_secs(10);

/// How long a stop may wait for what is on its way.
const DRAIN: Duration = Duration::from_secs(10);

/// Batches on their way.
struct Flight {
    outcome: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    since: Instant,
    is_slow: bool,
}

/// To whom it is told what was written.
#[derive(Debug, Clone, Copy)]
pub struct Master<'a> {
    /// What is known of it.
    pub followed: &'a Followed,
    /// Who takes acknowledgements; masters before 3.1 take none.
    pub session: Option<&'a Session>,
}

/// Takes work, writes it, and notes how far it came: first in the file, then to the master, now and then in the topic.
pub struct Writer<'a> {
    env: Env,
    outlet: Outlet,
    recorder: Recorder,
    room: Room,
    file: Arc<PositionFile>,
    /// Positions that are on the medium,
    checkpoints: &'a mut Checkpoints,
    /// and those up to which brokers have everything.
    written: Checkpoints,
    flag: &'a Flag,
    pause: &'a Pause,
    next: Round,
    /// Why nothing more is taken; what was taken before is written still.
    refused: Option<SinkError>,
    sending: Option<Round>,
    flight: Option<Flight>,
    /// Rounds that brokers have.
    notes: Notes,
    topic_interval: Duration,
    commit_interval: Duration,
    /// When the last round began.
    launched: Option<Instant>,
    /// When positions are to be written to the topic; `None` while it has them.
    topic_due: Option<Instant>,
    /// Positions on their way to it.
    saving: Option<JoinHandle<()>>,
    /// When it is looked why they have not arrived.
    saving_slow_at: Option<Instant>,
}

impl<'a> Writer<'a> {
    /// A writer that goes on from `checkpoints`, and keeps them up to date.
    pub fn new(
        env: &Env,
        config: &CdcConfig,
        outlet: Outlet,
        (topics, encoder): (Topics, Arc<dyn Encoder>),
        (file, checkpoints): (Arc<PositionFile>, &'a mut Checkpoints),
        (flag, pause): (&'a Flag, &'a Pause),
    ) -> Self {
        Self {
            env: env.clone(),
            outlet,
            recorder: Recorder::new(config, topics, encoder),
            room: Room::default(),
            file,
            written: checkpoints.clone(),
            checkpoints,
            flag,
            pause,
            next: Round::default(),
            refused: None,
            sending: None,
            flight: None,
            notes: Notes::default(),
            topic_interval: config.checkpoint.topic_interval,
            commit_interval: config.sink.commit_interval,
            launched: None,
            topic_due: None,
            saving: None,
            saving_slow_at: None,
        }
    }

    /// Works until `stop`, and then finishes what is on its way. What was not sent by then is not written.
    ///
    /// # Errors
    ///
    /// Something could not be written, or noted. Where no record can be made of an event, the pieces of work before it were.
    pub async fn run(
        mut self,
        mut works: mpsc::Receiver<Work>,
        master: Master<'_>,
        stop: &Shutdown,
    ) -> Result<(), Trouble> {
        while !stop.is_triggered() && !self.is_over() {
            let is_paused = self.pause.is_on();
            let slow_at = self
                .flight
                .as_ref()
                .filter(|flight| !flight.is_slow)
                .map(|flight| flight.since + SLOW);
            let held_until = self.held_until();
            tokio::select! {
                biased;
                () = stop.wait() => {}
                noted = self.notes.next() => self.noted(noted?, master).await?,
                outcome = landed(&mut self.flight) => self.land(outcome, master).await?,
                work = works.recv(), if !is_paused && self.may_take() => match work {
                    Some(work) => self.take(work, &mut works, master),
                    // The reader has ended; it says why.
                    None => std::future::pending().await,
                },
                () = until(&self.env, self.topic_due) => self.save_in_topic().await?,
                () = until(&self.env, held_until) => {}
                () = until(&self.env, slow_at) => self.is_slow().await?,
                () = until(&self.env, self.saving_slow_at) => self.is_saving_slowly().await?,
                () = self.pause.changed(is_paused) => {}
            }
            self.launch(master);
        }
        self.finish(master).await?;
        self.refused.map_or(Ok(()), |error| Err(error.into()))
    }

    fn may_take(&self) -> bool {
        !self.next.is_full() && self.refused.is_none()
    }

    /// Whether everything before what cannot be written was written.
    fn is_over(&self) -> bool {
        let is_idle = self.flight.is_none() && self.sending.is_none() && self.notes.is_empty();
        self.refused.is_some() && is_idle && self.next.is_empty()
    }

    /// Takes a piece of work, and what else is there.
    fn take(&mut self, work: Work, works: &mut mpsc::Receiver<Work>, master: Master<'_>) {
        let unknown = Source {
            id: String::new(),
            host: String::new(),
            port: 0,
            version: String::new(),
            replication_id: String::new(),
        };
        // There is no work before the master has introduced itself.
        let source = master.followed.source().unwrap_or(&unknown);
        let mut next = Some(work);
        while let Some(work) = next.take() {
            let added = self.next.add((&self.recorder, &mut self.room), source, work);
            self.refused = added.err();
            if self.may_take() {
                next = works.try_recv().ok();
            }
        }
    }

    /// Sends the next batches, if none are on their way.
    fn launch(&mut self, master: Master<'_>) {
        if self.flight.is_some() {
            return;
        }
        if self.held_until().is_some() {
            return;
        }
        if self.sending.is_none() && !self.next.is_empty() && self.notes.may_grow() {
            self.launched = Some(self.env.clock.instant());
            let following = self.next.following();
            let mut round = std::mem::replace(&mut self.next, following);
            round.span = Some(work_span!("round", works = round.works, bytes = round.bytes));
            self.sending = Some(round);
        }
        let Some(round) = &mut self.sending else {
            return;
        };
        let next = round.next_batches();
        let place = |(topic, partition): Place| (Arc::clone(self.recorder.topic(topic)), partition);
        let batches = next.into_iter().map(|(at, batch)| (place(at), batch.records));
        let batches = batches.collect();
        let is_last = !round.has_batches();
        let positions = match (is_last, &self.sending) {
            (true, Some(round)) => Some(self.position_batches(self.reached(round, master).values())),
            _ => None,
        };
        let outlet = self.outlet.clone();
        self.flight = Some(Flight {
            outcome: Box::pin(async move { outlet.write(batches, positions).await }),
            since: self.env.clock.instant(),
            is_slow: false,
        });
    }

    /// Until when more is gathered for the next transaction, if it may not begin yet.
    fn held_until(&self) -> Option<Instant> {
        let is_due = self.sending.is_some() || self.next.is_empty() || self.next.is_full();
        if is_due || !self.outlet.is_transactional() {
            return None;
        }
        let at = self.launched? + self.commit_interval;
        (at > self.env.clock.instant()).then_some(at)
    }

    /// All batches have an outcome.
    async fn land(&mut self, outcome: Outcome, master: Master<'_>) -> Result<(), Trouble> {
        self.flight = None;
        if let Err((topic, source)) = outcome {
            // Of a transaction it is that of the changes.
            let topic = topic.unwrap_or_else(|| self.recorder.topics.binlog.as_str().into());
            metrics::PRODUCE_ERRORS.with([&topic]).inc();
            if let Some(span) = self.sending.as_ref().and_then(|round| round.span.as_ref()) {
                trace::failed(span, &source);
            }
            self.note_all(master).await?;
            return Err(SinkError::of_batch(&topic, source).into());
        }
        self.flag.pass();
        // Batches that come after those of the same partition.
        if self.sending.as_ref().is_some_and(Round::has_batches) {
            self.launch(master);
        } else if let Some(round) = self.sending.take() {
            let note = self.note(round, master);
            self.notes.push(note);
        }
        Ok(())
    }

    /// What is to be noted of a round that brokers have: its positions, with those of the rounds before.
    fn note(&mut self, round: Round, master: Master<'_>) -> Note {
        let reached = self.reached(&round, master);
        let saving: Saving = if round.progress.is_empty() {
            Box::pin(std::future::ready(Ok(())))
        } else {
            self.written.extend(reached.clone());
            let (tasks, file) = (self.env.tasks.clone(), Arc::clone(&self.file));
            let positions = self.written.clone();
            let span = round.span.clone().unwrap_or_else(Span::none);
            let saving = async move { tasks.blocking(move || file.save(&positions)).await };
            Box::pin(traced(span, saving))
        };
        Note {
            round,
            reached,
            saving,
        }
    }

    /// Waits until everything that brokers have is noted.
    async fn note_all(&mut self, master: Master<'_>) -> Result<(), Trouble> {
        while !self.notes.is_empty() {
            let noted = self.notes.next().await?;
            self.noted(noted, master).await?;
        }
        Ok(())
    }

    /// The positions of a round are on the medium: now the master may forget what is before them.
    async fn noted(&mut self, noted: (Round, Checkpoints), master: Master<'_>) -> Result<(), Trouble> {
        let (round, reached) = noted;
        if !round.progress.is_empty() {
            tell(&round, &reached, master.followed);
            self.checkpoints.extend(reached);
            metrics::saved(self.env.clock.instant());
            if !self.outlet.is_transactional() {
                self.topic_due
                    .get_or_insert_with(|| self.env.clock.instant() + self.topic_interval);
            }
        }
        for ack in &round.acks {
            if let Some(session) = master.session {
                session.acknowledge(ack).await?;
            }
        }
        metrics::BYTES.add(round.bytes);
        for ((db, kind), count) in &round.counts {
            metrics::EVENTS.with([db, kind]).add(*count);
        }
        for done in round.done {
            let _ = done.send(());
        }
        Ok(())
    }

    /// Where to go on once a round is written.
    fn reached(&self, round: &Round, master: Master<'_>) -> Checkpoints {
        let Some(source) = master.followed.source() else {
            return Checkpoints::new();
        };
        let now_ms = self.env.clock.now_ms();
        let topics = &self.recorder.topics;
        let partitions = topics.partitions(&topics.binlog).unsigned_abs();
        let reached = round.progress.iter().map(|(db, progress)| {
            let mut checkpoint =
                Checkpoint::new(&source.id, db, &source.replication_id, progress.position, now_ms);
            checkpoint.logic_id = progress.logic_id;
            checkpoint.epoch = progress.epoch;
            checkpoint.partitions = partitions;
            match source.names_servers() {
                true => checkpoint.server_id = progress.origin,
                false => checkpoint.term_id = progress.origin,
            }
            checkpoint.last = progress.last.map(Into::into);
            (db.to_string(), checkpoint)
        });
        reached.collect()
    }

    /// The records of positions by their partition.
    fn position_batches<'c>(&self, checkpoints: impl Iterator<Item = &'c Checkpoint>) -> Batches {
        let topic: Arc<str> = self.recorder.topics.offsets.as_str().into();
        let partitions = self.recorder.topics.partitions(&topic);
        let mut batches = BTreeMap::<_, Vec<_>>::new();
        for checkpoint in checkpoints {
            let record = record(checkpoint);
            let partition = partition_of(record.key.as_deref().unwrap_or_default(), partitions);
            let place = (Arc::clone(&topic), partition);
            batches.entry(place).or_default().push(record);
        }
        let now_ms = self.env.clock.now_ms();
        let packed = |(place, records): (_, Vec<_>)| (place, Packed::of(&records, now_ms));
        batches.into_iter().map(packed).collect()
    }

    /// Writes positions to the topic, unless those before are still on their way. They are behind those of the file at
    /// worst.
    async fn save_in_topic(&mut self) -> Result<(), Trouble> {
        if self.saving.as_ref().is_some_and(|saving| !saving.is_finished()) {
            self.topic_due = Some(self.env.clock.instant() + self.topic_interval);
            return Ok(());
        }
        self.topic_due = None;
        let mut deliveries = Vec::new();
        for ((topic, partition), records) in self.position_batches(self.checkpoints.values()) {
            let producer = self.outlet.producer();
            let enqueued = producer.enqueue_packed(&topic, partition, records).await;
            deliveries.push(enqueued.map_err(|source| failed("make a batch", source))?);
        }
        let saving = async move {
            for delivery in deliveries {
                if let Err(error) = delivery.wait().await {
                    debug!(%error, "a position was not written; the next one will be");
                }
            }
        };
        self.saving = Some(self.env.tasks.spawn("positions", saving));
        self.saving_slow_at = Some(self.env.clock.instant() + SLOW);
        Ok(())
    }

    async fn is_slow(&mut self) -> Result<(), SinkError> {
        let why = self.outlet.look(&self.env.clock, &self.recorder.topics).await?;
        if let Some(flight) = &mut self.flight {
            flight.is_slow = true;
            let text = format!(
                "the brokers have not acknowledged what was sent within {} s{}; it is sent until they do",
                SLOW.as_secs(),
                why.map(|why| format!(" ({why})")).unwrap_or_default()
            );
            warn!("{text}");
            self.flag.fail(text);
        }
        Ok(())
    }

    /// The file has the positions; whoever loses it would begin anew.
    async fn is_saving_slowly(&mut self) -> Result<(), SinkError> {
        self.saving_slow_at = None;
        if self.saving.as_ref().is_none_or(JoinHandle::is_finished) {
            return Ok(());
        }
        let why = self.outlet.look(&self.env.clock, &self.recorder.topics).await?;
        warn!(
            topic = self.recorder.topics.offsets,
            "positions were not acknowledged within {} s{}; they are sent until they are",
            SLOW.as_secs(),
            why.map(|why| format!(" ({why})")).unwrap_or_default()
        );
        self.saving_slow_at = Some(self.env.clock.instant() + SLOW);
        Ok(())
    }

    /// Waits for what is on its way, notes it, and writes the positions to the topic.
    async fn finish(&mut self, master: Master<'_>) -> Result<(), Trouble> {
        let env = self.env.clone();
        let finishing = async {
            while self.flight.is_some() {
                let outcome = landed(&mut self.flight).await;
                self.land(outcome, master).await?;
            }
            self.note_all(master).await?;
            if let Some(saving) = self.saving.take() {
                let _ = saving.await;
            }
            if self.topic_due.is_some() {
                self.save_in_topic().await?;
            }
            if let Some(saving) = self.saving.take() {
                let _ = saving.await;
            }
            Ok(())
        };
        match env.clock.timeout(DRAIN, finishing).await {
            Ok(finished) => finished,
            // It is sent again after the next start.
            Err(_) => Ok(()),
        }
    }
}

/// Says how far the changes of databases were written.
fn tell(round: &Round, reached: &Checkpoints, followed: &Followed) {
    let progress = round.progress.iter();
    for (db, progress) in progress.filter(|(db, _)| reached.contains_key(&***db)) {
        followed.wrote(db, progress.position, progress.ts_ms);
        let Position { filenum, offset } = progress.position;
        metrics::POSITION_FILE.with([db]).set(i64::from(filenum));
        metrics::POSITION_OFFSET
            .with([db])
            .set(i64::try_from(offset).unwrap_or(i64::MAX));
    }
}

/// The outcome of what is on its way; never if nothing is.
async fn landed(flight: &mut Option<Flight>) -> Outcome {
    match flight {
        Some(flight) => flight.outcome.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Returns at that time; never if there is none.
async fn until(env: &Env, at: Option<Instant>) {
    match at {
        Some(at) => env.clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}
