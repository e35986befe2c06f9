//! What disks do to a broker: torn ends, flipped bits, no space, failing syncs, lost votes. Only for takhin: the tests
//! know its files.
//!
//! Every test keeps the same promise in view: what comes back is what was acknowledged, or an error, never other bytes.

mod damage;
mod full;
mod sync;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use takhin_e2e::wire::Connection;
use takhin_e2e::{Broker, Kind, records};

use crate::suite::{Suites, create_topic};

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("storage::a_torn_end_is_cut_off", damage::torn_end);
    suites.add_takhin(
        "storage::lost_acknowledged_bytes_are_not_papered_over",
        damage::lost_end,
    );
    suites.add_takhin("storage::a_flipped_bit_is_never_served", damage::flipped_bit);
    suites.add_takhin("storage::an_unreadable_journal_stops_the_node", damage::journal);
    suites.add_takhin("storage::a_second_process_is_refused", damage::second_process);
    suites.add_takhin(
        "storage::a_full_disk_refuses_writes_and_recovers",
        full::floor_and_no_space,
    );
    suites.add_takhin("storage::a_failed_sync_acknowledges_nothing", sync::failed_sync);
}

const TOPIC: &str = "stored";

/// Offset and value of acknowledged records, in order.
type Acked = Vec<(i64, Vec<u8>)>;

/// A running broker with one topic of one partition.
fn broker() -> Result<Broker> {
    let mut broker = Broker::new(Kind::Takhin)?;
    broker.start()?;
    create_topic(&broker, TOPIC, 1, &[])?;
    Ok(broker)
}

/// The value of the n-th record; long enough that a cut or a flipped bit lands in a value.
fn value(n: usize) -> Vec<u8> {
    format!("record {n} {}", "x".repeat(300)).into_bytes()
}

/// Produces the records `from..from + count`, one batch each, and remembers what was acknowledged.
fn write(broker: &Broker, acked: &mut Acked, count: usize) -> Result<()> {
    let mut connection = Connection::open(broker.address())?;
    for n in acked.len()..acked.len() + count {
        let (error, offset) = produce_one(&mut connection, &value(n))?;
        ensure!(error == 0, "record {n}: error {error}");
        acked.push((offset, value(n)));
    }
    Ok(())
}

/// Produces one batch of one record; waits while a leader is being found.
fn produce_one(connection: &mut Connection, value: &[u8]) -> Result<(i16, i64)> {
    let batch = records::batch(&[value], NOW)?;
    takhin_e2e::wait::value("a leader", std::time::Duration::from_secs(20), || {
        let (error, offset) = connection.produce(TOPIC, 0, &batch)?;
        // UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER: not appended, ask again.
        Ok((!matches!(error, 3 | 5 | 6)).then_some((error, offset)))
    })
}

/// A timestamp for the batches here: 2026-11-01, in milliseconds.
const NOW: i64 = 1_793_491_200_000;

/// Everything in the topic; waits while a leader is being found.
fn read_all(broker: &Broker) -> Result<Acked> {
    let mut connection = Connection::open(broker.address())?;
    takhin_e2e::wait::until("a leader", std::time::Duration::from_secs(20), || {
        let (error, _, _) = connection.fetch(TOPIC, 0, 0, 1)?;
        Ok(!matches!(error, 5 | 6))
    })?;
    records::read_all(&mut connection, TOPIC, 0)
}

/// Exactly the acknowledged records are there.
fn check_all(broker: &Broker, acked: &Acked) -> Result<()> {
    let read = read_all(broker)?;
    ensure!(
        read.len() == acked.len(),
        "{} records, {} were acknowledged",
        read.len(),
        acked.len()
    );
    for (read, acked) in read.iter().zip(acked) {
        ensure!(
            read == acked,
            "offset {}: not what was acknowledged at {}",
            read.0,
            acked.0
        );
    }
    Ok(())
}

/// The active segment of the test's topic: the last `.log` file, by name, of the partition directory that holds a
/// record of it. Found by content, because directories are named for topic ids.
fn active_segment(broker: &Broker) -> Result<PathBuf> {
    let mark = value(0);
    for partition in std::fs::read_dir(broker.data_dir().join("partitions"))? {
        let mut logs = Vec::new();
        for file in std::fs::read_dir(partition?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "log") {
                logs.push(path);
            }
        }
        logs.sort();
        let Some(first) = logs.first() else { continue };
        if position(&std::fs::read(first)?, &mark).is_some() {
            return logs.pop().context("the list was not empty");
        }
    }
    bail!(
        "no segment in {} holds the first record",
        broker.data_dir().display()
    )
}

/// Where `part` begins in `whole`.
fn position(whole: &[u8], part: &[u8]) -> Option<usize> {
    whole.windows(part.len()).position(|window| window == part)
}

/// Where the batch of the last acknowledged record ends, in bytes of its segment.
fn written_len(content: &[u8], acked: &Acked) -> Result<usize> {
    let (_, last) = acked.last().context("nothing was acknowledged")?;
    let start = position(content, last).context("the last record is not in the active segment")?;
    // Behind the value only the record's count of headers follows, one byte.
    Ok(start + last.len() + 1)
}
