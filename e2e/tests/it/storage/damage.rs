//! Files changed between two runs (D-2, D-3, D-4, P-14).

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::rng::Rng;
use takhin_e2e::wire::Connection;
use takhin_e2e::{Broker, Kind, records};

use super::{
    Acked, TOPIC, active_segment, broker, check_all, position, produce_one, value, write, written_len,
};
use crate::suite::Context;

/// A write that power cut short, above everything that was acknowledged: cut off, and nothing else.
pub(super) fn torn_end(_: &Context) -> Result<()> {
    let mut rng = Rng::from_env("torn_end");
    let mut broker = broker()?;
    let mut acked = Acked::new();
    for round in 0..4 {
        write(&broker, &mut acked, 20)?;
        broker.kill();
        let path = active_segment(&broker)?;
        let mut content = fs::read(&path)?;
        content.truncate(written_len(&content, &acked)?);
        let length = usize::try_from(rng.within(1..4097))?;
        let torn = match round {
            // Garbage, zeros, the beginning of a sound batch, and a whole batch with a flipped bit.
            0 => rng.bytes(length),
            1 => vec![0; length],
            2 => records::batch(&[&value(7)], super::NOW)?[..100].to_vec(),
            _ => {
                let mut batch = records::batch(&[&value(7)], super::NOW)?;
                batch[200] ^= 4;
                batch
            }
        };
        content.extend(torn);
        fs::write(&path, content)?;
        broker.start()?;
        check_all(&broker, &acked).with_context(|| format!("round {round}"))?;
    }
    write(&broker, &mut acked, 1)?;
    check_all(&broker, &acked)
}

/// The disk lost bytes that it had promised to keep. The only voter serves what can be read and takes nothing new:
/// offsets that were acknowledged must not be given to other records.
pub(super) fn lost_end(_: &Context) -> Result<()> {
    let mut broker = broker()?;
    let mut acked = Acked::new();
    write(&broker, &mut acked, 50)?;
    broker.stop()?;
    let path = active_segment(&broker)?;
    let content = fs::read(&path)?;
    fs::write(&path, &content[..written_len(&content, &acked)? - 10])?;
    broker.start()?;
    create_is_alive(&broker)?;
    let mut connection = Connection::open(broker.address())?;
    let batch = records::batch(&[&value(99)], super::NOW)?;
    for _ in 0..5 {
        let (error, _) = connection.produce(TOPIC, 0, &batch)?;
        ensure!(
            error != 0,
            "a record was accepted at an offset that belongs to a lost one"
        );
    }
    readable_prefix(&mut connection, &acked, 49)
}

/// A bit flips in the middle of what was acknowledged: never served, and what lies before it still is.
pub(super) fn flipped_bit(_: &Context) -> Result<()> {
    let mut broker = broker()?;
    let mut acked = Acked::new();
    write(&broker, &mut acked, 60)?;
    broker.kill();
    let path = active_segment(&broker)?;
    let mut content = fs::read(&path)?;
    let place = position(&content, &value(30)).context("record 30 is not in the segment")?;
    content[place + 100] ^= 0x10;
    fs::write(&path, content)?;
    broker.start()?;
    create_is_alive(&broker)?;
    readable_prefix(&mut Connection::open(broker.address())?, &acked, 30)
}

/// The broker serves other topics whatever happened to one partition.
fn create_is_alive(broker: &Broker) -> Result<()> {
    let mut connection = Connection::open(broker.address())?;
    let error = connection.create_topic("alive", 1, &[])?;
    ensure!(error == 0, "CreateTopics: error {error}");
    Ok(())
}

/// Reads as far as the broker lets us: at least `readable` records, each as acknowledged, none behind the damage.
fn readable_prefix(connection: &mut Connection, acked: &Acked, readable: usize) -> Result<()> {
    let mut read = 0;
    loop {
        let (error, _, batches) = connection.fetch(TOPIC, 0, i64::try_from(read)?, 1)?;
        let found = records::values(&batches).with_context(|| format!("damage was served at {read}"))?;
        let Some(first) = found
            .into_iter()
            .find(|(offset, _)| usize::try_from(*offset) == Ok(read))
        else {
            ensure!(
                read >= readable,
                "only {read} of {readable} sound records; error {error}"
            );
            return Ok(());
        };
        ensure!(read < acked.len(), "a record that nobody acknowledged");
        ensure!(first == acked[read], "offset {read}: not what was acknowledged");
        read += 1;
    }
}

/// Votes and watermarks cannot be read: the node must not start as if it had made no promises, and it must not touch
/// what might still be repaired.
pub(super) fn journal(_: &Context) -> Result<()> {
    let mut broker = broker()?;
    let mut acked = Acked::new();
    write(&broker, &mut acked, 20)?;
    broker.stop()?;
    let path = broker.data_dir().join("journal");
    let sound = fs::read(&path)?;

    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&path, &damaged)?;
    refuses_to_serve(&mut broker)?;
    ensure!(fs::read(&path)? == damaged, "the damaged journal was overwritten");

    fs::remove_file(&path)?;
    refuses_to_serve(&mut broker)?;

    fs::write(&path, &sound)?;
    broker.start()?;
    check_all(&broker, &acked)?;
    write(&broker, &mut acked, 1)?;
    check_all(&broker, &acked)
}

/// Starts the broker: it must end by itself, with a failure.
fn refuses_to_serve(broker: &mut Broker) -> Result<()> {
    broker.start_process()?;
    let status = broker
        .wait_end(Duration::from_secs(30))
        .context("it serves without its votes")?;
    ensure!(!status.success(), "it ended, but called that a success");
    Ok(())
}

/// A second process on the same directory ends at once; the first one does not notice.
pub(super) fn second_process(_: &Context) -> Result<()> {
    let broker = broker()?;
    let mut acked = Acked::new();
    write(&broker, &mut acked, 5)?;
    let mut second = Broker::with_data_dir(Kind::Takhin, broker.data_dir())?;
    refuses_to_serve(&mut second)?;
    ensure!(
        second.log_tail().contains("in use"),
        "it does not say why:\n{}",
        second.log_tail()
    );
    write(&broker, &mut acked, 5)?;
    let mut connection = Connection::open(broker.address())?;
    ensure!(
        produce_one(&mut connection, &value(10))?.0 == 0,
        "the first broker was disturbed"
    );
    acked.push((10, value(10)));
    check_all(&broker, &acked)
}
