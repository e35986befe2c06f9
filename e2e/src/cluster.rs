//! Several brokers that form one cluster, each a process of its own.

use std::ops::Range;

use anyhow::{Context as _, Result};

use crate::{Broker, Kind};

/// A cluster of takhin brokers.
#[derive(Debug)]
pub struct Cluster {
    /// The brokers, ids counting up from 1.
    pub brokers: Vec<Broker>,
}

impl Cluster {
    /// `count` brokers with data directories of their own and one list of seeds, all started and ready.
    pub fn start(count: u32) -> Result<Self> {
        Self::start_with(count, usize::MAX, |_, _| {})
    }

    /// The same, founded by the first `founders` of the brokers before the others come. `prepare` sees each with its id
    /// before any is started.
    pub fn start_with(count: u32, founders: usize, prepare: impl Fn(u32, &mut Broker)) -> Result<Self> {
        let mut cluster = Self::found_with(count, founders, prepare)?;
        let founders = founders.min(cluster.brokers.len());
        cluster.start_together(founders..cluster.brokers.len())?;
        Ok(cluster)
    }

    /// The same, with none but the founders started; [`Self::start_again`] starts the others.
    pub fn found_with(count: u32, founders: usize, prepare: impl Fn(u32, &mut Broker)) -> Result<Self> {
        let brokers: Result<Vec<Broker>> = (0..count).map(|_| Broker::new(Kind::Takhin)).collect();
        let mut cluster = Self { brokers: brokers? };
        let seeds = cluster
            .brokers
            .iter()
            .take(founders)
            .map(|broker| format!("{:?}", broker.peer_address().to_string()));
        let seeds = format!("[{}]", seeds.collect::<Vec<_>>().join(","));
        for (id, broker) in (1..).zip(&mut cluster.brokers) {
            let (kafka, peer) = (broker.address(), broker.peer_address());
            broker.identify(id, kafka);
            broker.set("rpc.bind", &peer.to_string());
            broker.set("cluster.seeds", &seeds);
            prepare(id, broker);
        }
        let founders = founders.min(cluster.brokers.len());
        cluster.start_together(0..founders)?;
        Ok(cluster)
    }

    fn start_together(&mut self, brokers: Range<usize>) -> Result<()> {
        // None is ready before there are enough of them.
        for broker in &mut self.brokers[brokers.clone()] {
            broker.start_process()?;
        }
        for broker in brokers {
            let ready = self.brokers[broker].wait_ready();
            ready.with_context(|| self.log_tails())?;
        }
        Ok(())
    }

    /// Starts a broker, again or for the first time, and waits until it serves.
    ///
    /// # Errors
    /// When it does not in time; the message carries the ends of all brokers' logs, since it may be for the others.
    pub fn start_again(&mut self, broker: usize) -> Result<()> {
        let started = self.brokers[broker].start();
        started.with_context(|| self.log_tails())
    }

    fn log_tails(&self) -> String {
        let tails = self.brokers.iter().map(|broker| {
            let (address, tail) = (broker.address(), broker.log_tail());
            format!("{address}: {tail}")
        });
        tails.collect::<Vec<_>>().join("\n")
    }

    /// Addresses of all brokers, with commas between them.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(Broker::bootstrap).collect();
        addresses.join(",")
    }
}
