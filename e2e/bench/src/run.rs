//! What each load does, step by step.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::batches::Batches;
use crate::bench::{Bench, Run, VALUE_LEN, closed, now_ms};
use crate::load::{Consume, EndToEnd, From, Open, Outcome, Span, Target};
use crate::points::{Load, Produce, Rate};
use crate::sample::{self, Sample};

/// Connections that consume.
pub(crate) const CONSUMERS: i32 = 2;

/// W-1, for data that somebody is to read.
pub(crate) const FILL: Produce = Produce {
    value_len: VALUE_LEN,
    partitions: 4,
    connections: 1,
    in_flight: 5,
    records: usize::MAX,
};

impl Bench {
    /// Runs a load on one side.
    pub(crate) fn load(&mut self, load: Load, run: Run) -> Result<Sample> {
        let outcome = match load {
            Load::Produce(load) => {
                self.on_topic(run, load.partitions, |target| closed(load, run.span, target))?
            }
            Load::Open(rate) => {
                let rate = match rate {
                    Rate::Fixed(rate) => rate,
                    Rate::HalfOfPeer => self.half_of_peer()?,
                };
                let open = Open { rate, span: run.span };
                self.on_topic(run, 4, |target| open.run(target, &batches()?))?
            }
            Load::EndToEnd(rate) => {
                let open = Open { rate, span: run.span };
                self.on_topic(run, 1, |target| EndToEnd(open).run(target, &batches()?))?
            }
            Load::ConsumeWarm => {
                let bytes = self.options.consume_bytes;
                self.on_topic(run, FILL.partitions, |target| {
                    consume_warm(target, run.span, bytes)
                })?
            }
            Load::ConsumeTail => {
                self.on_topic(run, FILL.partitions, |target| consume_tail(target, run.span))?
            }
            Load::ConsumeCold => return self.consume_cold(run),
            Load::Mixed => return self.mixed(run),
            Load::Replicated(load) => {
                self.on_replicated(run, load.partitions, |target| closed(load, run.span, target))?
            }
            Load::ReplicatedOpen(rate) => {
                let open = Open { rate, span: run.span };
                self.on_replicated(run, 4, |target| open.run(target, &batches()?))?
            }
            Load::ManyPartitions(load) => return self.many_partitions(load, run),
            Load::IdleTrio(partitions) => return self.idle_trio(partitions, run),
            Load::Gap(strike, partitions) => return self.gap(strike, partitions, run),
            Load::Copy => return self.copy(self.options.consume_bytes, run),
            Load::Create(partitions) => return self.create(partitions, run),
            Load::IdlePartitions(partitions) => return self.idle_partitions(partitions, run),
            Load::IdleConnections => return self.idle_connections(run),
            Load::Rebalance(members) => return self.rebalance(members, run),
            Load::Groups => return self.groups(run),
            Load::Memory => return self.memory(run),
            Load::Start(start) => return self.start(start, run.side),
            Load::CountProduce(load) => return self.count_produce(load, run),
            Load::CountConsume => return self.count_consume(run),
            Load::Codec => return crate::codec::sample(self.options.kinds[run.side]),
        };
        Ok(sample::of_outcome(&outcome))
    }

    /// `load`, whose records are small and go to many partitions, as a part of W-1 on the same broker.
    fn many_partitions(&mut self, load: Produce, run: Run) -> Result<Sample> {
        let w1 = self.on_topic(run, FILL.partitions, |target| closed(FILL, run.span, target))?;
        let many = self.on_topic(run, load.partitions, |target| {
            // A partition's first batch costs files that the others do not.
            let first = Batches::new(load.value_len, load.records, now_ms())?;
            crate::load::fill(target, &first, 1)?;
            closed(load, run.span, target)
        })?;
        let mut sample = sample::of_outcome(&many);
        let [of_w1, of_many] = [&w1, &many].map(|outcome| sample::of_outcome(outcome)["mb_s"]);
        sample.insert("mb_s_factor", of_many / of_w1.max(1e-9));
        Ok(sample)
    }
}

/// Full batches of the usual records.
pub(crate) fn batches() -> Result<Batches> {
    Batches::new(VALUE_LEN, usize::MAX, now_ms())
}

/// Writes `bytes` of values evenly into `target`; returns the number of records per partition and in a batch.
pub(crate) fn fill(target: &Target, bytes: u64, records: usize) -> Result<(i64, usize)> {
    let batches = Batches::new(VALUE_LEN, records, now_ms())?;
    let records = batches.max();
    let rounds = bytes / (records * VALUE_LEN) as u64 / u64::try_from(target.partitions)?;
    let rounds = usize::try_from(rounds.max(1))?;
    crate::load::fill(target, &batches, rounds)?;
    Ok((i64::try_from(rounds * records)?, records))
}

fn consume_warm(target: &Target, span: Span, bytes: u64) -> Result<Outcome> {
    let (end, _) = fill(target, bytes, usize::MAX)?;
    consume(target, span, From::Again { end })
}

/// Reads what [`fill`] wrote, over and over.
pub(crate) fn consume(target: &Target, span: Span, from: From) -> Result<Outcome> {
    let outcome = Consume {
        connections: CONSUMERS,
        from,
        value_len: VALUE_LEN,
        span,
    }
    .run(target)?;
    // Counted again whenever it was read again, so it says nothing about what is stored.
    Ok(Outcome {
        total_records: if from == From::Tail {
            outcome.total_records
        } else {
            0
        },
        ..outcome
    })
}

/// Consumers follow a producer that goes as fast as the broker takes it.
fn consume_tail(target: &Target, span: Span) -> Result<Outcome> {
    thread::scope(|scope| {
        let longer = Span {
            measured: span.measured + Duration::from_millis(500),
            ..span
        };
        let producer = scope.spawn(move || closed(FILL, longer, target));
        let consumed = consume(target, span, From::Tail)?;
        let produced = producer.join().ok().context("the producer panicked")??;
        ensure!(
            consumed.total_records <= produced.total_records,
            "more was consumed than produced"
        );
        Ok(consumed)
    })
}
