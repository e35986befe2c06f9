//! One record after another into one partition, whoever leads it: how long nobody could produce.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;

use crate::admin::Admin;
use crate::batches::Batches;
use crate::wire::{self, PRODUCE_TAIL};

/// Between two records, and between two attempts.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_millis(500);

/// How long an answer may take before another leader is looked for.
const ANSWER: Duration = Duration::from_secs(5);

/// Records on their way to whoever leads the first partition of a topic.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Listeners of all brokers, to ask for the leader.
    pub(crate) brokers: Vec<SocketAddr>,
    /// The topic.
    pub(crate) topic: String,
}

impl Pulse {
    /// Sends records until `work` returns, which gets the times at which they were acknowledged so far; returns them all.
    pub(crate) fn during(
        &self,
        batches: &Batches,
        work: impl FnOnce(&Mutex<Vec<Instant>>) -> Result<()>,
    ) -> Result<Vec<Instant>> {
        let acked = Mutex::new(Vec::new());
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut leader = None;
                while !stop.load(Ordering::Relaxed) {
                    // What fails is tried again: how long that goes on is what is measured.
                    match self.one(batches, &mut leader) {
                        Ok(()) => acked.lock().push(Instant::now()),
                        Err(_) => leader = None,
                    }
                    thread::sleep(PAUSE);
                }
            });
            let done = work(&acked);
            // First of all, or a failure would leave the producer running and this scope waiting.
            stop.store(true, Ordering::Relaxed);
            done
        })?;
        Ok(acked.into_inner())
    }

    /// Produces one record, by the connection to the leader if there is one.
    fn one(&self, batches: &Batches, leader: &mut Option<TcpStream>) -> Result<()> {
        let stream = match leader {
            Some(stream) => stream,
            None => leader.insert(self.connect()?),
        };
        let request = batches.request(&self.topic, 0, 1)?;
        for part in [&request.head[..], &request.body[..], &PRODUCE_TAIL[..]] {
            stream.write_all(part)?;
        }
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix)?;
        let len = usize::try_from(i32::from_be_bytes(prefix))?;
        ensure!(len < 1 << 16, "an answer of {len} bytes to a produce request");
        let mut frame = vec![0; len];
        stream.read_exact(&mut frame)?;
        let error = wire::read_produced(&frame)?.error;
        ensure!(error == 0, "produce failed with error {error}");
        Ok(())
    }

    /// Connects to the leader that the first broker names which names one that can be reached.
    fn connect(&self) -> Result<TcpStream> {
        let named = |addr: &SocketAddr| -> Result<TcpStream> {
            let placed = Admin::connect(*addr)?.placed(&self.topic)?;
            let leader = placed.get(&0).and_then(|placed| placed.leader);
            let stream = TcpStream::connect_timeout(&leader.context("no leader")?, CONNECT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER))?;
            Ok(stream)
        };
        let mut found = self.brokers.iter().filter_map(|addr| named(addr).ok());
        found.next().context("no broker names a leader that is there")
    }
}
