//! Three brokers of one kind that form a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Broker, Kind, Launcher, Member, free_addr};

/// Brokers of a cluster.
const BROKERS: usize = 3;

/// Three brokers, of which some may be down.
#[derive(Debug)]
pub(crate) struct Trio {
    launcher: Launcher,
    kind: Kind,
    dirs: Vec<PathBuf>,
    brokers: Vec<Option<Broker>>,
}

impl Trio {
    /// Starts a new cluster whose directories begin with `name`, and waits until every broker is a member.
    pub(crate) fn start_new(launcher: &Launcher, kind: Kind, name: &str) -> Result<Self> {
        let peers = (0..BROKERS).map(|_| free_addr()).collect::<Result<Vec<_>>>()?;
        let dirs = (1..=BROKERS)
            .map(|id| {
                let member = Member { id, peers: &peers };
                launcher.prepare(kind, &format!("{name}-{id}"), &member)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut trio = Self {
            launcher: launcher.clone(),
            kind,
            brokers: Vec::new(),
            dirs,
        };
        // None of them is ready before a majority is there.
        for dir in &trio.dirs {
            trio.brokers.push(Some(launcher.spawn(kind, dir)?));
        }
        for broker in trio.brokers.iter_mut().flatten() {
            broker.wait_until_ready()?;
        }
        Ok(trio)
    }

    /// Those that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.iter().flatten()
    }

    /// One that runs.
    pub(crate) fn any(&self) -> Result<&Broker> {
        self.running().next().context("no broker of the cluster runs")
    }

    /// How many brokers there are, running or not.
    pub(crate) fn len(&self) -> usize {
        self.dirs.len()
    }

    /// Their data.
    pub(crate) fn data(&self) -> impl Iterator<Item = PathBuf> {
        self.dirs.iter().map(|dir| dir.join("data"))
    }

    /// Takes out the broker that listens there.
    pub(crate) fn take(&mut self, addr: SocketAddr) -> Result<Broker> {
        let broker = self
            .brokers
            .iter_mut()
            .find(|broker| broker.as_ref().is_some_and(|broker| broker.addr == addr));
        broker
            .and_then(Option::take)
            .with_context(|| format!("no broker listens at {addr}"))
    }

    /// Starts those that do not run, each on its own directory.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        for (broker, dir) in self.brokers.iter_mut().zip(&self.dirs) {
            if broker.is_none() {
                *broker = Some(self.launcher.start(self.kind, dir)?);
            }
        }
        Ok(())
    }
}
