//! A full disk (D-8): writes are refused by name, reads go on, and the space once freed the broker writes again.

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::disk::{self, Mount};
use takhin_e2e::wire::Connection;
use takhin_e2e::{Broker, Kind, records};

use super::{Acked, TOPIC, produce_one};
use crate::suite::{Context, create_topic};

const MIB: u64 = 1 << 20;
const DISK: u64 = 300 * MIB;
const BALLAST: u64 = 200 * MIB;
const KAFKA_STORAGE_ERROR: i16 = 56;

/// Once with the floor that keeps some space free, once down to the last byte.
pub(super) fn floor_and_no_space(_: &Context) -> Result<()> {
    for floor in ["64MiB", "0B"] {
        fill_up(floor).with_context(|| format!("storage.min_free_space={floor}"))?;
    }
    Ok(())
}

fn fill_up(floor: &str) -> Result<()> {
    let disk = Mount::memory(DISK)?;
    let ballast = disk.path().join("ballast");
    disk::fill(&ballast, BALLAST)?;
    let mut broker = Broker::with_data_dir(Kind::Takhin, &disk.path().join("data"))?;
    broker.set("storage.min_free_space", floor);
    broker.start()?;
    create_topic(&broker, TOPIC, 1, &[])?;

    let mut acked = Acked::new();
    let mut connection = Connection::open(broker.address())?;
    let refusal = loop {
        let value = large(acked.len());
        match produce_one(&mut connection, &value)? {
            (0, offset) => acked.push((offset, value)),
            (error, _) => break error,
        }
        ensure!(acked.len() < 400, "more was accepted than the disk can hold");
    };
    ensure!(
        refusal == KAFKA_STORAGE_ERROR,
        "the full disk was answered with error {refusal}"
    );
    ensure!(!acked.is_empty(), "nothing was accepted before the disk was full");

    let (error, _, batches) = connection.fetch(TOPIC, 0, 0, 1)?;
    ensure!(error == 0, "reading from a full disk: error {error}");
    let first = records::values(&batches)?.into_iter().next();
    ensure!(
        first.as_ref() == acked.first(),
        "the first record reads differently on a full disk"
    );

    std::fs::remove_file(&ballast)?;
    broker.kill();
    broker.start()?;
    let mut connection = Connection::open(broker.address())?;
    let (error, offset) = produce_one(&mut connection, &large(acked.len()))?;
    ensure!(error == 0, "there is space again, and yet error {error}");
    acked.push((offset, large(acked.len())));
    super::check_all(&broker, &acked)
}

/// Half a MiB that differs from record to record.
fn large(n: usize) -> Vec<u8> {
    let mut value = n.to_string().into_bytes();
    value.resize(512 << 10, b'.');
    value
}
