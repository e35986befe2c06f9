//! Stock clients that write to a topic and read it for as long as something befalls a cluster, inside and outside, and the
//! verdict on that.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use takhin_e2e::checker::{self, Event};
use takhin_e2e::kubernetes::Watch;
use takhin_e2e::reader::Reader;
use takhin_e2e::wait;
use takhin_e2e::writer::{self, Writer};

use crate::house::{House, LIMIT, PARTITIONS};

/// The longest that a partition may have nothing acknowledged while brokers are replaced one by one, drained before.
const GAP: Duration = Duration::from_secs(5);

/// The longest from writing a record until a consumer has it, meanwhile: it has to be acknowledged before, and the consumer to
/// find out who leads now.
const LATE: Duration = Duration::from_secs(10);

/// Records a second of the producers on one side.
const RATE: u32 = 200;

/// What goes on while something befalls a cluster.
pub(crate) struct Load {
    /// By node ports.
    outside: Writer,
    /// By the names of Services.
    inside: Writer,
    /// By either.
    reader: Reader,
    /// The brokers that there were.
    pods: Watch,
}

impl Load {
    /// Waits until every partition has so many more acknowledgements on either side.
    pub(crate) fn wait_each(&mut self, more: usize, limit: Duration) -> Result<()> {
        self.outside.wait_each(more, limit)?;
        self.inside.wait_each(more, limit)
    }
}

/// What clients noticed, and what the pods did.
pub(crate) struct Verdict {
    /// The longest that a partition had nothing acknowledged.
    gap: Duration,
    /// The longest from a record's timestamp until a consumer had it.
    latest: Duration,
    /// The most brokers that did not serve at once.
    down: Result<Vec<String>>,
}

impl House<'_> {
    /// Has idempotent producers write to a topic of that name, and consumers read it, inside and outside, all the while.
    pub(crate) fn write(&self, topic: &str) -> Result<Load> {
        self.topic(topic)?;
        let (inside, outside) = (self.inside(), self.outside()?);
        let reader = Reader::start(topic, &[inside.clone(), outside.clone()], LIMIT)?;
        let mut load = Load {
            outside: Writer::start_as("ab", RATE, &outside, topic, PARTITIONS)?,
            inside: Writer::start_as("cd", RATE, &inside, topic, PARTITIONS)?,
            reader,
            pods: self.cluster.kube().watch_pods(self.namespace)?,
        };
        load.wait_each(5, LIMIT)?;
        Ok(load)
    }

    /// The same as [`Self::check`] after something that clients must hardly notice: no partition was without acknowledgements
    /// for longer than [`GAP`], no record came later than [`LATE`], and never were two of the brokers down that there were.
    pub(crate) fn check_smooth(&self, load: Load) -> Result<()> {
        let Verdict { gap, latest, down } = self.check(load)?;
        ensure!(
            gap <= wait::scaled(GAP)?,
            "a partition had nothing acknowledged for {gap:?}"
        );
        ensure!(latest <= wait::scaled(LATE)?, "a record came after {latest:?}");
        let down = down?;
        ensure!(down.len() <= 1, "brokers that were down at once: {down:?}");
        Ok(())
    }

    /// Ends the writing after some more records everywhere, and reads everything back inside: nothing that was acknowledged
    /// is lost or there twice, and the consumers have read just that.
    pub(crate) fn check(&self, mut load: Load) -> Result<Verdict> {
        load.wait_each(5, LIMIT)?;
        let topic = load.outside.topic().to_owned();
        let (mut log, outside) = load.outside.finish_timed().context("the writer outside")?;
        let (more, inside) = load.inside.finish_timed().context("the writer inside")?;
        log.extend(more);
        let down = load.pods.most_down().map(|down| down.into_iter().collect());
        let acked = self.read_back(&topic, &log)?;
        let mut latest = Duration::ZERO;
        for (side, readings) in ["inside", "outside"].into_iter().zip(load.reader.finish()?) {
            let report = checker::check(&log, &readings.found);
            let resets = readings.resets;
            ensure!(
                report.faults.is_empty() && resets.is_empty(),
                "the consumer {side}: {report:?}, lost its position at {resets:?}"
            );
            latest = latest.max(readings.latest);
        }
        let gap = outside.max(inside);
        eprintln!(
            "        {acked} records acknowledged, none of them for {:.1} s, read after {:.1} s at most; down at once: {down:?}",
            gap.as_secs_f64(),
            latest.as_secs_f64()
        );
        Ok(Verdict { gap, latest, down })
    }

    /// Reads the whole topic by a client that has not read it before, and judges it by the writers' log.
    fn read_back(&self, topic: &str, log: &[Event]) -> Result<usize> {
        // After an outage the names inside may lead to no broker for a moment.
        let mut read = Err(anyhow!("nothing was read"));
        let waited = wait::until("the records to be read back", LIMIT, || {
            read = writer::check(&self.inside(), topic, log);
            Ok(read.is_ok())
        });
        let report = read?;
        waited?;
        ensure!(report.acked > 0 && report.faults.is_empty(), "{report:?}");
        Ok(report.acked)
    }
}
