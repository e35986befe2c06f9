//! Open loop: records fall due on schedule whether or not the broker keeps up.
//!
//! Latency counts from the time at which a record was due, so that a stall of the broker is charged to every record
//! that it delayed (no coordinated omission). What is due is sent at once, as one batch, to the partitions in turn:
//! like a Kafka producer with linger 0, whose batches grow only while requests are in flight.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::conn::{Conns, Sent};
use super::{Outcome, Span, Target, histogram, nanos};
use crate::batches::Batches;

/// Requests in flight per connection; Kafka's `max.in.flight.requests.per.connection`.
const IN_FLIGHT: usize = 5;

/// How long after the end of the schedule answers may still come.
const DRAIN: Duration = Duration::from_secs(20);

/// An open loop on one connection to each broker that leads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    /// Records per second.
    pub(crate) rate: f64,
    /// Duration.
    pub(crate) span: Span,
}

/// When records are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// When the first is.
    pub(crate) start: Instant,
    /// Records per second.
    pub(crate) rate: f64,
}

impl Schedule {
    /// When record `index` is due.
    pub(crate) fn due(&self, index: u64) -> Instant {
        self.start + Duration::from_secs_f64(index as f64 / self.rate)
    }

    /// How many records are due by `now`.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of seconds times a rate"
    )]
    pub(crate) fn count(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.start).as_secs_f64() * self.rate) as u64 + 1
    }
}

impl Open {
    /// Records in warm-up and in all.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of seconds times a rate"
    )]
    pub(crate) fn counts(&self) -> (u64, u64) {
        let records = |time: Duration| (time.as_secs_f64() * self.rate) as u64;
        (
            records(self.span.warm_up),
            records(self.span.warm_up + self.span.measured),
        )
    }

    /// Runs it. Latency is from due to acknowledged.
    pub(crate) fn run(&self, target: &Target, batches: &Batches) -> Result<Outcome> {
        let schedule = Schedule {
            start: Instant::now() + Duration::from_millis(10),
            rate: self.rate,
        };
        self.run_on(schedule, target, batches)
    }

    /// Runs it on a schedule that somebody else knows too.
    pub(crate) fn run_on(&self, schedule: Schedule, target: &Target, batches: &Batches) -> Result<Outcome> {
        let (warm_up, total) = self.counts();
        let leaders: Vec<_> = target.by_leader().into_keys().collect();
        let led_by = (0..target.partitions).map(|p| leaders.partition_point(|addr| *addr < target.leader(p)));
        let led_by: Vec<_> = led_by.collect();
        let mut conns = Conns::open(leaders)?;
        let (mut sent, mut acked, mut requests) = (0_u64, 0_u64, 0_u64);
        let mut latency = histogram()?;
        let mut turn = 0;
        let mut before = None;
        let give_up = schedule.due(total) + DRAIN;
        while acked < total {
            let now = Instant::now();
            ensure!(
                now < give_up,
                "{} of {total} records are not acknowledged",
                total - acked
            );
            if before.is_none() && sent >= warm_up {
                before = Some(target.usage()?);
            }
            let waiting = schedule.count(now).min(total).saturating_sub(sent);
            let open = next_open(&conns, &led_by, turn);
            if let Some(partition) = open.filter(|_| now >= schedule.start && waiting > 0) {
                let records = usize::try_from(waiting)?.min(batches.max());
                let request = batches.request(&target.topic, i32::try_from(partition)?, records)?;
                turn = partition + 1;
                conns.0[led_by[partition]].send(
                    request,
                    Sent {
                        at: now,
                        first: sent,
                        records,
                    },
                )?;
                sent += records as u64;
                continue;
            }
            let wait = if open.is_some() && sent < total {
                schedule.due(sent).saturating_duration_since(now)
            } else {
                Duration::from_millis(50)
            };
            conns.turn(wait, |_, request, _, now| {
                acked += request.records as u64;
                requests += u64::from(request.first >= warm_up);
                for index in (request.first..)
                    .take(request.records)
                    .filter(|index| *index >= warm_up)
                {
                    latency.saturating_record(nanos(now.saturating_duration_since(schedule.due(index))));
                }
            })?;
        }
        let records = total - warm_up;
        Ok(Outcome {
            requests,
            records,
            bytes: records * batches.value_len() as u64,
            elapsed: schedule.start.elapsed().saturating_sub(self.span.warm_up),
            latency,
            broker: target.usage_since(before.unwrap_or_default())?,
            total_records: total,
        })
    }
}

/// The first partition from `turn` on, around, whose leader's connection may carry one more request.
fn next_open(conns: &Conns, led_by: &[usize], turn: usize) -> Option<usize> {
    let around = (0..led_by.len()).map(|step| (turn + step) % led_by.len());
    around
        .into_iter()
        .find(|partition| conns.0[led_by[*partition]].in_flight() < IN_FLIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_fall_due_evenly() {
        let start = Instant::now();
        let schedule = Schedule { start, rate: 1000.0 };
        assert_eq!(schedule.due(1500), start + Duration::from_millis(1500));
        assert_eq!(schedule.count(start), 1);
        assert_eq!(schedule.count(start + Duration::from_micros(1_999_900)), 2000);
    }
}
