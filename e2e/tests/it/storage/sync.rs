//! A sync that fails (D-6, D-7): no acknowledgement rests on it, not even when the next one succeeds.

use anyhow::{Result, ensure};
use takhin_e2e::records;
use takhin_e2e::trace::Tampering;
use takhin_e2e::wire::Connection;

use super::{Acked, TOPIC, broker, read_all, value, write};
use crate::suite::Context;

pub(super) fn failed_sync(_: &Context) -> Result<()> {
    let mut broker = broker()?;
    let mut acked = Acked::new();
    write(&broker, &mut acked, 20)?;

    let unknown = value(1_000);
    let batch = records::batch(&[&unknown], super::NOW)?;
    {
        let _fault = Tampering::failing_syncs(broker.pid()?)?;
        let mut connection = Connection::open(broker.address())?;
        for _ in 0..3 {
            // Refused, or the connection ends: anything but success.
            let answer = connection.produce(TOPIC, 0, &batch);
            ensure!(
                !matches!(answer, Ok((0, _))),
                "acknowledged although its sync failed"
            );
            if answer.is_err() {
                connection = Connection::open(broker.address())?;
            }
        }
    }
    // Syncs work again. What was read before the fault is still there, and the broker has not died of it.
    ensure!(broker.is_running()?, "the broker ended\n{}", broker.log_tail());

    broker.kill();
    broker.start()?;
    let read = read_all(&broker)?;
    ensure!(
        read.get(..acked.len()) == Some(&acked),
        "an acknowledged record is lost"
    );
    // The refused ones are unknown to their producer: there or not, but nothing else is.
    for (offset, found) in &read[acked.len()..] {
        ensure!(found == &unknown, "offset {offset}: a record that nobody sent");
    }
    ensure!(
        read.len() <= acked.len() + 3,
        "a record is there more often than it was sent"
    );
    acked = read;
    let mut connection = Connection::open(broker.address())?;
    let (error, offset) = super::produce_one(&mut connection, &value(2_000))?;
    ensure!(error == 0, "after the restart: error {error}");
    ensure!(
        usize::try_from(offset)? == acked.len(),
        "offsets are no longer dense"
    );
    Ok(())
}
