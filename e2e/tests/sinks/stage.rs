//! The list of tests, the brokers that they share, and reading back.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use libtest_mimic::Trial;
use takhin_e2e::cdc::LIMIT;
use takhin_e2e::{Broker, Kind, kcat, wait};
use takhin_pika_testing::topics::Read;

/// The tests.
#[derive(Debug, Default)]
pub(crate) struct Suites {
    pub(crate) trials: Vec<Trial>,
    kafka: Arc<Mutex<Option<Broker>>>,
    takhin: Arc<Mutex<Option<Broker>>>,
}

impl Suites {
    /// A test against a shared broker of this kind, which is started when first asked for. A test that fails takes it with it.
    pub(crate) fn add(&mut self, name: &str, kind: Kind, test: fn(&Broker) -> Result<()>) {
        let shared = match kind {
            Kind::Kafka => Arc::clone(&self.kafka),
            Kind::Takhin => Arc::clone(&self.takhin),
        };
        self.trials.push(Trial::test(name, move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let broker = match shared.take() {
                Some(broker) => broker,
                None => started(kind)?,
            };
            test(&broker).map_err(|error| format!("{error:?}"))?;
            *shared = Some(broker);
            Ok(())
        }));
    }
}

fn started(kind: Kind) -> Result<Broker> {
    let mut broker = Broker::new(kind)?;
    if kind == Kind::Kafka {
        // Every ten seconds otherwise.
        broker.set(
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            "500",
        );
    }
    broker.start()?;
    Ok(broker)
}

/// All records of a topic, read with kcat (which reads only what is committed), as soon as there are enough.
pub(crate) fn read_until(
    broker: &Broker,
    topic: &str,
    mut is_enough: impl FnMut(&[Read]) -> bool,
) -> Result<Vec<Read>> {
    wait::value(format_args!("enough records in {topic}"), LIMIT, || {
        let read = read(broker, topic)?;
        Ok(is_enough(&read).then_some(read))
    })
}

/// All records of a topic that are committed by now.
pub(crate) fn read(broker: &Broker, topic: &str) -> Result<Vec<Read>> {
    read_at(&broker.bootstrap(), topic)
}

/// The same of these brokers.
pub(crate) fn read_at(bootstrap: &str, topic: &str) -> Result<Vec<Read>> {
    let records = kcat::consume(bootstrap, topic, None, "beginning")?;
    let read = records.into_iter().map(|record| {
        Ok(Read {
            partition: record.partition,
            key: record.key.context("a record without key")?.into(),
            json: serde_json::from_slice(&record.value.context("a record without value")?)?,
            headers: std::collections::BTreeMap::new(),
        })
    });
    read.collect()
}
