//! From one producer to one consumer: how long after it was due does a record arrive?

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::consume::Fetcher;
use super::open::Schedule;
use super::{Open, Outcome, Target, histogram, nanos};
use crate::batches::Batches;
use crate::wire::Position;

/// An open loop and a consumer that follows it, on an empty topic with one partition: the offset of a record says
/// when it was due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndToEnd(pub(crate) Open);

impl EndToEnd {
    /// Runs it. Latency is from due to received.
    pub(crate) fn run(&self, target: &Target, batches: &Batches) -> Result<Outcome> {
        ensure!(
            target.partitions == 1,
            "end to end needs a topic with one partition"
        );
        let schedule = Schedule {
            start: Instant::now() + Duration::from_millis(50),
            rate: self.0.rate,
        };
        let (warm_up, total) = self.0.counts();
        thread::scope(|scope| {
            let consumer = scope.spawn(|| -> Result<_> {
                let mut latency = histogram()?;
                let mut fetcher = Fetcher::connect(target.addr)?;
                let mut at = [Position {
                    partition: 0,
                    offset: 0,
                }];
                let give_up = schedule.due(total) + Duration::from_secs(20);
                while u64::try_from(at[0].offset)? < total {
                    ensure!(
                        Instant::now() < give_up,
                        "consumed only {} of {total} records",
                        at[0].offset
                    );
                    let from = u64::try_from(at[0].offset)?;
                    fetcher.fetch(&target.topic, &mut at, |_, _| ())?;
                    let now = Instant::now();
                    for index in (from..u64::try_from(at[0].offset)?).filter(|index| *index >= warm_up) {
                        latency.saturating_record(nanos(now.saturating_duration_since(schedule.due(index))));
                    }
                }
                Ok(latency)
            });
            let produced = self.0.run_on(schedule, target, batches)?;
            let latency = consumer
                .join()
                .map_err(|_| anyhow::anyhow!("the consumer panicked"))??;
            Ok(Outcome { latency, ..produced })
        })
    }
}
