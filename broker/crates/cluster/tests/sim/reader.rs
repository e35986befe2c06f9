//! Consumers that read while everything goes wrong, as clients do: from whom the metadata name, with the epoch that they know
//! (KIP-320), through [`Partition::fetch`]. What they are told is judged at once.
//!
//! - What was read at an offset is there for everybody who reads it later, and in the end on every replica.
//! - Leaders never tell of less than they, or those before them, have told: neither the high watermark nor the log start goes
//!   back for somebody who does not go back to an older epoch.
//! - Nobody who has read up to an offset is told that the epoch of the last record ended before it: clients would go back then,
//!   and read what comes after it a second time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_cluster::{Cluster, Fetched, Isolation, Offsets, Partition, ReadError, ServedBy};
use takhin_protocol::record::{BatchHeader, HEADER_LEN};
use takhin_runtime::{Env, JoinHandle, Rng, Shutdown};

use crate::nodes::{Running, TOPIC};
use crate::oracle::Value;
use crate::world::records_of;

/// Bytes of one answer, and one batch at least.
const READ: usize = 1 << 11;

/// How many read at a time.
const READERS: usize = 2;

/// Consumers of one topic.
pub(crate) struct Readers {
    found: Found,
    tasks: Vec<JoinHandle<u64>>,
}

/// What all of them have found, by offset.
type Found = Arc<Mutex<BTreeMap<i64, Value>>>;

impl Readers {
    /// Has them read until `stop`.
    pub(crate) fn begin(env: &Env, rng: &Rng, running: &Running, stop: &Shutdown) -> Self {
        let found = Found::default();
        let reader = |_| {
            let reader = Reader {
                env: env.clone(),
                rng: rng.fork(),
                running: Arc::clone(running),
                found: Arc::clone(&found),
                seen: Seen::default(),
            };
            env.tasks.spawn("reader", reader.run(stop.clone()))
        };
        Self {
            tasks: (0..READERS).map(reader).collect(),
            found,
        }
    }

    /// Waits for them to stop, and compares what they have found with what a replica holds in the end.
    pub(crate) async fn end(self, replica: &[(i64, Value)]) {
        let mut answers = 0;
        for task in self.tasks {
            answers += task.await.unwrap();
        }
        assert!(answers > 0, "nobody has read anything");
        let held: BTreeMap<i64, Value> = replica.iter().copied().collect();
        let start = held.keys().next().copied().unwrap_or(i64::MAX);
        for (offset, value) in self.found.lock().range(start..) {
            assert_eq!(held.get(offset), Some(value), "read at {offset}, and gone");
        }
    }
}

struct Reader {
    env: Env,
    rng: Rng,
    running: Running,
    found: Found,
    seen: Seen,
}

/// What one consumer knows.
#[derive(Debug, Default)]
struct Seen {
    /// The newest leader epoch that it was told.
    epoch: i32,
    /// Where it reads on.
    next: i64,
    /// The epoch of the last batch that it has read.
    last_epoch: Option<i32>,
    /// What a leader told it last.
    told: Option<Offsets>,
    answers: u64,
}

impl Reader {
    /// Reads until `stop`; returns how often it was answered.
    async fn run(mut self, stop: Shutdown) -> u64 {
        while !stop.is_triggered() {
            let nodes: Vec<Arc<Cluster>> = self.running.lock().values().cloned().collect();
            if !nodes.is_empty() {
                let [asked, server] = [(); 2].map(|()| {
                    let place = self.rng.range(0..nodes.len() as u64);
                    &nodes[usize::try_from(place).unwrap()]
                });
                self.ask(asked, &nodes, server);
            }
            self.env
                .clock
                .sleep(Duration::from_millis(self.rng.range(1..60)))
                .await;
        }
        self.seen.answers
    }

    /// Takes the metadata of `asked`, and reads from the leader that they name, or from any replica.
    fn ask(&mut self, asked: &Cluster, nodes: &[Arc<Cluster>], any: &Cluster) {
        let Some(topic) = asked.image().topic(TOPIC).map(|topic| topic.id) else {
            return;
        };
        let Some((leader, epoch)) = asked.leadership(topic, 0) else {
            return;
        };
        // A client takes no older word than it has.
        self.seen.epoch = self.seen.epoch.max(epoch);
        if self.rng.chance(0.3) {
            if let Some(replica) = any.partition(topic, 0) {
                self.read(&replica, ServedBy::AnyReplica);
            }
        } else if let Some(node) = nodes.iter().find(|node| node.node_id() == leader)
            && let Some(replica) = node.partition(topic, 0)
        {
            self.read(&replica, ServedBy::Leader);
        }
    }

