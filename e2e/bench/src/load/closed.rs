//! Closed loop: a fixed number of requests in flight per connection, as fast as the broker answers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::conn::{Conns, Sent};
use super::{Outcome, Span, Target, histogram, nanos};
use crate::batches::Batches;
use crate::proc;

/// Longest time without any answer.
const STALL: Duration = Duration::from_secs(60);

/// A closed loop of producers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    /// Connections to each broker that leads, all served by one thread.
    pub(crate) connections: usize,
    /// Requests in flight per connection.
    pub(crate) in_flight: usize,
    /// Records per request.
    pub(crate) records: usize,
    /// Duration.
    pub(crate) span: Span,
}

impl Closed {
    /// Runs it. Latency is from sending to acknowledgement.
    pub(crate) fn run(&self, target: &Target, batches: &Batches) -> Result<Outcome> {
        let records = self.records.min(batches.max());
        let led = target.by_leader();
        let mut turns = Vec::new();
        for partitions in led.values() {
            let requests = partitions
                .iter()
                .map(|p| batches.request(&target.topic, *p, records));
            turns.push((requests.collect::<Result<Vec<_>>>()?, 0));
        }
        let addresses = led.keys().flat_map(|addr| vec![*addr; self.connections]);
        let mut conns = Conns::open(addresses)?;
        let mut send = |conns: &mut Conns, index: usize| -> Result<()> {
            let (requests, turn) = &mut turns[index / self.connections];
            let request = requests[*turn % requests.len()].clone();
            *turn += 1;
            conns.0[index].send(request, Sent::now(records))
        };
        for index in (0..conns.0.len()).flat_map(|index| vec![index; self.in_flight]) {
            send(&mut conns, index)?;
        }
        let mut tally = Tally::new(target, self.span)?;
        let mut answered = Vec::new();
        let mut last = Instant::now();
        while !tally.over(last)? || !conns.idle() {
            conns.turn(Duration::from_millis(50), |index, sent, _, now| {
                tally.count(&sent, now);
                last = now;
                answered.push(index);
            })?;
            ensure!(last.elapsed() < STALL, "no answer for {STALL:?}");
            for index in answered.drain(..) {
                if !tally.ended() {
                    send(&mut conns, index)?;
                }
            }
        }
        tally.outcome(batches.value_len())
    }
}

/// Counts what falls into the measured time.
struct Tally<'a> {
    target: &'a Target,
    begin: Instant,
    end: Instant,
    before: Option<proc::Usage>,
    done: Option<(Instant, proc::Usage)>,
    outcome: Outcome,
}

impl<'a> Tally<'a> {
    fn new(target: &'a Target, span: Span) -> Result<Self> {
        let begin = Instant::now() + span.warm_up;
        let outcome = Outcome {
            requests: 0,
            records: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            latency: histogram()?,
            broker: proc::Usage::default(),
            total_records: 0,
        };
        Ok(Self {
            target,
            begin,
            end: begin + span.measured,
            before: None,
            done: None,
            outcome,
        })
    }

    fn ended(&self) -> bool {
        self.done.is_some()
    }

    /// Whether the measured time is over; reads the broker's totals at both of its ends.
    fn over(&mut self, now: Instant) -> Result<bool> {
        if self.before.is_none() && now >= self.begin {
            self.begin = now;
            self.before = Some(self.target.usage()?);
        }
        if let (Some(before), None) = (self.before, self.done)
            && now >= self.end
        {
            self.done = Some((now, self.target.usage_since(before)?));
        }
        Ok(self.ended())
    }

    fn count(&mut self, sent: &Sent, now: Instant) {
        let records = sent.records as u64;
        self.outcome.total_records += records;
        if self.before.is_some() && self.done.is_none() {
            self.outcome.requests += 1;
            self.outcome.records += records;
            self.outcome.latency.saturating_record(nanos(now - sent.at));
        }
    }

    fn outcome(self, value_len: usize) -> Result<Outcome> {
        let (end, broker) = self.done.context("the run has not ended")?;
        Ok(Outcome {
            bytes: self.outcome.records * value_len as u64,
            elapsed: end - self.begin,
            broker,
            ..self.outcome
        })
    }
}
