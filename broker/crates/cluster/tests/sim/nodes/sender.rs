//! Producers that follow the leader, with several batches in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use takhin_cluster::{Acks, Cluster, Partition, ProduceError};
use takhin_runtime::{Env, Rng, Shutdown};

use super::{Running, TOPIC, leader};
use crate::oracle::Oracle;
use crate::world::{Producer, batch};

/// Sends to whoever leads.
pub(super) struct Sender {
    pub(super) env: Env,
    pub(super) rng: Rng,
    pub(super) id: u64,
    pub(super) running: Running,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    pub(super) producers: Arc<Mutex<BTreeMap<u64, Window>>>,
    /// Whether nobody is to send.
    pub(super) silence: Arc<AtomicBool>,
}

impl Sender {
    pub(super) async fn run(self, stop: Shutdown) {
        while !stop.is_triggered() {
            if self.silence.load(Ordering::Relaxed) {
                self.env.clock.sleep(Duration::from_millis(50)).await;
                continue;
            }
            tokio::select! {
                biased;
                () = stop.wait() => return,
                partition = leader(&self.env, &self.running) => self.send_to(&partition).await,
            }
        }
    }

    async fn leads_for_sure(&self, partition: &Arc<Partition>, epoch: i32) -> bool {
        let nodes: Vec<Arc<Cluster>> = self.running.lock().values().cloned().collect();
        for cluster in nodes {
            let topic = cluster.image().topic(TOPIC).map(|topic| topic.id);
            let here = topic.and_then(|topic| cluster.partition(topic, 0));
            if here.is_some_and(|here| Arc::ptr_eq(&here, partition)) {
                return cluster.confirms_leadership(partition, epoch).await;
            }
        }
        false
    }

    /// A few batches at once, as a client with requests in flight; those without an answer are sent again, first and
    /// unchanged.
    async fn send_to(&self, partition: &Arc<Partition>) {
        let mut batches = Vec::new();
        {
            let mut all = self.producers.lock();
            let window = all.get_mut(&self.id).unwrap();
            let wanted = usize::try_from(self.rng.range(1..5)).unwrap();
            window.fill(wanted, &self.rng);
            for (first, count) in &window.unanswered {
                let values = (0..*count).map(|i| (self.id, first + i));
                self.oracle.lock().sent(values);
                let at = Producer {
                    next: *first,
                    sequence: i32::try_from(*first).unwrap(),
                    pending: None,
                };
                batches.push((*first, *count, batch(self.id, &at, *count)));
            }
        }
        let mut tickets = Vec::new();
        for (first, count, batch) in batches {
            match partition.produce(batch, Acks::All) {
                Ok(ticket) => tickets.push((first, count, ticket)),
                Err(ProduceError::OutOfOrderSequence { epoch, .. }) if first == self.first_unanswered() => {
                    // Brokers say so only then.
                    assert!(
                        !self.leads_for_sure(partition, epoch).await,
                        "the oldest batch of a producer is out of order: clients give up then"
                    );
                }
                // What follows would be out of order; clients send it nevertheless.
                Err(_) => {}
            }
        }
        let mut failed = tickets.is_empty();
        for (first, count, ticket) in tickets {
            // A client gives up on a broker that does not answer.
            let outcome = self.env.clock.timeout(Duration::from_secs(2), ticket).await;
            let Some(produced) = outcome.ok().and_then(Result::ok) else {
                failed = true;
                continue;
            };
            let value = (self.id, first);
            self.oracle
                .lock()
                .acknowledged(value, count, produced.base_offset);
            let mut all = self.producers.lock();
            let window = all.get_mut(&self.id).unwrap();
            window.unanswered.retain(|(other, _)| *other != first);
        }
        let pause = if failed { 50 } else { self.rng.range(1..30) };
        self.env.clock.sleep(Duration::from_millis(pause)).await;
    }

    fn first_unanswered(&self) -> u64 {
        let all = self.producers.lock();
        all[&self.id].unanswered.front().map_or(0, |(first, _)| *first)
    }
}

/// What a producer has sent and was not told about, oldest first: the number of the first record, and how many.
#[derive(Debug, Default)]
pub(super) struct Window {
    unanswered: VecDeque<(u64, u64)>,
    next: u64,
}

impl Window {
    fn fill(&mut self, wanted: usize, rng: &Rng) {
        while self.unanswered.len() < wanted {
            let count = rng.range(1..20);
            self.unanswered.push_back((self.next, count));
            self.next += count;
        }
    }
}