    fn read(&mut self, replica: &Partition, by: ServedBy) {
        let seen = &mut self.seen;
        match replica.check_epoch(seen.epoch, by) {
            Ok(_) => {}
            // It has become leader since the metadata were asked for.
            Err(ReadError::FencedLeaderEpoch { current, .. }) => {
                seen.epoch = current;
                return;
            }
            Err(_) => return,
        }
        if by == ServedBy::Leader
            && let Some(last) = seen.last_epoch
        {
            seen.check_end(last, replica.end_offset_for_epoch(last));
        }
        match replica.fetch(seen.next, READ, true, Isolation::ReadUncommitted, by) {
            Ok(fetched) => self.take(&fetched, by),
            Err(ReadError::OffsetOutOfRange { start, end, .. }) if by == ServedBy::Leader => {
                assert!(
                    seen.next < start,
                    "a leader in epoch {} has records from {start} to {end} only, {} was read",
                    seen.epoch,
                    seen.next
                );
                (seen.next, seen.last_epoch) = (start, None);
            }
            // A follower may lack what the leader has committed.
            Err(_) => {}
        }
        // Now and then a consumer that begins at the beginning.
        if self.rng.chance(0.02) {
            (self.seen.next, self.seen.last_epoch) = (self.start(), None);
        }
    }

    /// The log start that it was told last.
    fn start(&self) -> i64 {
        self.seen.told.map_or(0, |told| told.log_start_offset)
    }

    fn take(&mut self, fetched: &Fetched, by: ServedBy) {
        if by == ServedBy::Leader {
            self.seen.hear(fetched.offsets);
        }
        // A disk that fails gives nothing.
        let Ok(bytes) = fetched.ranges.read_all() else {
            return;
        };
        let mut records = Vec::new();
        let Some(next) = records_of(&bytes, &mut records) else {
            return;
        };
        assert!(
            next <= fetched.offsets.high_watermark,
            "records up to {next} with a high watermark of {}",
            fetched.offsets.high_watermark
        );
        let mut found = self.found.lock();
        for (offset, value) in records {
            let before = *found.entry(offset).or_insert(value);
            assert_eq!(
                before, value,
                "{before:?} was read at {offset}, and now {value:?}"
            );
        }
        self.seen.next = next;
        self.seen.last_epoch = last_epoch(&bytes);
        self.seen.answers += 1;
    }
}

impl Seen {
    /// Takes in what a leader tells in the newest epoch that is known.
    fn hear(&mut self, now: Offsets) {
        if let Some(told) = self.told {
            assert!(
                now.high_watermark >= told.high_watermark,
                "a reader was told a high watermark of {}, and {} in epoch {}",
                told.high_watermark,
                now.high_watermark,
                self.epoch
            );
            assert!(
                now.log_start_offset >= told.log_start_offset,
                "a reader was told a log start of {}, and {} in epoch {}",
                told.log_start_offset,
                now.log_start_offset,
                self.epoch
            );
        }
        self.told = Some(now);
    }

    /// Judges a leader's answer to where the epoch of the last record that was read ended. What is deleted has no epoch.
    fn check_end(&self, last: i32, (epoch, end): (i32, i64)) {
        let is_deleted = epoch == -1;
        assert!(
            is_deleted || (epoch == last && end >= self.next),
            "epoch {last} ends at {end} in {epoch}, and {} was read in it",
            self.next
        );
    }
}

/// The epoch of the last of whole batches.
fn last_epoch(mut bytes: &[u8]) -> Option<i32> {
    let mut epoch = None;
    while !bytes.is_empty() {
        let header = BatchHeader::parse(bytes[..HEADER_LEN].try_into().unwrap());
        epoch = Some(header.partition_leader_epoch);
        bytes = &bytes[header.total_len()..];
    }
    epoch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(log_start_offset: i64, high_watermark: i64) -> Offsets {
        Offsets {
            log_start_offset,
            last_stable_offset: high_watermark,
            high_watermark,
            log_end_offset: high_watermark,
        }
    }

    #[test]
    #[should_panic(expected = "a high watermark of 9, and 8 in epoch 0")]
    fn a_high_watermark_that_goes_back_is_found() {
        let mut seen = Seen::default();
        seen.hear(told(0, 9));
        seen.hear(told(0, 8));
    }

    #[test]
    #[should_panic(expected = "a log start of 3, and 2 in epoch 0")]
    fn so_is_a_log_start() {
        let mut seen = Seen::default();
        seen.hear(told(3, 9));
        seen.hear(told(2, 9));
    }

    #[test]
    #[should_panic(expected = "epoch 4 ends at 7 in 4, and 8 was read in it")]
    fn so_is_an_epoch_that_ends_too_early() {
        let seen = Seen {
            next: 8,
            ..Seen::default()
        };
        seen.check_end(4, (4, 8));
        seen.check_end(4, (4, 7));
    }
}
